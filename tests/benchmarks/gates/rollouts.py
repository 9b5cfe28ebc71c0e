"""
A whole rollout of well workers, as a gate sees it.

Thirty restarts are not thirty times one restart: an incident hits whoever is being watched, the drift is the same for all, and peers run
out towards the end of a pool: who runs the new release shows nothing of how it was without it.
"""

import numpy as np
import numpy.typing as npt

from tests.benchmarks.gates import draw
from tests.benchmarks.gates.draw import BASELINE_STEPS, HORIZON_S, HORIZON_STEPS, STEP_S
from tests.benchmarks.gates.scenarios import BY_NAME, ERRORS_BASE, Transient
from tests.benchmarks.gates.seeds import Purpose, generator
from tests.benchmarks.gates.traces import INCIDENT_SHARE, Incident, Restart, Truth, scrapes, slow_down, whole

POOL = 6
# From one worker's admission to the next one's.
APART_STEPS = 60
# Half an hour each, in which six more follow: that all are watched to the end of a rollout of hours would take as long to weigh.
WATCHED_STEPS = 2 * HORIZON_STEPS


def traces(purpose: Purpose, level: float, run: int, workers: int = 30, ratio: float = 1.0, *, in_full: bool = True) -> tuple[Restart, ...]:
    """Return the restarts of the *run*-th rollout: always the same ones."""
    return rollout(generator(purpose, "rollout", level, run), level, workers, ratio, in_full=in_full)


def rollout(rng: np.random.Generator, level: float, workers: int = 30, ratio: float = 1.0, *, in_full: bool = True) -> tuple[Restart, ...]:
    """
    Draw a rollout, pool by pool, one worker after the other, each watched for WATCHED_STEPS.

    All are well, or by the new release *ratio* times as slow as before. Unless *in_full*, the single scrapes of the baselines are left out,
    which take a while, and which not every gate looks at.
    """
    admitted = BASELINE_STEPS + APART_STEPS * np.arange(workers)
    steps = int(admitted[-1]) + WATCHED_STEPS
    latency, load = draw.environment(rng, workers, steps)
    incidents = _incidents(rng, (steps - BASELINE_STEPS) * STEP_S)
    for incident in incidents:
        slow_down(latency, incident, BASELINE_STEPS)
    for worker, step in enumerate(admitted):
        at_s = draw.middles(steps - int(step))
        latency[worker, step:] += np.log(ratio * Transient().drawn(rng)(at_s))
    means = level * STEP_S * np.exp(load)[..., None] * draw.bucket_shares(latency)
    misses = np.concatenate([draw.missed(rng, 1, steps, [int(step)]) for step in admitted])
    for row, one in zip(means, misses, strict=True):
        draw.move_on(row, one)
    begins = draw.since(misses)
    errors = np.full(steps, ERRORS_BASE)
    counted = [draw.count(rng, *each) for each in zip(means, [errors] * workers, begins, misses, strict=True)]
    return tuple(_restart(level, worker, counted, admitted, incidents, in_full=in_full) for worker in range(workers))


def _restart(
    level: float,
    worker: int,
    counted: list[draw.Counts],
    admitted: npt.NDArray[np.int_],
    incidents: tuple[Incident, ...],
    *,
    in_full: bool,
) -> Restart:
    """Cut out what is seen of one restart."""
    step = int(admitted[worker])
    end = step + WATCHED_STEPS
    first = worker - worker % POOL
    peers = [peer for peer in range(first, min(first + POOL, len(counted))) if peer != worker]
    now = np.arange(step, end)
    watched = [_cut(counted[peer], step, end, now < admitted[peer]) for peer in peers]
    # What a peer did in the 30 min before this restart, or before its own.
    compared = [peer for peer in peers if step < admitted[peer]]
    ends = [min(step, int(admitted[peer])) for peer in compared]
    before = [
        _cut(counted[peer], last - BASELINE_STEPS, last, np.ones(BASELINE_STEPS, bool), step - BASELINE_STEPS)
        for peer, last in zip(compared, ends, strict=True)
    ]
    controls = _sum(watched, end)
    theirs = _sum(before, step)
    own = counted[worker]
    late_s = (step - BASELINE_STEPS) * STEP_S
    seen = tuple(Incident(one.from_s - late_s, one.until_s - late_s, one.factor) for one in incidents)
    return Restart(
        level,
        step * STEP_S,
        own.total(step - BASELINE_STEPS, step),
        whole(own.tallies(step - BASELINE_STEPS, step)) if in_full else (),
        theirs.total(step - BASELINE_STEPS, step) if before else None,
        whole(theirs.tallies(step - BASELINE_STEPS, step)) if in_full else (),
        scrapes(own.tallies(step, end), controls.tallies(step, end), None),
        Truth("rollout", BY_NAME["healthy"].healthy, seen),
    )


def _cut(counts: draw.Counts, from_step: int, until_step: int, keep: draw.Bools, shown_from: int | None = None) -> draw.Counts:
    """Take a stretch where *keep* says so, dated as if it had begun at *shown_from*."""
    part = slice(from_step, until_step)
    shift = 0 if shown_from is None else shown_from - from_step
    out = counts.out[part] | ~keep
    return draw.Counts(counts.begins[part] + shift, counts.latency[part] * ~out[:, None], counts.errors[part] * ~out, out)


def _sum(parts: list[draw.Counts], end: int) -> draw.Counts:
    """Add what several workers did in the same stretch, which ends at *end*, and put it where it belongs in the whole."""
    length = len(parts[0].out) if parts else BASELINE_STEPS
    latency = np.zeros((end, len(draw.EDGES) + 1))
    errors, out, begins = np.zeros(end), np.ones(end, bool), np.full(end, end)
    for part in parts:
        latency[end - length :] += part.latency
        errors[end - length :] += part.errors
        out[end - length :] &= part.out
        begins[end - length :] = np.minimum(begins[end - length :], np.where(part.out, end, part.begins))
    return draw.Counts(begins, latency, errors, out)


def _incidents(rng: np.random.Generator, lasts_s: float) -> tuple[Incident, ...]:
    """Draw those that the shared database has, as often as in single restarts. Times count from the first admission."""
    begins = rng.uniform(0, lasts_s, rng.poisson(INCIDENT_SHARE * lasts_s / HORIZON_S))
    return tuple(Incident(float(from_s), float(min(from_s + rng.uniform(60, 240), lasts_s)), float(rng.uniform(2, 4))) for from_s in begins)
