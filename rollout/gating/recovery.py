"""
Whether a restarted worker carries its load again.

Two things must have come back: its share of what its pool is asked (a fraction of the pool's median, not of its own past, because evening
traffic falls everywhere at once), and its level, which is the CPU that a completed request costs, against what it cost the same worker
before. Both are looked at in windows, one after the other, so that a cold start that is over no longer counts.

A cold cache makes every request dear at first and gets cheaper with each one. That is recovery under way: PENDING. What is late and no
longer improves is FAIL. Source: facts of cache transients, where gates without this rule took 91 to 99 % of healthy workers back.
"""

from collections.abc import Sequence
from statistics import median

from rollout.gating.windows import Window, complete, completed, completed_per_s, seconds
from rollout.model.gate import Evidence, Recovery, Ruling, Tally, Verdict
from rollout.model.ids import GateId

GATE = GateId("recovery")
# A window that is nearer to its goal by less than this is not called better: so much is chance.
IMPROVEMENT_MIN = 0.1


def rule(  # noqa: C901  (one row a ruling)
    target: Recovery,
    windows: Sequence[Window],
    baseline: Tally | None,
    *,
    unmeasured: str | None,
    admitted_at_s: float,
    now_s: float,
) -> Verdict:
    """
    Rule on one worker that was admitted at *admitted_at_s*.

    PASS when its last complete window has its share and its level; until *recovery_s* PENDING. After it FAIL, unless the window before was
    worse by IMPROVEMENT_MIN: then PENDING, until *deadline_s*. A pool that is asked too little to tell is INCONCLUSIVE then. Never raises:
    what can't be measured is UNMEASURABLE.
    """
    if unmeasured is not None:
        return _verdict(Ruling.UNMEASURABLE, unmeasured)
    late = now_s - admitted_at_s > target.recovery_s
    whole = complete(windows, target.window_s)
    if not whole:
        if late:
            return _verdict(
                Ruling.UNMEASURABLE, f"after {target.recovery_s:g} s there is no window of {target.window_s:g} s of measurements"
            )
        return _verdict(Ruling.PENDING, f"it has yet to be watched for {target.window_s:g} s")
    last = whole[-1]
    if not last.peers_per_s:
        return _verdict(Ruling.UNMEASURABLE, "nobody else of its pool was measured, so what its share would be is not known")
    expected = median(last.peers_per_s) * seconds(last.own)
    if max(expected, completed(last.own)) < target.samples_min:
        why = f"its pool completes {expected:.0f} requests a worker in {target.window_s:g} s, fewer than the {target.samples_min} needed"
        return _verdict(Ruling.INCONCLUSIVE if late else Ruling.PENDING, why)
    gap, why = _gap(target, last, baseline)
    if gap <= 0:
        return _verdict(Ruling.PASS, why, last, target)
    if not late:
        return _verdict(Ruling.PENDING, f"{why} (it has {target.recovery_s:g} s)", last, target)
    if now_s - admitted_at_s <= target.deadline_s:
        if len(whole) == 1:
            return _verdict(Ruling.PENDING, f"{why}; whether it improves is known after another {target.window_s:g} s", last, target)
        before, _ = _gap(target, whole[-2], baseline)
        if gap < before * (1 - IMPROVEMENT_MIN):
            return _verdict(Ruling.PENDING, f"recovering, late but improving: {why}", last, target)
    return _verdict(Ruling.FAIL, f"after {now_s - admitted_at_s:.0f} s {why}", last, target)


def _gap(target: Recovery, window: Window, baseline: Tally | None) -> tuple[float, str]:
    """Return how far a window is from the goal, as a fraction of it (0 or less: it is there), with the sentence."""
    expected = median(window.peers_per_s)
    share = completed_per_s(window.own) / expected if expected > 0 else 1.0
    share_gap = (target.share_min - share) / target.share_min
    why = f"it completes {share:.0%} of what the others of its pool do (at least {target.share_min:.0%})"
    level, before = _level(window.own), None if baseline is None else _level(baseline)
    if level is None or before is None:
        return share_gap, f"{why}; what a request cost it before isn't known"
    ratio = level / before
    level_gap = (ratio - target.level_ratio_max) / target.level_ratio_max
    why += f" at {ratio:.2g} × the CPU per request that it took before (at most {target.level_ratio_max:g} ×)"
    return max(share_gap, level_gap), why


def _verdict(ruling: Ruling, because: str, window: Window | None = None, target: Recovery | None = None) -> Verdict:
    if window is None or target is None:
        return Verdict(GATE, ruling, because, Evidence(0.0, None, None, None))
    expected = median(window.peers_per_s)
    evidence = Evidence(
        samples=completed(window.own),
        observed=completed_per_s(window.own),
        baseline=expected,
        threshold=target.share_min * expected,
        compared_with="its pool's median",
    )
    return Verdict(GATE, ruling, because, evidence)


def _level(tally: Tally) -> float | None:
    count = completed(tally)
    return tally.cpu_s / count if count > 0 and tally.cpu_s > 0 else None
