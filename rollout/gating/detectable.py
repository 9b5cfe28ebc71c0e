"""
What a gate can't see, in one sentence, so that a plan may say so before anybody trusts it.

The question is what passes: how bad a worker may truly be and yet show, one time in twenty, a value within the threshold at the moment when
its samples are enough. It answers for the first look; that is when a good worker passes too.
"""

import math
from typing import NamedTuple

from rollout.gating import pooled, sequential
from rollout.gating.chance import at_most, mean_factor
from rollout.gating.evidence import P95, SAMPLES
from rollout.gating.latency import APART, DRIFT_LASTS_S, GOOD_RATIO, GOOD_RATIO_ALONE, WAVERS, Level
from rollout.gating.shares import SHARE_MAX, TIMES_MIN
from rollout.gating.shift import SPREAD
from rollout.gating.threshold import NAMES, say
from rollout.gating.windows import BURSTS, WINDOWS_TO_FAIL
from rollout.model.gate import Gate, Metric
from rollout.model.plan import Watch

# Passing this often is passing unseen.
_UNSEEN = 0.05
# The standard normal quantile of 1 − _UNSEEN.
_UNSEEN_Z = 1.645
_STEPS = 40


def detectable(gate: Gate, samples_per_s: float | None = None, horizon_s: float | None = None) -> str:
    """
    Say what passes *gate* unseen: at its own minimum of samples, or at what *samples_per_s* brings until *horizon_s* (its soak if None).

    When not even the minimum comes together before the deadline, that is said instead.
    """
    if gate.odds is not None:
        return f"{gate.id}: {_sequential(gate, gate.odds, samples_per_s)}"
    samples = float(gate.samples_min)
    if samples_per_s is not None:
        samples = max(samples, samples_per_s * (gate.soak_s if horizon_s is None else horizon_s))
        if samples_per_s * gate.deadline_s < gate.samples_min:
            expected = f"about {samples_per_s * gate.deadline_s:.0f} of the {gate.samples_min} {SAMPLES[gate.metric]} needed"
            return f"{gate.id}: no ruling, only {expected} come within its {gate.deadline_s:g} s"
    return f"{gate.id}: {_unseen(gate, samples)}"


def unwatched(gate: Gate, watch: Watch, sample_s: float) -> str:
    """
    Say why *gate* sees nothing once a worker has passed, as far as that is known beforehand; empty where it sees something.

    How much users will ask isn't known, but canary requests are ours: each worker gets one every *sample_s*.
    """
    if gate.odds is not None:
        return ""
    if gate.metric in BURSTS:
        return "not looked at again once a worker has passed: work comes in bursts"
    own = gate.metric in {Metric.CANARY_P95, Metric.CANARY_FAILURES}
    window_s = max(math.ceil(watch.window_s / sample_s), gate.samples_min if own else 0) * sample_s
    if 0 < watch.watch_s < WINDOWS_TO_FAIL * window_s:
        return f"a last watch of {watch.watch_s:g} s is too short for two windows of {window_s:g} s: what is bad only then is not seen"
    return ""


# What it costs not to know beforehand how bad a release is, and how its worker recovers (a logarithm of odds; measured on made-up traces).
_UNKNOWN = 4.0
# Until then a slow worker looks like one whose caches are cold (measured likewise, with a recovery that others of its role have shown).
_RECOVERY_S = 240.0
_RATIOS = (2.0, 1.5, 1.2)
_SHARES = (0.05, 0.01)
# A usual share of failures, for a plan that knows none yet.
_USUAL = 0.001


