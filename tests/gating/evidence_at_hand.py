"""Gates and tallies that tests begin with."""

from dataclasses import replace
from typing import Any

from rollout.gating.threshold import rule
from rollout.model.gate import LATENCY_EDGES_S, Gate, Metric, Tally, Verdict
from rollout.model.ids import GateId

ADMITTED_AT_S = 1000.0
BUCKETS = len(LATENCY_EDGES_S) + 1


def gate(metric: Metric, **changed: Any) -> Gate:  # noqa: ANN401  (any field of a Gate)
    """Make a gate that asks for 50 samples and half a minute, and gives up after ten."""
    plain = Gate(
        id=GateId("gate"),
        metric=metric,
        ratio_max=None,
        slack=0.0,
        max=None,
        samples_min=50,
        soak_s=30.0,
        fresh_s=20.0,
        deadline_s=600.0,
        on_inconclusive="pause",
        on_unmeasurable="pause",
    )
    return replace(plain, **changed)


def tally(**changed: Any) -> Tally:  # noqa: ANN401  (any field of a Tally)
    """Make the tally of the minute after it was admitted."""
    return replace(Tally(ADMITTED_AT_S, ADMITTED_AT_S + 60), **changed)


def histogram(**counts: float) -> tuple[float, ...]:
    """Fill buckets by their upper edge in milliseconds, as in `ms100=20`."""
    by_edge = {f"ms{edge * 1000:g}": index for index, edge in enumerate(LATENCY_EDGES_S)}
    found = [0.0] * BUCKETS
    for edge, count in counts.items():
        found[by_edge[edge]] = count
    return tuple(found)


def ruled(
    on: Gate,
    after: Tally | None,
    *,
    baseline: Tally | None = None,
    controls: Tally | None = None,
    unmeasured: str | None = None,
    now_s: float = ADMITTED_AT_S + 60,
    pool: Tally | None = None,
) -> Verdict:
    """Rule a minute after it was admitted, unless told otherwise."""
    at_s = ADMITTED_AT_S
    return rule(on, after=after, baseline=baseline, controls=controls, unmeasured=unmeasured, admitted_at_s=at_s, now_s=now_s, pool=pool)
