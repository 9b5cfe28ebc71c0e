"""
One restart as a gate sees it: the baseline before, and a scrape every 5 s after the worker got its traffic back.

A worker's latencies are log-normal. Everything else multiplies them: what all workers share (load on the database, the hour, an incident in
one run of ten), what each has of its own, the cold cache of the restarted one, and what the new release made worse.

Times of tallies count from the beginning of the trace and *at_s* from admission; *admitted_s* is the difference.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from rollout.model.gate import Tally
from tests.benchmarks.gates import draw
from tests.benchmarks.gates.draw import BASELINE_STEPS, HORIZON_S, HORIZON_STEPS, STEP_S
from tests.benchmarks.gates.scenarios import BY_NAME, ERRORS_BASE, Floats, Scenario
from tests.benchmarks.gates.seeds import Purpose, generator

PEERS = 5
INCIDENT_SHARE = 0.1
HERD_FACTOR = 3.0
HERD_STEPS = 6


@dataclass(frozen=True, slots=True)
class Scrape:
    """
    What came in *at_s* seconds after admission.

    *own* is what the worker did since its last successful scrape, None when this one was missed. *controls* is the sum over the peers that
    are to be compared with, None when there are none or none could be asked. Both are None in an outage.
    """

    at_s: float
    own: Tally | None
    controls: Tally | None


@dataclass(frozen=True, slots=True)
class Incident:
    """All workers were *factor* times as slow for a while (seconds from admission)."""

    from_s: float
    until_s: float
    factor: float


@dataclass(frozen=True, slots=True)
class Truth:
    """What a gate isn't told. *reset_s* and *outage_s* count from admission."""

    scenario: str
    healthy: bool
    incidents: tuple[Incident, ...] = ()
    reset_s: float | None = None
    outage_s: float | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """
    One restart of a worker with *rate* requests per second.

    The scrapes of the baselines are whole: what a missed one would have brought stands in the next. *controls_baseline* is the sum over the
    peers of each one's own baseline, None where no peer is left.
    """

    rate: float
    admitted_s: float
    baseline: Tally
    baseline_scrapes: tuple[Tally, ...]
    controls_baseline: Tally | None
    controls_baseline_scrapes: tuple[Tally, ...]
    scrapes: tuple[Scrape, ...]
    truth: Truth


def trace(purpose: Purpose, scenario: str, level: float, run: int) -> Restart:
    """Return the *run*-th restart of that kind: always the same one."""
    return restart(generator(purpose, scenario, level, run), BY_NAME[scenario], level)


