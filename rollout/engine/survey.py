"""
Looking at the homeserver, and measuring it.

A look is cheap and comes every second or so: processes, proxy, health, our marks. What costs more or changes seldom (database, releases)
is part of a *thorough* look. A worker's version is read once per process, since it cannot change while the process lives. Whatever cannot
be seen is named with its reason; no failure of one source hides the others.
"""

import difflib
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace
from functools import reduce
from operator import attrgetter
from typing import NamedTuple, TypeVar

from rollout.engine.drivers import Drivers, servers
from rollout.engine.files import Files
from rollout.engine.strain import Strain
from rollout.homeservers.synapse import canaries
from rollout.homeservers.synapse import metrics as synapse_metrics
from rollout.model.changed import changed
from rollout.model.errors import RolloutError
from rollout.model.gate import LATENCY_EDGES_S, GuardReading, Measured, Tally
from rollout.model.ids import EffectNumber, ReleaseId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.release import Release
from rollout.model.sample import Page
from rollout.model.sighting import (
    DrainMark,
    HoldSighting,
    Observation,
    PoolSighting,
    ProcessSighting,
    ProxyLimits,
    ProxySighting,
    SchemaSighting,
    Sighting,
    grown,
)
from rollout.ports.clock import Clock
from rollout.ports.probe import Answer
from rollout.ports.releases import Activation
from rollout.ports.traffic import Server
from rollout.ports.workers import ProcessState

_T = TypeVar("_T")

# One source may take this long. Looks are a second apart, and a look that is older than six seconds counts for nothing.
LOOK_TIMEOUT_S = 2.0
MEASURE_TIMEOUT_S = 10.0
# A page that says itself when it was written is believed for so long, before and after; clocks of two hosts differ by less.
PAGE_AGE_MAX_S = 60.0
# Of names that may have been meant, where none is near.
NAMES_SHOWN_MAX = 5
LAST_WORDS_MAX = 5
# As HAProxy calls it.
_5XX = "hrsp_5xx"
_BUILD_INFO = ("synapse_build_info",)
_STARTED = "process_start_time_seconds"
# A process's start is known to its manager and to itself, which may round it to a second.
_SAME_START_S = 2.0


class _Reading(NamedTuple):
    """
    A page: true at *at_s* by our clock, and written at *written_at_s* by the writer's, if it says so.

    With a date it is as old as that says: what was scraped before a worker came back is no evidence of how it does since.
    """

    at_s: float
    counters: synapse_metrics.Counters
    written_at_s: float | None


