"""
Looking at the homeserver, and reading what measures it.

A look is cheap and comes every second or so: processes, proxy, health, our marks. What costs more or changes seldom (database, releases)
is part of a *thorough* look. A worker's version is read once per process, since it cannot change while the process lives. Whatever cannot
be seen is named with its reason; no failure of one source hides the others.
"""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from rollout.engine.drivers import Drivers, servers
from rollout.engine.metering import Meter
from rollout.homeservers.synapse import canaries
from rollout.homeservers.synapse import metrics as synapse_metrics
from rollout.model.changed import changed
from rollout.model.errors import RolloutError
from rollout.model.gate import GuardReading, Measured, Tally
from rollout.model.ids import EffectNumber, ReleaseId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.release import Release
from rollout.model.sample import Page
from rollout.model.sighting import (
    DrainMark,
    Observation,
    PoolSighting,
    ProcessSighting,
    ProxyLimits,
    ProxySighting,
    SchemaSighting,
    Sighting,
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
# Of names that may have been meant, where none is near.
NAMES_SHOWN_MAX = 5
LAST_WORDS_MAX = 5
_NO_PAGE = "its metrics page was not read"
_BUILD_INFO = ("synapse_build_info",)
_STARTED = "process_start_time_seconds"
# A process's start is known to its manager and to itself, which may round it to a second.
_SAME_START_S = 2.0


class Surveyor:
    """Looks and measures. Not for use by several threads at once, except that one may look while another measures, and any may buy."""

    def __init__(self, drivers: Drivers, inventory: Inventory, clock: Clock) -> None:
        self._drivers = drivers
        self._inventory = inventory
        self._clock = clock
        self._servers = servers(inventory)
        self._versions: dict[WorkerId, tuple[float, str]] = {}
        self._running: set[WorkerId] = set()
        self._last_words: dict[WorkerId, tuple[str, ...]] = {}
        self._nonce = 0
        self._at_proxy: dict[WorkerId, ProxySighting] = {}
        self.meter = Meter()

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
        self._read_stale(answering(observation))
        guards = self.guards_now(observation)
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

    def guards_now(self, observation: Observation) -> tuple[GuardReading, ...]:
        """Say of all that run and answer how they do, by what has been measured of their pages; nobody is asked."""
        return self.meter.guards(answering(observation), self._clock.now_s())

    def _read_stale(self, running: Collection[WorkerId]) -> None:
        """Read for the guards the pages of those whom nobody has measured lately."""
        stale = self.meter.files.stale(running, self._clock.now_s())
        pages = self._drivers.metrics.read(stale, synapse_metrics.PREFIXES, LOOK_TIMEOUT_S) if stale else {}
        now_s = self._clock.now_s()
        for worker in stale:
            page = pages.get(worker, _NO_PAGE)
            self.meter.record(worker, now_s, page if isinstance(page, str) else synapse_metrics.read_counters(page.samples))

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
            asked = (answers[worker],) if worker in answers else ()
            told = self.meter.take(worker, pages.get(worker, _NO_PAGE), read_at_s, asked)
            if isinstance(told, str):
                unmeasured[worker] = told
            elif told is not None:
                tallies[worker] = told
        return Measured(self.meter.with_proxies(workers, tallies, self._at_proxy), unmeasured)

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
