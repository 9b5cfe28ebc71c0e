"""
What each worker did in the past, by metrics pages that somebody else has kept.

Looked at are the hour behind us and, a day ago, the hour that now begins: load goes with the hour of the day. Of these only what the
release that runs now did counts, so a process must have begun after that was activated for the worker, and say its version. Stretches are
added up; what lies between them (a scrape that was missed in a restart, the rest of the day) is in neither their counts nor their length.

A Prometheus may leave out families to save space, and then says so by saying nothing: a sum without a part that goes with it is refused.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rollout.gating.windows import covering
from rollout.homeservers.synapse.metrics import PREFIXES, Counters, read_counters, tally
from rollout.model.gate import Tally
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.release import Release
from rollout.model.sighting import START_PRECISION_S, Observation
from rollout.ports.history import History, Life
from rollout.ports.releases import Activation

HOUR_S = 3_600.0
DAY_S = 86_400.0
# Seconds before now. Together they have twice as much as anybody may ask of a SURVEY without a long wait.
SPANS = ((HOUR_S, 0.0), (DAY_S, DAY_S - HOUR_S))
# Of each span. A rollout that begins isn't held up for long by a Prometheus that hangs.
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Runs:
    """What a worker runs: a release of this *version*, activated for it at *since_s*."""

    version: str
    since_s: float


def runs_of(releases: Mapping[ReleaseId, Release], activations: Mapping[WorkerId, Activation]) -> dict[WorkerId, Runs]:
    """Say what each worker runs by what its link names; who isn't in it isn't known."""
    return {
        worker: Runs(releases[link.release].version, link.at_s)
        for worker, link in activations.items()
        if link.release is not None and link.release in releases and link.at_s is not None
    }


def runs_seen(seen: Observation) -> dict[WorkerId, Runs]:
    """Say the same by what was seen."""
    links = {
        worker: Activation(sighting.process.activated, sighting.process.activated_at_s)
        for worker, sighting in seen.sightings.items()
        if sighting.process is not None
    }
    return runs_of(seen.releases, links)


def tallies(history: History, workers: Collection[WorkerId], runs: Mapping[WorkerId, Runs], now_s: float) -> dict[WorkerId, Tally | str]:
    """
    Add up what each of *workers* did, as long as it has run what it *runs* now; a sentence where nothing is known of that. Never raises.

    A tally ends at *now_s*, and is as long as the time that it covers, wherever in the last day that lay.
    """
    known = [worker for worker in workers if worker in runs]
    lives = [
        history.lives(known, PREFIXES, now_s - since_s, now_s - until_s, now_s, TIMEOUT_S) if known else {} for since_s, until_s in SPANS
    ]
    found: dict[WorkerId, Tally | str] = {}
    for worker in workers:
        if worker not in runs:
            found[worker] = "what it runs isn't known, or not since when"
        else:
            found[worker] = _sum_up([its.get(worker, "nothing was said of it") for its in lives], runs[worker], now_s)
    return found


def _sum_up(lives: Sequence[tuple[Life, ...] | str], runs: Runs, now_s: float) -> Tally | str:
    told = [_tally_of(life, runs) for its in lives if not isinstance(its, str) for life in its]
    stretches = [one for one in told if isinstance(one, Tally)]
    if not stretches:
        # The hour behind us is asked for first, and says what holds for both if anything does.
        return next((one for one in (*told, *lives) if isinstance(one, str)), "nothing was said of it")
    summed = covering(stretches)
    return next(_missing(summed), "") or ending(summed, now_s)


def ending(tally: Tally, at_s: float) -> Tally:
    """Let a tally of the past end at *at_s*, as if it had been taken just before."""
    return replace(tally, since_s=at_s - (tally.until_s - tally.since_s), until_s=at_s)


def _tally_of(life: Life, runs: Runs) -> Tally | str:
    first, last = read_counters(life.first.samples), read_counters(life.last.samples)
    if isinstance(first, str) or isinstance(last, str):
        return first if isinstance(first, str) else str(last)
    if why := _another(last, runs):
        return why
    return tally(first, last, life.since_s, life.until_s)


def _another(counters: Counters, runs: Runs) -> str:
    if counters.version != runs.version:
        return f"what was kept of it is of version {counters.version}, and it runs {runs.version}"
    if counters.started_at_s < runs.since_s - START_PRECISION_S:
        before_s = runs.since_s - counters.started_at_s
        return f"what was kept of it is of a process that began {before_s:.0f} s before what it runs now was activated"
    return ""


def _missing(summed: Tally) -> Iterator[str]:
    """Say what can't be, of a worker that runs: that families aren't kept."""
    if not summed.cpu_s:
        yield "it used no CPU time at all: process_cpu_seconds_total isn't kept, or stands still"
    if not (summed.requests or summed.polls or summed.work):
        yield "it did nothing at all: the families that tell what it does aren't kept, or have other names"
    if summed.requests and not summed.request_cpu_s:
        yield "it answered requests, and what they cost isn't kept"
    if not summed.requests and any(summed.latency):
        yield "how long requests took is kept, and not how many there were"