class Surveyor:
    """Looks and measures. Not for use by several threads at once, except that one may look while another measures, and any may buy."""

    def __init__(self, drivers: Drivers, inventory: Inventory, clock: Clock) -> None:
        self._drivers = drivers
        self._inventory = inventory
        self._clock = clock
        self._servers = servers(inventory)
        self._versions: dict[WorkerId, tuple[float, str]] = {}
        self._pages: dict[WorkerId, _Reading] = {}
        self._waiting: dict[WorkerId, tuple[Answer, ...]] = {}
        self._bought: dict[WorkerId, tuple[Answer, ...]] = {}
        self._buying = threading.Lock()
        self._running: set[WorkerId] = set()
        self._last_words: dict[WorkerId, tuple[str, ...]] = {}
        self._nonce = 0
        # What each proxy has counted when it was last looked at, and when its worker was last measured.
        self._at_proxy: dict[WorkerId, ProxySighting] = {}
        self._counted: dict[WorkerId, ProxySighting] = {}
        self.files = Files()
        self.strain = Strain()

    def look(self, *, thorough: bool, heeded: Collection[WorkerId] = ()) -> Observation:
        """
        Look at everything; never raises. *taken_at_s* is when the look began, so that what was done meanwhile does not count as seen.

        One of *heeded* that ran at the last look and doesn't now is asked what it said last.
        """
        taken_at_s = self._clock.now_s()
        workers = tuple(self._inventory.workers)
        no_states: Mapping[WorkerId, ProcessState] = {}
        no_links: dict[WorkerId, Activation] = {}
        no_servers: dict[WorkerId, ProxySighting] = {}
        no_marks: dict[WorkerId, DrainMark] = {}
        processes, why_no_process = _try(lambda: self._drivers.workers.look(workers, LOOK_TIMEOUT_S), no_states)
        links, why_no_link = _try(lambda: self._drivers.releases.activations(workers), no_links)
        proxied, why_no_proxy = _try(lambda: self._drivers.traffic.look(self._servers, LOOK_TIMEOUT_S), no_servers)
        marks, why_no_mark = _try(self._drivers.ledger.marks, no_marks)
        strangers = {} if why_no_proxy else self._strangers(proxied)
        health = self._drivers.probe.health(workers, LOOK_TIMEOUT_S)
        self._at_proxy = dict(proxied)
        self._learn_versions(processes)
        self._hear(processes, heeded)
        sightings: dict[WorkerId, Sighting] = {}
        missing: dict[WorkerId, str] = {}
        for worker in workers:
            unseen = [why for why in (why_no_process, why_no_link, why_no_mark) if why]
            if worker in self._servers and worker not in proxied:
                unseen.append(why_no_proxy or strangers[worker])
            sighting = Sighting(
                process=_process(processes.get(worker), links.get(worker), self._last_words.get(worker, ())),
                healthy=health[worker].ok if worker in health else None,
                version=self._version(worker, processes.get(worker)),
                proxy=proxied.get(worker),
                drain=marks.get(worker),
                unseen=tuple(unseen),
            )
            if sighting.process is None and sighting.proxy is None and sighting.healthy is not True:
                missing[worker] = "; ".join(unseen) or "the process manager doesn't know it"
            else:
                sightings[worker] = sighting
        observation = Observation(taken_at_s=taken_at_s, sightings=sightings, missing=missing)
        return self._thoroughly(observation) if thorough else observation

    def look_twice(self) -> Observation:
        """Look thoroughly, and once more if something was not seen to be well: what stood still for two seconds is not refused for it."""
        seen = self.look(thorough=True)
        return seen if self._is_whole(seen) else self.look(thorough=True)

    def _is_whole(self, seen: Observation) -> bool:
        if seen.missing or not seen.releases or seen.proxy is None or len(seen.pools) < len(self._inventory.pools):
            return False
        # What takes time can't be known at first.
        if any(reading.value is None and not reading.short for reading in seen.guards):
            return False
        return all(sighting.healthy and sighting.version is not None and not sighting.unseen for sighting in seen.sightings.values())

    def _hear(self, processes: Mapping[WorkerId, ProcessState], heeded: Collection[WorkerId]) -> None:
        running = {worker for worker, process in processes.items() if process.running}
        for worker in self._running.intersection(processes, heeded) - running:
            self._last_words[worker] = self._drivers.workers.last_lines(worker, LAST_WORDS_MAX)
        for worker in running:
            self._last_words.pop(worker, None)
        # Of whoever wasn't seen nothing has changed.
        self._running = running | self._running.difference(processes)

    def _strangers(self, proxied: Collection[WorkerId]) -> dict[WorkerId, str]:
        """Say of each server that the proxy doesn't have what may have been meant."""
        strangers = {worker: server for worker, server in self._servers.items() if worker not in proxied}
        no_names: frozenset[Server] = frozenset()
        known, _ = _try(lambda: self._drivers.traffic.known(LOOK_TIMEOUT_S), no_names) if strangers else (no_names, "")
        return {worker: _stranger(server, known) for worker, server in strangers.items()}

    def _thoroughly(self, observation: Observation) -> Observation:
        no_releases: dict[ReleaseId, Release] = {}
        releases, _ = _try(self._drivers.releases.prepared, no_releases)
        number, _ = _try(self._drivers.ledger.last_number, EffectNumber(0))
        guards: tuple[GuardReading, ...] = (*self._files(observation), *self.strain.guards(answering(observation), self._clock.now_s()))
        schema: SchemaSighting | None = None
        no_database = ""
        limits: ProxyLimits | None = None
        no_pools: dict[str, PoolSighting] = {}
        backends = {pool: entry.backend for pool, entry in self._inventory.pools.items()}
        pools, _ = _try(lambda: self._drivers.traffic.pools(tuple(backends.values()), LOOK_TIMEOUT_S), no_pools)
        limits, _ = _try(lambda: self._drivers.traffic.limits(LOOK_TIMEOUT_S), limits)
        database = self._drivers.database
        if database is not None:
            # Asked first: on a connection that a restart has broken it fails, and with that the restart is noticed.
            schema, no_database = _try(lambda: database.schema(LOOK_TIMEOUT_S), None)
            guards += database.guards(LOOK_TIMEOUT_S)
        seen = {pool: pools[backend] for pool, backend in backends.items() if backend in pools}
        return changed(
            observation,
            releases=releases,
            guards=guards,
            schema=schema,
            pools=seen,
            proxy=limits,
            last_number=number,
            no_database=no_database,
        )

    def why_no_warming(self) -> str:
        """Say why no worker could be warmed now; "" when one could."""
        warming = self._drivers.warming
        if warming is None:
            return "the inventory has no warming_driver"
        if self._drivers.database is None:
            return "the inventory has no database_driver, and so nobody knows who is active"
        return warming.unavailable(MEASURE_TIMEOUT_S)

    def why_no_canaries(self) -> str:
        """Say why no evidence could be bought with canary requests now; "" when it could."""
        return self._drivers.probe.unavailable(MEASURE_TIMEOUT_S)

    def buy(self, worker: WorkerId, answer: Answer) -> None:
        """Take in what came of a request that buys evidence: it belongs to the next measurement of that worker."""
        with self._buying:
            self._bought[worker] = (*self._bought.get(worker, ()), answer)

    def _with_bought(self, worker: WorkerId, tally: Tally | None) -> Tally | None:
        """Add what was bought since the last time; where nothing was measured meanwhile it counts for nothing."""
        with self._buying:
            bought = self._bought.pop(worker, ())
        return (
            None if tally is None else reduce(with_canary, bought, replace(tally, bought=tally.bought + len(bought)) if bought else tally)
        )

    def counters(self) -> dict[WorkerId, synapse_metrics.Counters]:
        """Return the last page of each worker that could be read."""
        return {worker: reading.counters for worker, reading in self._pages.items()}

    def dated(self) -> frozenset[WorkerId]:
        """Name the workers whose last page says itself when it was written, so that it may be the same as the one before."""
        return frozenset(worker for worker, reading in self._pages.items() if reading.written_at_s is not None)

    def guards_now(self, observation: Observation) -> tuple[GuardReading, ...]:
        """Say of all that run and answer how they do, by what has been measured of their pages; nobody is asked."""
        running, now_s = answering(observation), self._clock.now_s()
        return (*self.files.guards(running, now_s), *self.strain.guards(running, now_s))

    def _files(self, observation: Observation) -> tuple[GuardReading, ...]:
        """Say of all that run and answer how many file handles they use; those that nobody has measured lately are asked."""
        running = answering(observation)
        stale = self.files.stale(running, self._clock.now_s())
        pages = self._drivers.metrics.read(stale, synapse_metrics.PROCESS_PREFIXES, LOOK_TIMEOUT_S) if stale else {}
        now_s = self._clock.now_s()
        for worker in stale:
            page = pages.get(worker, "its metrics page was not read")
            self._record(worker, now_s, page if isinstance(page, str) else synapse_metrics.read_counters(page.samples))
        return self.files.guards(running, now_s)

    def _record(self, worker: WorkerId, at_s: float, counters: synapse_metrics.Counters | str) -> None:
        self.files.record(worker, at_s, counters)
        self.strain.record(worker, at_s, counters)

    def measure(self, workers: Collection[WorkerId], *, with_canaries: bool) -> Measured:
        """
        Read every metrics page of *workers* and return what each did since the last time; never raises.

        A worker that is measured for the first time has no tally yet and is in neither map, nor is one whose page is, as it says itself,
        the one that was read before.
        """
        # By the rollout's own clock, like all that is compared with it, and before the reading: a tally is never younger than it says.
        read_at_s = self._clock.now_s()
        pages = self._drivers.metrics.read(workers, synapse_metrics.PREFIXES, MEASURE_TIMEOUT_S)
        answers = self._ask_canaries(workers) if with_canaries else {}
        tallies: dict[WorkerId, Tally] = {}
        unmeasured: dict[WorkerId, str] = {}
        for worker in workers:
            page = pages.get(worker, "its metrics page was not read")
            asked = (answers[worker],) if worker in answers else ()
            told = self._not_read(worker, page, read_at_s) if isinstance(page, str) else self._tally(worker, page, read_at_s, asked)
            if isinstance(told, str):
                unmeasured[worker] = told
            elif told is not None:
                tallies[worker] = told
        return Measured(self._with_proxies(workers, tallies), unmeasured)

    def _with_proxies(self, workers: Collection[WorkerId], tallies: Mapping[WorkerId, Tally]) -> dict[WorkerId, Tally]:
        """
        Add what each proxy has counted between the looks before the two measurements.

        A request that fails may be counted as an error, as a 5xx, or as both: of the two counts the greater one is taken.
        """
        counted = dict(tallies)
        for worker in workers:
            now, before = self._at_proxy.get(worker), self._counted.get(worker)
            if now is None or now.requests is None or now.cuts is None or (before is not None and worker not in tallies):
                continue
            self._counted[worker] = now
            if before is None or worker not in tallies:
                continue
            many = grown(before.requests or 0, now.requests)
            failed = max(grown(before.cuts or 0, now.cuts), grown(before.counters.get(_5XX, 0), now.counters.get(_5XX, 0)))
            if many or failed:
                # What failed may have come before this time.
                counted[worker] = changed(tallies[worker], proxied=float(max(many, failed)), proxy_failures=float(failed))
        return counted

    def _not_read(self, worker: WorkerId, why: str, read_at_s: float) -> str:
        self._record(worker, read_at_s, why)
        return why

    def _tally(self, worker: WorkerId, page: Page, read_at_s: float, asked: tuple[Answer, ...]) -> Tally | str | None:
        written_at_s = min((sample.at_s for sample in page.samples if sample.at_s is not None), default=None)
        counters = _not_of_now(written_at_s, read_at_s) or synapse_metrics.read_counters(page.samples)
        at_s = read_at_s if written_at_s is None else min(written_at_s, read_at_s)
        self._record(worker, at_s, counters)
        if isinstance(counters, str):
            self._pages.pop(worker, None)
            self._waiting.pop(worker, None)
            self._with_bought(worker, None)
            return counters
        before = self._pages.get(worker)
        if before is not None and written_at_s is not None and before.written_at_s == written_at_s:
            self._waiting[worker] = (*self._waiting.get(worker, ()), *asked)
            return None
        asked = (*self._waiting.pop(worker, ()), *asked)
        self._pages[worker] = _Reading(at_s, counters, written_at_s)
        told = None if before is None else synapse_metrics.tally(before.counters, counters, before.at_s, at_s)
        bought = self._with_bought(worker, None if isinstance(told, str) else told)
        return told if isinstance(told, str) or bought is None else reduce(with_canary, asked, bought)

    def _ask_canaries(self, workers: Collection[WorkerId]) -> dict[WorkerId, Answer]:
        self._nonce += 1
        paths = {
            worker: path
            for worker in workers
            if (path := canaries.canary_path(self._inventory.workers[worker].role, self._nonce)) is not None
        }
        return self._drivers.probe.canary(paths, MEASURE_TIMEOUT_S) if paths else {}

    def _learn_versions(self, processes: Mapping[WorkerId, ProcessState]) -> None:
        fresh = {
            worker: state.started_at_s
            for worker, state in processes.items()
            if state.running and state.started_at_s is not None and self._versions.get(worker, (0.0, ""))[0] != state.started_at_s
        }
        if not fresh:
            return
        pages = self._drivers.metrics.read(tuple(fresh), _BUILD_INFO, LOOK_TIMEOUT_S)
        if kept := [
            worker for worker, page in pages.items() if isinstance(page, Page) and any(one.at_s is not None for one in page.samples)
        ]:
            # It may be of the process before: a Prometheus has that page until it scrapes the next.
            pages |= self._drivers.metrics.read(kept, (*_BUILD_INFO, _STARTED), LOOK_TIMEOUT_S)
        for worker, page in pages.items():
            if (
                isinstance(page, Page)
                and not _is_before(page, fresh[worker])
                and (version := synapse_metrics.read_version(page.samples)) is not None
            ):
                self._versions[worker] = (fresh[worker], version)

    def _version(self, worker: WorkerId, state: ProcessState | None) -> str | None:
        known = self._versions.get(worker)
        return known[1] if known is not None and state is not None and state.started_at_s == known[0] else None


