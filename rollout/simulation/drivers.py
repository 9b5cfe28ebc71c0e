"""The ports over a simulated world."""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import NamedTuple

from rollout.adapters.faults import translated
from rollout.agent.book import Claim, Content, check_token, compare
from rollout.agent.rule import ADMIT, Out, Ruling, Seen, rule
from rollout.homeservers.synapse.canaries import canary_path
from rollout.model.conditions import Room
from rollout.model.effect import FULL_WEIGHT, NEXT, Effect
from rollout.model.errors import PermanentDriverError
from rollout.model.gate import LATENCY_EDGES_S
from rollout.model.ids import EffectNumber, ReleaseId, Role, StepId, WorkerId
from rollout.model.plan import HoldBound, Verb
from rollout.model.release import Release, make_release
from rollout.model.sample import Page, Sample
from rollout.model.sighting import DrainMark, PoolSighting, ProxyLimits, ProxySighting
from rollout.ports.acts import Work
from rollout.ports.ledger import brings_back, marked
from rollout.ports.probe import Answer
from rollout.ports.releases import Activation
from rollout.ports.traffic import Server
from rollout.simulation.world import World

# How long a request takes, at most, on a healthy release and on a slow one.
HEALTHY_S = 0.05
SLOW_S = 0.5
# What they are all asked for.
SERVLET = "RoomStateRestServlet"
# How requests vary around the middle, where they do: the logarithm's standard deviation (docs/decisions/0016-sequential-gates.md).
SPREAD = NormalDist(0.0, 0.9)
# Multiples of it lie evenly between 0 and 1, however many there are.
_GOLDEN = (math.sqrt(5) - 1) / 2
# What one release takes on disk, and how many database connections a worker may open.
RELEASE_BYTES = 500_000_000
POOL_MAX = 10
# What a process uses for itself, in CPU seconds a second: no page of one that lives stands still.
IDLE_CPU = 0.001
FILES_MAX = 1024.0
# As the file at a target has it if nothing else is said.
READMIT_AFTER_S = 120.0


@dataclass(frozen=True, slots=True)
class SimulatedProcess:
    """See ports.workers.ProcessState."""

    running: bool
    started_at_s: float | None