def restart(rng: np.random.Generator, scenario: Scenario, level: float, peers: int = PEERS) -> Restart:
    """Draw one restart of a worker with *level* requests per second, and of what its *peers* did meanwhile."""
    steps = BASELINE_STEPS + HORIZON_STEPS
    latency, load = draw.environment(rng, 1 + peers, steps)
    incidents = _incidents(rng, 1.0 if scenario.incident else INCIDENT_SHARE)
    for incident in incidents:
        slow_down(latency, incident, BASELINE_STEPS)
    at_s = draw.middles(HORIZON_STEPS)
    warming = scenario.transient.drawn(rng)
    reset_s = rng.uniform(120.0, 600.0)
    factor = warming(at_s)
    if scenario.reset:
        # The caches were lost once more.
        factor = np.where(at_s < reset_s, factor, warming(np.maximum(at_s - reset_s, 0.0)))
    factor = factor * scenario.latency * (1 + (scenario.leak - 1) * at_s / HORIZON_S)
    latency[0, BASELINE_STEPS:] += np.log(factor)
    means = level * STEP_S * np.exp(load)[..., None] * draw.bucket_shares(latency)
    own = means[0]
    if scenario.slow_share:
        shares = draw.bucket_shares(latency[0, BASELINE_STEPS:], scenario.slow_share, scenario.slow_factor)
        own[BASELINE_STEPS:] = level * STEP_S * np.exp(load[0, BASELINE_STEPS:])[:, None] * shares
    if scenario.herd:
        own[BASELINE_STEPS : BASELINE_STEPS + HERD_STEPS] *= HERD_FACTOR
    misses = draw.missed(rng, 1 + peers, steps, [BASELINE_STEPS])
    if scenario.reset:
        _forget(own, misses[0], BASELINE_STEPS * STEP_S + reset_s)
    for row in range(1 + peers):
        draw.move_on(means[row], misses[row])
    outage_s = float(rng.uniform(60.0, 300.0)) if scenario.outage else None
    own_errors = np.full(steps, ERRORS_BASE)
    own_errors[BASELINE_STEPS:] = scenario.errors
    begins = draw.since(misses)
    mine = draw.count(rng, own, own_errors, begins[0], misses[0])
    # A sum begins where the first of its parts does.
    first = np.where(misses, steps, begins)[1:].min(axis=0, initial=steps)
    theirs = draw.count(rng, means[1:].sum(axis=0), np.full(steps, ERRORS_BASE), first, np.logical_and.reduce(misses[1:]))
    truth = Truth(scenario.name, scenario.healthy, incidents, float(reset_s) if scenario.reset else None, outage_s)
    return Restart(
        level,
        BASELINE_STEPS * STEP_S,
        mine.total(0, BASELINE_STEPS),
        whole(mine.tallies(0, BASELINE_STEPS)),
        theirs.total(0, BASELINE_STEPS) if peers else None,
        whole(theirs.tallies(0, BASELINE_STEPS)),
        scrapes(mine.tallies(BASELINE_STEPS, steps), theirs.tallies(BASELINE_STEPS, steps), outage_s),
        truth,
    )


def seldom(restart: Restart, every: int) -> Restart:
    """Return the same restart when only each *every*-th scrape is made: it brings what the others would have."""
    groups = [restart.scrapes[first : first + every] for first in range(0, len(restart.scrapes), every)]
    joined = (Scrape(those[-1].at_s, _sum(one.own for one in those), _sum(one.controls for one in those)) for those in groups)
    return replace(restart, scrapes=tuple(joined))


def _sum(tallies: Iterable[Tally | None]) -> Tally | None:
    there = [one for one in tallies if one is not None]
    return reduce(add, there) if there else None


def whole(tallies: list[Tally | None]) -> tuple[Tally, ...]:
    """Leave out the scrapes that were missed: what they would have brought stands in the next ones."""
    return tuple(tally for tally in tallies if tally is not None)


def scrapes(own: list[Tally | None], controls: list[Tally | None], outage_s: float | None) -> tuple[Scrape, ...]:
    """Put together what comes in after admission, of which nothing does from *outage_s* on."""
    until_s = math.inf if outage_s is None else outage_s
    times = (step * STEP_S for step in range(1, len(own) + 1))
    return tuple(
        Scrape(at_s, mine, theirs) if at_s <= until_s else Scrape(at_s, None, None)
        for at_s, mine, theirs in zip(times, own, controls, strict=True)
    )


def slow_down(latency: Floats, incident: Incident, admitted_step: int) -> None:
    """Let all workers feel *incident*, in place."""
    first = admitted_step + round(incident.from_s / STEP_S)
    latency[:, first : admitted_step + round(incident.until_s / STEP_S)] += np.log(incident.factor)


def _incidents(rng: np.random.Generator, share: float) -> tuple[Incident, ...]:
    """Draw the one that the shared database has, if it has one, in *share* of all runs. As many numbers are drawn either way."""
    happens, from_s, lasts_s, factor = rng.random(), rng.uniform(0, HORIZON_S), rng.uniform(60, 240), rng.uniform(2, 4)
    return (Incident(float(from_s), float(min(from_s + lasts_s, HORIZON_S)), float(factor)),) if happens < share else ()


def _forget(means: Floats, misses: draw.Bools, reset_s: float) -> None:
    """Take away what the old process had counted since its last scrape. The new one counts from zero."""
    step = int(reset_s / STEP_S)
    means[step] *= 1 - (reset_s / STEP_S - step)
    while misses[step - 1]:
        step -= 1
        means[step] = 0.0