def answering(observation: Observation) -> list[WorkerId]:
    """Name the workers that run and answer."""
    return [worker for worker, seen in observation.sightings.items() if seen.healthy is True]


def _process(state: ProcessState | None, link: Activation | None, last_words: tuple[str, ...]) -> ProcessSighting | None:
    if state is None or link is None:
        return None
    return ProcessSighting(state.running, state.started_at_s, link.release, link.at_s, last_words)


def _is_before(page: Page, started_at_s: float) -> bool:
    """Tell whether a page is of an earlier process, if it says when its process began."""
    return any(sample.value < started_at_s - _SAME_START_S for sample in page.samples if sample.name == _STARTED)


def _not_of_now(written_at_s: float | None, read_at_s: float) -> str:
    """Say why a page with a date is not believed; nothing where it is."""
    if written_at_s is None or abs(read_at_s - written_at_s) <= PAGE_AGE_MAX_S:
        return ""
    if written_at_s < read_at_s:
        return f"its page says itself that it is {read_at_s - written_at_s:.0f} s old"
    return f"its page says itself that it was written {written_at_s - read_at_s:.0f} s from now: that clock is ahead of ours"


def with_canary(tally: Tally, answer: Answer) -> Tally:
    """Add a canary's answer to what a worker did."""
    bucket = next((index for index, edge in enumerate(LATENCY_EDGES_S) if answer.seconds <= edge), len(LATENCY_EDGES_S))
    latency = tuple(many + (answer.ok and index == bucket) for index, many in enumerate(tally.canary_latency))
    return replace(tally, canaries=tally.canaries + 1, canary_failures=tally.canary_failures + (not answer.ok), canary_latency=latency)