def _sequential(gate: Gate, odds: float, samples_per_s: float | None) -> str:
    """Say what a sequential gate sees, and after how many samples or how long; what takes longer than its deadline is not seen by it."""
    counted = SAMPLES[gate.metric]
    first_s = 0.0 if gate.metric in sequential.SHARES else _RECOVERY_S
    if gate.metric in sequential.SHARES:
        bits = [(f"{share:.0%}", (math.log(odds) + _UNKNOWN) / _divergence(share, _USUAL)) for share in _SHARES]
        limit = sequential.margin(samples_per_s or 1.0).share if gate.max is None else gate.max
        passing = math.log(sequential.PASS_ODDS) / -math.log1p(-min(SHARE_MAX, max(limit, TIMES_MIN * _USUAL)))
        name = NAMES[gate.metric]
    else:
        least = math.log(GOOD_RATIO)
        bits = [(f"{ratio:g} ×", (math.log(odds) + _UNKNOWN) * 2 * SPREAD**2 / (math.log(ratio) - least) ** 2) for ratio in _RATIOS]
        ratio = gate.ratio_max or sequential.margin(samples_per_s or 1.0).ratio
        passing = math.log(sequential.PASS_ODDS) * 2 * SPREAD**2 / math.log(ratio) ** 2
        name = "time" if gate.metric in sequential.HISTOGRAMS else "cost"
    passing = max(passing, sequential.REQUESTS_MIN, gate.samples_min)
    if samples_per_s is None:
        sees = ", ".join(f"{what} after about {needed:.0f}" for what, needed in bits)
        late = f", not before about {_roughly(first_s)}, since until then it may be a recovery" if first_s else ""
        return f"a {name} of {sees} {counted}{late}; a good worker passes after about {passing:.0f}"
    times = [(what, first_s + needed / samples_per_s) for what, needed in bits]
    seen = [f"{what} in about {_roughly(time_s)}" for what, time_s in times if time_s <= gate.deadline_s]
    unseen = [what for what, time_s in times if time_s > gate.deadline_s]
    blind = f", not {' or '.join(unseen)}" if unseen else ""
    return (
        f"with {samples_per_s:.2g} {counted} a second it sees {', '.join(seen) or 'nothing of the kind'}{blind}; "
        f"a good worker passes in about {_roughly(max(gate.soak_s, passing / samples_per_s))}"
    )


class Facing(NamedTuple):
    """
    What a worker's sequential gate will have: *per_s* samples a second, also in the *baseline_s* before, and somebody to compare with, or
    nobody (*alone*).

    It is one of *workers* of its role, who follow one another every *turn_s*, and are watched for *watch_s* after the last.
    """

    per_s: float
    baseline_s: float
    alone: bool
    workers: int
    turn_s: float
    watch_s: float


def at_traffic(gate: Gate, odds: float, facing: Facing) -> str:
    """Say what a sequential gate sees at the traffic that was measured, how soon, what only several workers show, and when one passes."""
    limit = sequential.margin(facing.per_s)
    if gate.metric in sequential.SHARES:
        worst = limit.share if gate.max is None else gate.max
        needed = math.log(sequential.PASS_ODDS) / -math.log1p(-min(SHARE_MAX, max(worst, TIMES_MIN * _USUAL))) / facing.per_s
        late = [", but it doesn't pass" if share >= worst else "" for share in _SHARES]
        needs_s = [(math.log(odds) + _UNKNOWN) / _divergence(share, _USUAL) / facing.per_s for share in _SHARES]
        times = [(f"{share:.0%}", seconds, later) for share, seconds, later in zip(_SHARES, needs_s, late, strict=True)]
        warm_s = 0.0
    else:
        needed = sequential.BLOCK_S * math.log(sequential.PASS_ODDS) / _said_by_a_block(facing, math.log(gate.ratio_max or limit.ratio))
        warm_s = _WARM_S
        good = math.log(GOOD_RATIO_ALONE if facing.alone else GOOD_RATIO) + SPREAD / math.sqrt(max(1.0, facing.per_s * facing.baseline_s))
        bad = gate.ratio_max or limit.ratio
        times = [(f"{ratio:g} ×", _seen_after_s(facing, ratio, good, odds), _later(facing, ratio, bad, odds)) for ratio in _RATIOS]
    seen = [f"{what} in about {_roughly(seconds)}" for what, seconds, _ in times if seconds <= gate.deadline_s]
    unseen = [f"{what} not per worker{later}" for what, seconds, later in times if seconds > gate.deadline_s]
    least_s = max(sequential.REQUESTS_MIN, gate.samples_min) / facing.per_s
    passing_s = max(gate.soak_s, warm_s + max(least_s, needed))
    passes = f"a good one passes in about {_roughly(passing_s)}"
    if passing_s > gate.deadline_s:
        passes = f"no ruling: even a good one has yet to pass after its {gate.deadline_s:g} s"
    return "; ".join([", ".join([*seen, *unseen]), passes])


# Until then a good worker's caches are as warm as it has to be to pass (the middle of made-up traces).
_WARM_S = 100.0
# What the drift of a pool leaves unknown, as drift.py has it after a few blocks, and without anybody to follow (variances).
_DRIFT, _DRIFT_ALONE = 0.002, 0.15**2


def _variance(facing: Facing) -> float:
    """Return how badly one block knows how slow a worker is."""
    return SPREAD**2 / (facing.per_s * sequential.BLOCK_S) + WAVERS**2 + (_DRIFT_ALONE if facing.alone else _DRIFT)


