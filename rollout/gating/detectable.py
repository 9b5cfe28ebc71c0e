"""
What a gate can't see, in one sentence, so that a plan may say so before anybody trusts it.

The question is what passes: how bad a worker may truly be and yet show, one time in twenty, a value within the threshold at the moment when
its samples are enough. It answers for the first look; that is when a good worker passes too.

Of a sequential gate it is when something is seen, since whatever it is, it is seen in the end: its own rules say that (foreseen.py).

Source: our own, with the tail of chance.py.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from rollout.gating import pooled, sequential
from rollout.gating.chance import at_most, mean_factor
from rollout.gating.evidence import P95, SAMPLES
from rollout.gating.foreseen import Facing, Foreseen, foresee, together
from rollout.gating.shares import TIMES_MIN
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

    When not even the minimum comes together before the deadline, that is said instead. What a sequential gate sees goes by the traffic that
    it faces (at_traffic); here it is said for little of it and for much.
    """
    if gate.odds is not None:
        return f"{gate.id}: {_at_any_traffic(gate, gate.odds)}"
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
        bursts = "gateways that are away are tried in bursts" if gate.metric is Metric.PUSH_FAILURES else "work comes in bursts"
        return f"not looked at again once a worker has passed: {bursts}"
    own = gate.metric in {Metric.CANARY_P95, Metric.CANARY_FAILURES}
    window_s = max(math.ceil(watch.window_s / sample_s), gate.samples_min if own else 0) * sample_s
    if 0 < watch.watch_s < WINDOWS_TO_FAIL * window_s:
        return f"a last watch of {watch.watch_s:g} s is too short for two windows of {window_s:g} s: what is bad only then is not seen"
    return ""


_RATIOS = (2.0, 1.5, 1.2)
_SHARES = (0.05, 0.01)
# The usual share of failures, where nobody knows it.
USUAL = 0.001
# That a worker wavers by itself for minutes takes as long again as a block does, until what is slow for good is told from that: by so much
# made-up restarts are later than what is reckoned, at most (tests/gating/test_foreseen.py).
_LATER_S = sequential.BLOCK_S
# Who is well passes as soon as luck is with it once: half of them by this share of what is reckoned.
_SOONER = 0.85
# Traffic that stands for all, where nobody knows it.
_LITTLE_PER_S, _MUCH_PER_S = 1.0, 20.0
_ONE = {Metric.PROXY_FAILURES: "request at the proxy"}


def _at_any_traffic(gate: Gate, odds: float) -> str:
    """Say what a sequential gate sees before anybody has measured what its workers are asked."""
    little, much = (Facing(per_s, 300.0, per_s, 1, 1, 0.0, 0.0, USUAL) for per_s in (_LITTLE_PER_S, _MUCH_PER_S))
    return (
        f"at {_LITTLE_PER_S:g} {_ONE.get(gate.metric, SAMPLES[gate.metric][:-1])} a second {at_traffic(gate, odds, little)}; "
        f"at {_MUCH_PER_S:g} {at_traffic(gate, odds, much)}"
    )


def at_traffic(gate: Gate, odds: float, facing: Facing) -> str:
    """
    Say what a sequential gate sees at the traffic that was measured, how soon in the middle, what only several workers show, and when a
    good one passes.
    """
    its, good, amounts = replace(gate, odds=odds), _good(gate, facing), _amounts(gate, facing)
    seen, unseen = list[str](), dict[str, list[str]]()
    for one in amounts:
        found = foresee(its, facing, one.amount, gate.deadline_s)
        if (seconds := found.failed_s + one.later_s) <= gate.deadline_s:
            seen.append(f"{one.what} in about {_roughly(seconds)}")
        else:
            unseen.setdefault(_later(its, facing, one, found), []).append(one.what)
    sees = ", ".join([*seen, *(f"{' and '.join(those)} not per worker{later}" for later, those in unseen.items())])
    return "; ".join([*([sees] if sees else []), _passing(its, facing, foresee(its, facing, good, gate.deadline_s))])