class SimulatedWorkers:
    """The process manager of a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def look(self, workers: Sequence[WorkerId], timeout_s: float) -> dict[WorkerId, SimulatedProcess]:
        """See ports.workers."""
        del timeout_s
        known = self._world.workers
        return {
            worker: SimulatedProcess(known[worker].started_at_s is not None, known[worker].started_at_s)
            for worker in workers
            if worker in known
        }

    def stop(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers."""
        del timeout_s
        self._known(worker)
        self._world.stop(worker)

    def start(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers."""
        del timeout_s
        self._known(worker)
        if not self._world.start(worker):
            raise PermanentDriverError("the process exits at once", where=worker)

    def last_lines(self, worker: WorkerId, lines_max: int) -> tuple[str, ...]:
        """See ports.workers."""
        it = self._world.workers.get(worker)
        return (f"{worker}: exited with status 1",)[:lines_max] if it is not None and it.started_at_s is None else ()

    def _known(self, worker: WorkerId) -> None:
        if worker not in self._world.workers:
            raise PermanentDriverError("the process manager doesn't know it", where=worker)


class SimulatedReleases:
    """The releases of a world. A version is known when *versions* has it."""

    def __init__(self, world: World, versions: Collection[str] = ()) -> None:
        self._world = world
        self._versions = frozenset(versions)

    def identify(self, version: str | None, config_from: str | None, base: ReleaseId, *, next_generation: bool) -> Release:
        """See ports.releases."""
        old = self._world.releases.get(base)
        if old is None:
            raise PermanentDriverError(f"release {base} is not at the target")
        version = version or old.version
        if version not in self._versions and version not in {release.version for release in self._world.releases.values()}:
            raise PermanentDriverError(f"there is no recorded lock for {version}")
        lock = old.artefact_lock if version == old.version else f"lock-of-{version}"
        config = old.config_digest if config_from is None else f"digest-of-{config_from}"
        generation = old.generation if (version, config) == (old.version, old.config_digest) else 1
        if next_generation:
            known = self._world.releases.values()
            same = [release.generation for release in known if (release.artefact_lock, release.config_digest) == (lock, config)]
            generation = max(same, default=generation) + 1
        return make_release(version, lock, config, old.modules, generation, old.topology)

    def prepare(self, release: Release, timeout_s: float) -> Release:
        """See ports.releases."""
        del timeout_s
        done = replace(release, schema_version=94, schema_compat_version=84)
        self._world.releases[release.id] = done
        return done

    def prepared(self) -> dict[ReleaseId, Release]:
        """See ports.releases."""
        return dict(self._world.releases)

    def migrate(self, release: ReleaseId) -> None:
        """See ports.releases."""
        self._world.migrated.add(release)

    def activate(self, worker: WorkerId, release: ReleaseId) -> None:
        """See ports.releases."""
        if release not in self._world.releases:
            raise PermanentDriverError(f"{release} is not prepared", where=worker)
        it = self._world.workers[worker]
        if it.activated != release:
            it.activated, it.activated_at_s = release, self._world.clock.now_s()

    def activations(self, workers: Sequence[WorkerId]) -> dict[WorkerId, Activation]:
        """See ports.releases."""
        known = self._world.workers
        return {worker: Activation(known[worker].activated, known[worker].activated_at_s) for worker in workers if worker in known}

    def room(self, release: Release) -> Room:
        """See ports.releases."""
        return Room(self._world.disk_free_bytes, 0 if release.id in self._world.releases else RELEASE_BYTES, "as the simulation has it")

    def connections(self, release: Release, workers: Sequence[WorkerId]) -> dict[WorkerId, int]:
        """See ports.releases."""
        del release
        return dict.fromkeys(workers, POOL_MAX)


class SimulatedTraffic:
    """The proxy of a world: a server's name is its worker's id."""

    def __init__(self, world: World) -> None:
        self._world = world

    def look(self, servers: Mapping[WorkerId, Server], timeout_s: float) -> dict[WorkerId, ProxySighting]:
        """See ports.traffic."""
        del timeout_s
        seen: dict[WorkerId, ProxySighting] = {}
        for worker, server in servers.items():
            if (name := self._find(server)) is not None:
                it = self._world.workers[name]
                seen[worker] = ProxySighting(
                    admitted=it.admitted,
                    weight=it.weight,
                    up=self._world.up(name),
                    sessions=self._world.sessions(name),
                    requests=int(it.served),
                    cuts=self._world.cuts.get(name, 0),
                    held=self._world.is_held(server.backend),
                    hold=self._world.hold_of(server.backend),
                )
        return seen

    def known(self, timeout_s: float) -> frozenset[Server]:
        """See ports.traffic."""
        del timeout_s
        return frozenset(Server(it.backend, worker) for worker, it in self._world.workers.items() if it.backend is not None)

    def drain(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        del timeout_s
        self._world.drain(self._worker(server))

    def admit(self, server: Server, weight: int, timeout_s: float) -> None:
        """See ports.traffic."""
        del timeout_s
        self._world.admit(self._worker(server), weight)

    def hold(self, server: Server, bound: HoldBound, timeout_s: float) -> None:
        """See ports.traffic."""
        del timeout_s
        self._worker(server)
        if server.backend not in self._world.can_hold:
            raise PermanentDriverError(f"the proxy has no hold for {server.backend}")
        self._world.hold(server.backend, bound.hold_s, bound.hold_max)

    def let_go(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        del timeout_s
        self._worker(server)
        self._world.let_go(server.backend)

    def pools(self, backends: Collection[str], timeout_s: float) -> dict[str, PoolSighting]:
        """See ports.traffic."""
        del timeout_s
        return {backend: self._world.pool(backend) for backend in backends if self._world.members(backend)}

    def limits(self, timeout_s: float) -> ProxyLimits:
        """See ports.traffic."""
        del timeout_s
        return ProxyLimits(
            connections=100, connections_max=self._world.connections_max, files=220, files_max=2 * self._world.connections_max + 100
        )

    def _worker(self, server: Server) -> WorkerId:
        worker = self._find(server)
        if worker is None:
            raise PermanentDriverError(f"the proxy has no server {server.name} in {server.backend}")
        return worker

    def _find(self, server: Server) -> WorkerId | None:
        worker = WorkerId(server.name)
        it = self._world.workers.get(worker)
        return worker if it is not None and it.backend == server.backend else None


class _Figures(NamedTuple):
    """What a metrics page is written from, whichever part of it is asked for."""

    version: str
    started_at_s: float
    cpu_s: float
    open_files: float
    in_flight: float
    served: float
    errors: float
    slow: float
    median_s: float | None


class SimulatedMetrics:
    """Metrics pages with Synapse's names; a worker in *world.dark* has none, and one in *world.frozen* an old one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kept: dict[WorkerId, _Figures] = {}

    def read(self, workers: Collection[WorkerId], prefixes: Collection[str], timeout_s: float) -> dict[WorkerId, Page | str]:
        """See ports.metrics."""
        del timeout_s
        return {worker: self._page(worker, tuple(prefixes)) for worker in workers}

    def _page(self, worker: WorkerId, prefixes: tuple[str, ...]) -> Page | str:
        it = self._world.workers.get(worker)
        if it is None or worker in self._world.dark or not self._world.answers(worker):
            return "connection refused"
        now_s = self._world.clock.now_s()
        self._world.serve(worker)
        if worker not in self._world.frozen or worker not in self._kept:
            started_at_s = it.started_at_s or 0.0
            self._kept[worker] = _Figures(
                version=self._world.releases[it.runs].version,
                started_at_s=started_at_s,
                cpu_s=it.cpu_s + IDLE_CPU * max(0.0, now_s - started_at_s),
                open_files=self._world.open_files(worker),
                in_flight=self._world.under_way.get(worker, 0.0),
                served=it.served,
                errors=it.errors,
                slow=it.slow,
                median_s=self._world.median_s.get(it.runs),
            )
        return Page(tuple(sample for sample in _written(self._kept[worker], prefixes) if sample.name.startswith(prefixes)))


_TIME = "synapse_http_server_response_time_seconds"


def _written(figures: _Figures, prefixes: tuple[str, ...]) -> Iterator[Sample]:
    """Write a page; the long part of it only where that is asked for."""
    yield Sample("synapse_build_info", {"version": figures.version}, 1.0)
    yield Sample("process_start_time_seconds", {}, figures.started_at_s)
    yield Sample("process_cpu_seconds_total", {}, figures.cpu_s)
    yield Sample("process_open_fds", {}, figures.open_files)
    yield Sample("process_max_fds", {}, FILES_MAX)
    yield Sample("synapse_http_server_in_flight_requests_count", {"method": "GET", "servlet": SERVLET}, figures.in_flight)
    if any(prefix.startswith(_TIME) or _TIME.startswith(prefix) for prefix in prefixes):
        yield from _histogram(figures)


def _histogram(figures: _Figures) -> Iterator[Sample]:
    served, slow = figures.served, figures.slow
    for code, count in (("200", served - figures.errors), ("500", figures.errors)):
        labels = {"method": "GET", "servlet": SERVLET, "tag": "", "code": code}
        share = 0.0 if served == 0 else slow / served
        for edge in (*LATENCY_EDGES_S, float("inf")):
            reached = (count * (1 - share) if edge >= HEALTHY_S else 0.0) + (count * share if edge >= SLOW_S else 0.0)
            if figures.median_s is not None:
                reached = count * SPREAD.cdf(math.log(edge / figures.median_s))
            yield Sample(f"{_TIME}_bucket", {**labels, "le": "+Inf" if edge == float("inf") else str(edge)}, reached)
        yield Sample(f"{_TIME}_count", labels, count)
        yield Sample(f"{_TIME}_sum", labels, count * 0.05)


class SimulatedProbe:
    """Health by the world; canaries where it has an application service, and then they count at the worker like any other request."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers = itertools.count(1)

    def health(self, workers: Collection[WorkerId], timeout_s: float) -> dict[WorkerId, Answer]:
        """See ports.probe."""
        del timeout_s
        return {worker: self._answer(worker) for worker in workers}

    def canary(self, paths: Mapping[WorkerId, str], timeout_s: float) -> dict[WorkerId, Answer]:
        """See ports.probe."""
        del timeout_s
        return {worker: self._asked(worker, path) for worker, path in paths.items()} if self._world.application_service else {}

    def unavailable(self, timeout_s: float) -> str:
        """See ports.probe."""
        del timeout_s
        return "" if self._world.application_service else "the simulated homeserver has no application service"

    def _asked(self, worker: WorkerId, path: str) -> Answer:
        it = self._world.workers.get(worker)
        if it is None or not self._world.answers(worker):
            return self._answer(worker)
        # What a sweep asks a client worker for is left out of its traffic (homeservers/synapse/metrics.py).
        ok = self._world.ask(worker, counted=path != canary_path(Role("client"), 0))
        median_s = self._world.median_s.get(it.runs)
        seconds = SLOW_S if it.runs in self._world.slow else HEALTHY_S
        if median_s is not None:
            # Drawn evenly and not at random, so that the same rollout is the same again.
            seconds = median_s * math.exp(SPREAD.inv_cdf(next(self._numbers) * _GOLDEN % 1.0))
        return Answer(ok, seconds, "" if ok else "answered 500")

    def _answer(self, worker: WorkerId) -> Answer:
        ok = worker in self._world.workers and self._world.answers(worker)
        return Answer(ok, 0.001, "" if ok else "connection refused")


class SimulatedLedger:
    """A ledger in memory, which outlives the tool as the file at a target does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._content = Content()
        self._marks: dict[WorkerId, DrainMark] = {}

    @contextmanager
    def fence(self, effect: Effect) -> Iterator[None]:
        """See ports.ledger."""
        worker = effect.worker
        if worker is None:
            msg = "only effects on a worker are fenced"
            raise ValueError(msg)
        number = None if effect.number == NEXT else effect.number
        with translated():
            token, given = compare(self._content, Claim(worker, number, effect.token, effect.owner))
        content = self._content
        if token > content.token:
            content.token, content.taken_by = token, effect.owner
        content.tokens[worker], content.numbers[worker], content.owners[worker] = token, given, effect.owner
        self._marks = marked(self._marks, replace(effect, number=EffectNumber(given)), self._world.clock.now_s())
        yield
        if brings_back(effect):
            self._marks.pop(worker, None)

    def perform(self, effect: Effect, work: Work) -> None:
        """See ports.ledger."""
        with self.fence(effect):
            work.here()

    def guard(self, homeserver: str) -> None:
        """See ports.ledger: whoever lets time pass in a simulation calls `sweep`."""

    def sweep(self, now_s: float) -> dict[WorkerId, Ruling]:
        """Do what the dead-man at a target does, by the same rule, and say what came of each worker that is out."""
        rulings: dict[WorkerId, Ruling] = {}
        for worker, mark in tuple(self._marks.items()):
            it = self._world.workers[worker]
            held = it.backend is not None and self._world.is_held(it.backend)
            seen = Seen(self._world.answers(worker), "connection refused", it.activated)
            out = Out(mark.at_s, mark.condemned, float("inf") if held else 0.0)
            rulings[worker] = rule(out, seen, now_s, self._content.alive_until_s, READMIT_AFTER_S)
            if rulings[worker].do == ADMIT:
                effect = Effect(NEXT, StepId(f"{worker}/dead_man"), Verb.ADMIT, worker, mark.release, now_s, owner="the dead-man")
                with self.fence(effect):
                    self._world.admit(worker, FULL_WEIGHT)
        return rulings

    def take(self, token: int, owner: str = "") -> None:
        """See ports.ledger."""
        with translated():
            check_token(self._content, token, f"token {token}", "the ledger")
        self._content.token, self._content.taken_by = token, owner

    def token(self) -> int:
        """See ports.ledger."""
        return self._content.token

    def beat(self, token: int, alive_until_s: float) -> None:
        """See ports.ledger."""
        with translated():
            check_token(self._content, token, f"the holder of token {token}", "the ledger")
        self._content.token, self._content.alive_until_s = token, alive_until_s

    def marks(self) -> dict[WorkerId, DrainMark]:
        """See ports.ledger."""
        return dict(self._marks)

    def last_number(self) -> EffectNumber:
        """See ports.ledger."""
        return EffectNumber(max(self._content.numbers.values(), default=0))