def _try(ask: Callable[[], _T], otherwise: _T) -> tuple[_T, str]:
    try:
        return ask(), ""
    except RolloutError as error:
        whence = ", ".join(part for part in (error.where, error.why.partition("\n")[0]) if part)
        return otherwise, f"{error.what}: {whence}" if whence else error.what


def _stranger(server: Server, known: Collection[Server]) -> str:
    backends = sorted({one.backend for one in known})
    if server.backend not in backends:
        return f"the proxy has no backend {server.backend}{_instead('backend', server.backend, backends)}"
    names = sorted(one.name for one in known if one.backend == server.backend)
    return f"the proxy has no server {server.name} in backend {server.backend}{_instead('server', server.name, names)}"


def _instead(key: str, name: str, known: Sequence[str]) -> str:
    """Say what to write: the nearest, or the first few."""
    near = difflib.get_close_matches(name, known) or known[:NAMES_SHOWN_MAX]
    return f"; try {key}: {' or '.join(sorted(near))}" if near else ""


class Changes:
    """
    Leaves out of each look what was told before, so that a long rollout's journal stays small.

    Compared is with what was *told*, not with the last look: otherwise a change that was held back would never be told. Sessions and
    counters of workers out of focus move all the time and decide nothing, so they alone are no change.
    """

    def __init__(self) -> None:
        self._told: dict[WorkerId, Sighting] = {}
        self._schema: SchemaSighting | None = None
        self._releases: dict[ReleaseId, Release] = {}

    def take(self, seen: Observation, focus: Collection[WorkerId]) -> Observation:
        """Return *seen* without what is known already."""
        news = {worker: sighting for worker, sighting in seen.sightings.items() if self._is_new(worker, sighting, in_focus=worker in focus)}
        self._told.update(news)
        for worker in seen.missing:
            self._told.pop(worker, None)
        schema = None if seen.schema == self._schema else seen.schema
        releases = {} if seen.releases == self._releases else seen.releases
        self._schema = schema or self._schema
        self._releases = releases or self._releases
        return changed(seen, sightings=news, schema=schema, releases=releases)

    def _is_new(self, worker: WorkerId, sighting: Sighting, *, in_focus: bool) -> bool:
        told = self._told.get(worker)
        if told is None or told is sighting:
            return told is None
        return sighting != told if in_focus else not _is_steady(sighting, told)


def _is_steady(now: Sighting, before: Sighting) -> bool:
    """Tell whether nothing but what moves all the time has changed."""
    if _BESIDES_PROXY(now) != _BESIDES_PROXY(before):
        return False
    if now.proxy is None or before.proxy is None:
        return now.proxy is before.proxy
    if _OF_PROXY(now.proxy) != _OF_PROXY(before.proxy):
        return False
    return now.proxy.hold is before.proxy.hold or _of_hold(now.proxy.hold) == _of_hold(before.proxy.hold)


def _of_hold(hold: HoldSighting) -> tuple[object, ...]:
    """Whether anything waits counts, not how much."""
    return (*_OF_HOLD(hold), hold.waiting > 0)


def _but(kind: type[Sighting | ProxySighting | HoldSighting], moves: Collection[str]) -> Callable[[object], tuple[object, ...]]:
    """Read all fields of *kind* but those that move."""
    return attrgetter(*(item.name for item in fields(kind) if item.name not in moves))


_BESIDES_PROXY = _but(Sighting, {"proxy"})
_OF_PROXY = _but(ProxySighting, {"sessions", "requests", "cuts", "counters", "hold"})
_OF_HOLD = _but(HoldSighting, {"held_for_s", "waiting", "waiting_max"})