def _said_by_a_block(facing: Facing, apart: float) -> float:
    """Return the logarithm of the odds that one block gives on average between two that lie so far *apart*."""
    return apart * apart / (2 * _variance(facing))


def _seen_after_s(facing: Facing, ratio: float, good: float, odds: float) -> float:
    apart = math.log(ratio) - good
    # As in latency.Setting: what is nearer to good than that is told from it by no test.
    if apart <= APART:
        return math.inf
    return _RECOVERY_S + sequential.BLOCK_S * (math.log(odds) + _UNKNOWN) / _said_by_a_block(facing, apart)


def _later(facing: Facing, ratio: float, bad: float, odds: float) -> str:
    """
    Say what becomes of a ratio that one worker doesn't show in time. What would be *bad* doesn't pass; what does is looked at together.

    Said is while which worker of its role is rolled those before show it; nothing when they don't until the last watch ends.
    """
    if ratio >= bad:
        return ", but it doesn't pass"
    for turn in range(pooled.WORKERS_MIN + 1, facing.workers + 2):
        last = turn > facing.workers
        levels = [_level(facing, ratio, (turn - place) * facing.turn_s + facing.watch_s * last) for place in range(1, turn)]
        if pooled.weigh([level for level in levels if level.seconds > 0])[0] >= math.log(odds) + _UNKNOWN:
            return f" but together by {'the end of the watch' if last else f'worker {turn}'}"
    return ""


def _level(facing: Facing, ratio: float, seconds: float) -> Level:
    # What was longer ago is forgotten.
    blocks = max(1.0, min(seconds / sequential.BLOCK_S, sequential.BLOCKS_MAX))
    shared = (_DRIFT_ALONE if facing.alone else _DRIFT) * min(1.0, DRIFT_LASTS_S / max(seconds, 1.0))
    return Level(math.log(ratio), _variance(facing) / blocks, seconds, seconds, shared, alone=float(facing.alone))


def _divergence(share: float, usual: float) -> float:
    """Return what one request says on average of a share that isn't the usual one (Kullback and Leibler)."""
    return share * math.log(share / usual) + (1 - share) * math.log((1 - share) / (1 - usual))


def _roughly(seconds: float) -> str:
    """Write seconds roughly."""
    return f"{seconds:.0f} s" if seconds < _MINUTES_FROM_S else f"{seconds / 60:.0f} min"


_MINUTES_FROM_S = 100.0


def _unseen(gate: Gate, samples: float) -> str:
    name, counted = NAMES[gate.metric], f"with {samples:.0f} {SAMPLES[gate.metric]}"
    match gate.metric:
        case Metric.ERRORS | Metric.CANARY_FAILURES | Metric.PROXY_FAILURES:
            if gate.max is None:
                points = _passes_with(samples, 0.0) * 100
                return f"{counted}, a {name} that is {points:.2g} points above the allowed one ({_threshold(gate)}) may pass"
            return f"{counted}, a {name} below {_passes_with(samples, gate.max) * 100:.2g} % may pass"
        case Metric.LATENCY_P95 | Metric.CANARY_P95:
            slow = _passes_with(samples, 1 - P95) * 100
            return f"{counted}, up to {slow:.2g} % of them may take longer than {_threshold(gate)}"
        case Metric.REQUEST_CPU | Metric.POLL_CPU | Metric.POLL_DB | Metric.POLL_SCHEDULING:
            return f"{counted}, {mean_factor(samples, _UNSEEN_Z):.2g} × the allowed {name} ({_threshold(gate)}) may pass"
        case Metric.WORK:
            return f"a fall that leaves at least {_threshold(gate)} is not seen"
        case Metric.BACKLOG:
            return f"what waits for long but is never more than {_threshold(gate)} is not seen"


def _passes_with(samples: float, passing: float) -> float:
    """Return the greatest true share that still shows as *passing* or less one time in twenty."""
    low, high = passing, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if at_most(math.floor(passing * samples), samples, middle) > _UNSEEN:
            low = middle
        else:
            high = middle
    return low


def _threshold(gate: Gate) -> str:
    """Write the threshold before any baseline is known."""
    if gate.ratio_max is None:
        return "no threshold" if gate.max is None else say(gate.metric, gate.max)
    sign, times = ("-", "÷") if gate.metric is Metric.WORK else ("+", "×")
    relative = f"the baseline {times} {gate.ratio_max:g}" + (f" {sign} {say(gate.metric, gate.slack)}" if gate.slack else "")
    return relative if gate.max is None else f"{relative} or {say(gate.metric, gate.max)}"
