"""A worker after its restart as a sequential gate sees it, without any chance in it, and what the gate rules."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rollout.gating.curves import CURVES, Curve, Kind
from rollout.gating.sequential import BLOCK_S, BLOCKS_MAX, Odds, Seen, rule, weigh
from rollout.gating.windows import Window, extend_blocks
from rollout.model.gate import Gate, Metric, Tally, Verdict
from tests.gating import evidence_at_hand
from tests.gating.lognormal import expected

ADMITTED_AT_S = 10_000.0
STEP_S = 5.0
PEERS = 4
# Half an hour before.
BASELINE_S = 1800.0
COST_S = 0.004
# Others of its role were 1.9 times as slow at first, and well again after two minutes.
EARLIER = (CURVES.index(Curve(Kind.EXPONENTIAL, 0.9, 30.0)),) * 5


def gate_on(metric: Metric = Metric.LATENCY_P95, **changed: Any) -> Gate:  # noqa: ANN401  (any field of a Gate)
    return evidence_at_hand.gate(metric, **{"odds": 1000.0, "samples_min": 30, "soak_s": 30.0, **changed})


def did(since_s: float, until_s: float, per_s: float, shift: float = 0.0, errors: float = 0.001) -> Tally:
    """Return what a worker does on average, without any chance in it: all its costs as its latency."""
    count = per_s * (until_s - since_s)
    cost_s = count * COST_S * math.exp(shift)
    counts = expected(count, shift)
    return Tally(
        since_s,
        until_s,
        requests=count,
        errors=errors * count,
        latency=counts,
        request_cpu_s=cost_s,
        polls=0.0,
        canaries=round(count),
        canary_failures=round(errors * count),
        canary_latency=counts,
    )


def polled(tally: Tally) -> Tally:
    """Let it be long-polls instead."""
    cost_s = tally.request_cpu_s
    return replace(
        tally,
        requests=0.0,
        polls=tally.requests,
        canaries=0,
        canary_failures=0,
        poll_cpu_s=cost_s,
        poll_db_s=cost_s,
        poll_scheduling_s=cost_s,
    )


def before(per_s: float, seconds: float = BASELINE_S) -> Tally:
    return did(ADMITTED_AT_S - seconds, ADMITTED_AT_S, per_s)


def in_blocks(tallies: Sequence[Tally], controls: Sequence[Tally | None]) -> tuple[Window, ...]:
    blocks: tuple[Window, ...] = ()
    for own, theirs in zip(tallies, controls, strict=True):
        blocks = extend_blocks(blocks, own, theirs, BLOCK_S, BLOCKS_MAX)
    return blocks


def steady(seconds: float, per_s: float = 20.0, *, peers: int = PEERS, pool_shift: float = 0.0, **how: Any) -> Seen:  # noqa: ANN401  (see did)
    """Return what is seen of a worker that does the same all the time, and of its pool."""
    times = [ADMITTED_AT_S + STEP_S * index for index in range(round(seconds / STEP_S))]
    own = [did(at_s, at_s + STEP_S, per_s, **how) for at_s in times]
    theirs = [did(at_s, at_s + STEP_S, peers * per_s, pool_shift) if peers else None for at_s in times]
    return Seen(in_blocks(own, theirs), before(per_s), before(peers * per_s) if peers else None, EARLIER, ADMITTED_AT_S)


def ruled_on(gate: Gate, seen: Seen, *, later_s: float = 0.0, unmeasured: str | None = None) -> Verdict:
    """Rule right after the last measurement, or *later_s*."""
    odds, _ = weigh(gate, seen)
    ended_s = seen.blocks[-1].own.until_s if seen.blocks else seen.admitted_at_s
    return rule(gate, seen, odds, unmeasured=unmeasured, now_s=ended_s + later_s)


def sure(tally: Tally | None) -> Tally:
    assert tally is not None
    return tally


def each(seen: Seen, change: Any) -> Seen:  # noqa: ANN401  (a function of a tally)
    blocks = tuple(Window(change(b.own), (), None if b.controls is None else change(b.controls)) for b in seen.blocks)
    return seen._replace(blocks=blocks, baseline=change(sure(seen.baseline)), pool=None if seen.pool is None else change(seen.pool))


def numbers(odds: Odds) -> tuple[float, ...]:
    return (*odds[:-1], *(number for level in odds.levels for number in level))
