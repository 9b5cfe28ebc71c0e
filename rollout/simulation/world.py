"""
How a simulated homeserver behaves; what it consists of is in parts.py.

Deliberately plain: a worker boots in a fixed time (or one that is drawn, fitting.py), an idle long-poll ends evenly over the drain, traffic
is steady. The world also counts what a rollout must never do: *cuts* are requests that were under way at, or sent to, a worker that was
stopped. Its history says what happened to whom, and by which effect of ours, if by one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from rollout.model.effect import FULL_WEIGHT, Effect
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.release import Release
from rollout.model.sighting import HoldSighting, PoolSighting
from rollout.simulation.lease import LeasePlace
from rollout.simulation.parts import AfterHolds, Deed, Happening, Hold, SimulatedWorker
from rollout.simulation.virtual_clock import VirtualClock


@dataclass(slots=True)
class World:
    """
    The whole homeserver. Times in seconds.

    What a worker does that is held ends within *held_ends_s*. The proxy sees a worker up *check_s* after it answers, and
    lets what waited go on one after the other, *let_go_per_s*. A request costs *request_cpu_s* of CPU, and *cold_factor* times that right
    after a start, less and less over *cold_s*. Requests to a release in *median_s* vary around that; to others they take always the same.
    With an *application_service* canaries can be asked. The metrics page of a worker in *dark* isn't there, and that of
    one in *frozen* stays as it was. A worker in *under_way* has so many requests under way, by its page; others have none. *draw* gives a
    worker's next boot or drain its length ("boot_s", "session_life_s"); None: as always.
    """

    clock: VirtualClock
    workers: dict[WorkerId, SimulatedWorker]
    releases: dict[ReleaseId, Release]
    boot_s: float = 3.0
    check_s: float = 1.0
    let_go_per_s: float = 250.0
    stop_s: float = 0.2
    session_life_s: float = 20.0
    held_ends_s: float = 0.3
    never_boots: set[ReleaseId] = field(default_factory=set)
    hangs: set[ReleaseId] = field(default_factory=set)
    slow: set[ReleaseId] = field(default_factory=set)
    erring: dict[ReleaseId, float] = field(default_factory=dict)
    median_s: dict[ReleaseId, float] = field(default_factory=dict)
    application_service: bool = False
    dark: set[WorkerId] = field(default_factory=set)
    frozen: set[WorkerId] = field(default_factory=set)
    files: dict[WorkerId, tuple[float, float, float]] = field(default_factory=dict)
    under_way: dict[WorkerId, float] = field(default_factory=dict)
    connections_max: int = 4000
    disk_free_bytes: int = 20_000_000_000
    cuts: dict[WorkerId, int] = field(default_factory=dict)
    out_at_once_max: int = 0
    migrated: set[ReleaseId] = field(default_factory=set)
    can_hold: set[str] = field(default_factory=set)
    holds: dict[str, Hold] = field(default_factory=dict)
    after_holds: dict[str, AfterHolds] = field(default_factory=dict)
    request_cpu_s: float = 0.005
    cold_factor: float = 1.0
    cold_s: float = 60.0
    draw: Callable[[str, WorkerId], float | None] = lambda _name, _worker: None
    # Whom we can't ask for now: "traffic", "workers", "database".
    away: set[str] = field(default_factory=set)
    acting: Effect | None = None
    history: list[Happening] = field(default_factory=list)
    down_since_s: dict[WorkerId, float] = field(default_factory=dict)
    serving_min: dict[str, int] = field(default_factory=dict)
    lease: LeasePlace = field(default_factory=LeasePlace)

    def boot_of(self, worker: WorkerId) -> float:
        """Say how long its process takes, or took, to answer (seconds)."""
        boots_in_s = self.workers[worker].boots_in_s
        return self.boot_s if boots_in_s is None else boots_in_s

    def session_life_of(self, worker: WorkerId) -> float:
        """Say how long the last of its sessions lives once it is drained (seconds)."""
        session_life_s = self.workers[worker].session_life_s
        return self.session_life_s if session_life_s is None else session_life_s

    def open_files(self, worker: WorkerId) -> float:
        """Count its file handles: of one in *files* (since when, how many then, and how many more a second) they grow."""
        since_s, open_then, per_s = self.files.get(worker, (0.0, 50.0, 0.0))
        return open_then + per_s * max(0.0, self.clock.now_s() - since_s)

    def answers(self, worker: WorkerId) -> bool:
        """Tell whether it runs and has booted."""
        it = self.workers[worker]
        if it.started_at_s is None or it.hung or it.runs in self.hangs:
            return False
        return self.clock.now_s() >= it.started_at_s + (self.boot_s if it.boots_in_s is None else it.boots_in_s)

    def up(self, worker: WorkerId) -> bool:
        """Tell whether the proxy's own check sees that it answers."""
        return self.answers(worker) and self.checked(worker)

    def checked(self, worker: WorkerId) -> bool:
        """Tell whether the proxy has had the time to see that a worker answers, if it does."""
        it = self.workers[worker]
        return self.clock.now_s() >= (it.started_at_s or 0.0) + self.boot_of(worker) + self.check_s

    def takes_requests(self, worker: WorkerId) -> bool:
        """Tell whether the proxy sends it new requests."""
        it = self.workers[worker]
        return it.proxied and it.admitted and it.weight > 0 and self.up(worker) and not self.is_held(it.backend or "")

    def is_held(self, backend: str) -> bool:
        """Tell whether requests of a backend wait. The proxy lets them go by itself when the time is up."""
        hold = self.holds.get(backend)
        if hold is not None and self.clock.now_s() >= hold.began_at_s + hold.hold_s:
            self._end_hold(backend, hold.began_at_s + hold.hold_s, late=True)
            return False
        return hold is not None

    def hold(self, backend: str, hold_s: float, hold_max: int) -> None:
        """Let new requests wait."""
        if not self.is_held(backend):
            self._settle()
            for worker in self.members(backend):
                self.serve(worker)
                self.workers[worker].changed_at_s = self.clock.now_s()
            self.holds[backend] = Hold(self.clock.now_s(), hold_s, hold_max)
            for worker in self.members(backend):
                self._take(worker)
                self._note(Deed.HELD, worker)
            self._count_serving()

    def let_go(self, backend: str) -> None:
        """Let what waits go on."""
        if self.is_held(backend):
            for worker in self.members(backend):
                self._note(Deed.LET_GO, worker)
            self._end_hold(backend, self.clock.now_s(), late=False)

    def members(self, backend: str) -> list[WorkerId]:
        """List the servers of a backend."""
        return [worker for worker, it in self.workers.items() if it.backend == backend]

    def pool(self, backend: str) -> PoolSighting:
        """Describe a backend as the proxy does."""
        members = [self.workers[worker] for worker in self.members(backend)]
        held = self.is_held(backend)
        return PoolSighting(
            requests=int(sum(it.served for it in members)),
            arrivals_per_s=self._arrivals_per_s(backend),
            can_hold=backend in self.can_hold,
            held=held,
            hold=self.hold_of(backend),
            algorithm="roundrobin",
        )

    def hold_of(self, backend: str) -> HoldSighting:
        """Describe what holding has come to, as the proxy does."""
        held = self.is_held(backend)
        before = self.after_holds.get(backend, AfterHolds())
        if not held:
            return HoldSighting(None, self._going_on(backend), before.waiting_max, before.shed, before.late)
        held_for_s = self.clock.now_s() - self.holds[backend].began_at_s
        waiting, shed = self._piled(backend, held_for_s)
        return HoldSighting(held_for_s, waiting + self._going_on(backend), waiting, before.shed + shed, before.late)

    def _arrivals_per_s(self, backend: str) -> float:
        return sum(self.workers[worker].requests_per_s for worker in self.members(backend))

    def _piled(self, backend: str, held_for_s: float) -> tuple[int, int]:
        """Count those that wait in a hold, and those that were too many."""
        came, most = round(self._arrivals_per_s(backend) * held_for_s), self.holds[backend].hold_max
        return min(came, most), max(0, came - most)

    def _going_on(self, backend: str) -> int:
        """Count those that were let go and have yet to reach the server."""
        before = self.after_holds.get(backend, AfterHolds())
        return max(0, before.waiting - round(self.let_go_per_s * (self.clock.now_s() - before.at_s)))

    def _end_hold(self, backend: str, at_s: float, *, late: bool) -> None:
        before = self.after_holds.get(backend, AfterHolds())
        waiting, shed = self._piled(backend, at_s - self.holds[backend].began_at_s)
        self.after_holds[backend] = AfterHolds(at_s, waiting, waiting, before.shed + shed, before.late + (waiting if late else 0))
        del self.holds[backend]
        for worker in self.members(backend):
            self._let_through(worker, by_itself=late)

    def _let_through(self, worker: WorkerId, *, by_itself: bool) -> None:
        """What waited goes to a server that isn't there, or that the proxy has yet to see: cut."""
        if not self.up(worker):
            self._cut(worker, self.workers[worker].sessions, by_itself=by_itself)
        self.workers[worker].changed_at_s = self.clock.now_s()

    def sessions(self, worker: WorkerId) -> int:
        """Count open sessions: they end evenly over *session_life_s* once a worker is drained."""
        it = self.workers[worker]
        if it.backend is None or it.started_at_s is None:
            return 0
        held = it.admitted and self.is_held(it.backend)
        return self.sessions_left(worker, held=held) if self.answers(worker) else 0

    def sessions_left(self, worker: WorkerId, *, held: bool) -> int:
        """Count them at a worker that answers."""
        it = self.workers[worker]
        if it.admitted and not held:
            return it.sessions
        if it.admitted:
            # What a singleton does takes no long-poll's time to end.
            return it.sessions if self.clock.now_s() - it.changed_at_s < self.held_ends_s else 0
        if max((it.started_at_s or 0.0) + self.boot_of(worker), it.woke_at_s) > it.changed_at_s:
            # A process that came up while it was out has never had any, and one that hung has lost what it had.
            return 0
        gone = (self.clock.now_s() - it.changed_at_s) / self.session_life_of(worker)
        return max(0, round(it.sessions * (1 - gone))) if gone < 1 else 0

    def serve(self, worker: WorkerId) -> None:
        """Bring the counters of a worker up to now."""
        it = self.workers[worker]
        now_s = self.clock.now_s()
        if it.started_at_s is not None and (self.takes_requests(worker) or not it.proxied):
            since_s = max(it.served_until_s, it.started_at_s + self.boot_of(worker) + (self.check_s if it.proxied else 0.0))
            self._do(it, max(0.0, now_s - since_s) * it.requests_per_s * it.weight / 100, it.started_at_s, since_s)
        it.served_until_s = now_s

    def ask(self, worker: WorkerId, *, counted: bool) -> bool:
        """Let it answer one request that comes straight to its port, *counted* like any other or not; tell whether it was answered well."""
        it = self.workers[worker]
        if it.started_at_s is None or not self.answers(worker):
            return False
        self.serve(worker)
        before = it.errors
        self._do(it, 1.0 if counted else 0.0, it.started_at_s, self.clock.now_s())
        return int(before) == int(it.errors)

    def _do(self, it: SimulatedWorker, done: float, started_at_s: float, since_s: float) -> None:
        it.served += done
        it.errors += done * self.erring.get(it.runs, 0.0)
        slow = it.runs in self.slow or it.slow_until_s > since_s
        it.slow += done if slow else 0.0
        age = (self.clock.now_s() - started_at_s) / self.cold_s
        cold = 1.0 + (self.cold_factor - 1.0) * max(0.0, 1.0 - age)
        it.cpu_s += done * (self.request_cpu_s if it.request_cpu_s is None else it.request_cpu_s) * cold * (2.0 if slow else 1.0)

    def drain(self, worker: WorkerId) -> None:
        """Send it nothing new."""
        self._settle()
        it = self.workers[worker]
        self.serve(worker)
        if it.admitted:
            it.admitted, it.changed_at_s, it.session_life_s = False, self.clock.now_s(), self.draw("session_life_s", worker)
        self._take(worker)
        self._note(Deed.DRAINED, worker)
        self._count_out()

    def admit(self, worker: WorkerId, weight: int) -> None:
        """Send it new requests."""
        self._settle()
        it = self.workers[worker]
        self.serve(worker)
        if not self.answers(worker):
            self._cut(worker, it.sessions)
        self._note(Deed.ADMITTED, worker, weight=weight)
        it.admitted, it.weight, it.changed_at_s = True, weight, self.clock.now_s()

    def stop(self, worker: WorkerId) -> None:
        """End its process; what is under way there is cut."""
        self._settle()
        it = self.workers[worker]
        self.serve(worker)
        self._cut(worker, self.sessions(worker) + self._going_on(it.backend or ""))
        self._take(worker)
        self._note(Deed.STOPPED, worker)
        it.started_at_s = None
        it.hung = False
        self.down_since_s.setdefault(worker, self.clock.now_s())
        self._count_out()

    def start(self, worker: WorkerId) -> bool:
        """Start it on what its link names; False when it exits at once."""
        it = self.workers[worker]
        if it.started_at_s is not None:
            return True
        it.runs = it.activated
        if it.runs in self.never_boots:
            return False
        self._settle()
        boots_in_s = self.draw("boot_s", worker) if it.next_boot_s is None else it.next_boot_s
        it.started_at_s, it.boots_in_s, it.next_boot_s = self.clock.now_s(), boots_in_s, None
        it.served = it.errors = it.slow = it.cpu_s = 0.0
        self._note(Deed.STARTED, worker)
        return True

    def die(self, worker: WorkerId) -> None:
        """End its process by its own doing; what is under way there is cut."""
        self._settle()
        it = self.workers[worker]
        if it.started_at_s is None:
            return
        self.serve(worker)
        self._cut(worker, self.sessions(worker), by_itself=True)
        self._note(Deed.DIED, worker, by_itself=True)
        it.started_at_s = None
        self.down_since_s.setdefault(worker, self.clock.now_s())
        self._count_serving()

    def hang(self, worker: WorkerId) -> None:
        """Let its process answer nobody any more."""
        self._settle()
        self.serve(worker)
        if self.answers(worker):
            self.down_since_s[worker] = self.clock.now_s()
        self.workers[worker].hung = True
        self._count_serving()

    def wake(self, worker: WorkerId) -> None:
        """Let a process that hangs go on."""
        it = self.workers[worker]
        it.hung, it.woke_at_s = False, self.clock.now_s()

    def hang_all(self, release: ReleaseId) -> None:
        """Let every process of a release answer nobody any more, now and whenever it is started."""
        self._settle()
        for worker, it in self.workers.items():
            if it.runs == release and self.answers(worker):
                self.serve(worker)
                self.down_since_s[worker] = self.clock.now_s()
        self.hangs.add(release)
        self._count_serving()

    def forget(self) -> None:
        """The proxy is reloaded: whatever it was told at run time is gone, by nobody's hand but its own."""
        self._settle()
        acting, self.acting = self.acting, None
        for backend in tuple(self.holds):
            if self.is_held(backend):
                self._end_hold(backend, self.clock.now_s(), late=False)
        for it in self.workers.values():
            if it.proxied and (not it.admitted or it.weight != FULL_WEIGHT):
                it.admitted, it.weight, it.changed_at_s = True, FULL_WEIGHT, self.clock.now_s()
        self.acting = acting

    def serves(self, worker: WorkerId) -> bool:
        """Tell whether it does its work: it answers, and the proxy sends it requests if it stands behind it."""
        it = self.workers[worker]
        if not self.answers(worker):
            return False
        return not it.proxied or (it.admitted and it.weight > 0 and not self.is_held(it.backend or ""))

    def out_by_our_hand(self) -> frozenset[WorkerId]:
        """Name those that we took out and that have not served since."""
        self._settle()
        return frozenset(worker for worker, it in self.workers.items() if it.taken)

    def _take(self, worker: WorkerId) -> None:
        if self.acting is not None:
            self.workers[worker].taken = True

    def _settle(self) -> None:
        """Whoever serves again isn't out by our hand any more, and who answers isn't down."""
        for worker, it in self.workers.items():
            if it.taken and self.serves(worker):
                it.taken = False
            if worker in self.down_since_s and self.answers(worker):
                del self.down_since_s[worker]

    def _note(self, deed: Deed, worker: WorkerId, *, by_itself: bool = False, sessions: int = 0, weight: int = 0) -> None:
        now_s = self.clock.now_s()
        answers = self.answers(worker)
        it = self.workers[worker]
        self.history.append(
            Happening(
                at_s=now_s,
                deed=deed,
                worker=worker,
                number=None if self.acting is None or by_itself else self.acting.number,
                runs=it.runs,
                down_for_s=0.0 if answers else now_s - self.down_since_s.get(worker, it.started_at_s or now_s),
                answers=answers,
                sessions=sessions,
                weight=weight,
                out=frozenset(other for other, its in self.workers.items() if its.taken),
            )
        )

    def _cut(self, worker: WorkerId, requests: int, *, by_itself: bool = False) -> None:
        if requests:
            self.cuts[worker] = self.cuts.get(worker, 0) + requests
            self._note(Deed.CUT, worker, by_itself=by_itself, sessions=requests)

    def _count_out(self) -> None:
        out = sum(it.proxied and not (it.admitted and it.started_at_s is not None) for it in self.workers.values())
        self.out_at_once_max = max(self.out_at_once_max, out)
        self._count_serving()

    def _count_serving(self) -> None:
        serving = dict.fromkeys((it.backend for it in self.workers.values() if it.backend is not None), 0)
        for worker, it in self.workers.items():
            if it.backend is not None and self.serves(worker):
                serving[it.backend] += 1
        for backend, now in serving.items():
            self.serving_min[backend] = min(now, self.serving_min.get(backend, now))