class _Amount(NamedTuple):
    """
    A ratio or a share, and *what* it is called; by *later_s* it shows later than is reckoned. Whether that is *bad*, so that the gate's
    test for PASS is to hold it.
    """

    what: str
    amount: float
    later_s: float
    bad: bool


def _amounts(gate: Gate, facing: Facing) -> list[_Amount]:
    limit = sequential.margin(facing.per_s)
    if gate.metric in sequential.SHARES:
        worst = max(limit.share if gate.max is None else gate.max, TIMES_MIN * facing.usual)
        # Reckoned is with parts of a failure. They come as a whole, and the last one that is needed has to come.
        return [
            _Amount(f"{share:.0%}", share, 1 / (share * facing.per_s), share >= worst)
            for share in _SHARES
            if share >= TIMES_MIN * facing.usual
        ]
    worst = gate.ratio_max or limit.ratio
    return [_Amount(f"{ratio:g} ×", ratio, _LATER_S, ratio >= worst) for ratio in _RATIOS]


def _good(gate: Gate, facing: Facing) -> float:
    return facing.usual if gate.metric in sequential.SHARES else 1.0


def passes_in_time(gate: Gate, odds: float, facing: Facing) -> bool:
    """Tell whether a good worker passes before the gate's deadline."""
    return foresee(replace(gate, odds=odds), facing, _good(gate, facing), gate.deadline_s).passed_s < math.inf


def _passing(gate: Gate, facing: Facing, good: Foreseen) -> str:
    if good.passed_s == math.inf:
        return f"no ruling: even a good one has yet to pass after its {gate.deadline_s:g} s"
    least_s = max(gate.soak_s, max(sequential.REQUESTS_MIN, gate.samples_min) / facing.per_s)
    sooner = 1.0 if gate.metric in sequential.SHARES else _SOONER
    return f"a good one passes in about {_roughly(max(least_s, sooner * good.passed_s))}"


# With fewer requests a second nothing is promised of several workers: of 8 made-up rollouts with 0.41 a second and a ratio of 1.2 only 3
# showed together what was reckoned to be shown. At 1 and 5 a second what is reckoned held.
_TOGETHER_PER_S = 1.0


def _later(gate: Gate, facing: Facing, one: _Amount, found: Foreseen) -> str:
    """
    Say what becomes of what one worker doesn't show in time: what is bad doesn't pass, and what passes is looked at together.

    Said is while which worker of its role is rolled those before show it.
    """
    if one.bad:
        return ", but it doesn't pass"
    if gate.odds is None or not gate.acts or gate.metric in sequential.SHARES or facing.workers < pooled.WORKERS_MIN:
        return ""
    if facing.per_s < _TOGETHER_PER_S:
        return ", not together either"
    for turn in _turns(facing.workers):
        if together(found, facing, turn) >= math.log(gate.odds):
            return f" but together by worker {turn}"
    if together(found, facing, facing.workers, facing.watch_s) >= math.log(gate.odds):
        return " but together by the end of the watch"
    return ", not together either"


def _turns(workers: int) -> Iterator[int]:
    """Return after whom it is asked: each of the first, then ever fewer, since of a thousand nobody wants to know exactly."""
    turn = pooled.WORKERS_MIN + 1
    while turn < workers:
        yield turn
        turn += max(1, turn // 10)
    yield workers


def _roughly(seconds: float) -> str:
    """Write seconds roughly, and rather too many than too few."""
    if seconds < _MINUTES_FROM_S:
        return f"{5 * math.ceil(seconds / 5)} s"
    return f"{math.ceil(seconds / 30) / 2 if seconds < _WHOLE_FROM_S else math.ceil(seconds / 60):g} min"


_MINUTES_FROM_S = 95.0
_WHOLE_FROM_S = 300.0


def _unseen(gate: Gate, samples: float) -> str:
    name, counted = NAMES[gate.metric], f"with {samples:.0f} {SAMPLES[gate.metric]}"
    match gate.metric:
        case Metric.ERRORS | Metric.CANARY_FAILURES | Metric.PROXY_FAILURES | Metric.PUSH_FAILURES:
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
