"""Beginning a rollout, and taking one up again after a crash, a signal or a pause."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from rollout.deciding.fold import fold, start
from rollout.deciding.state import DECISION_VERSION, DeployState, is_taken_back
from rollout.engine import baseline
from rollout.engine.ahead import AheadClock
from rollout.engine.drivers import Drivers
from rollout.engine.perform import ThreadedPerformer
from rollout.engine.rescue import admit_ours
from rollout.engine.run import Listener, Loop
from rollout.engine.survey import Surveyor
from rollout.model.errors import DriverError, RefusedError
from rollout.model.event import RESUMABLE, Command, DeployBegan, DeployFinished, DeployResumed, EffectInDoubt, OperatorSpoke
from rollout.model.ids import DeployId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan
from rollout.ports.clock import Clock
from rollout.ports.journal import Journal, Request

# The journal is asked for requests of other processes no more often than this.
ASK_EVERY_S = 1.0
# Whoever hasn't been heard of for ALIVE_FOR_S doesn't live: then somebody else brings back what is ours.
BEAT_EVERY_S = 10.0
ALIVE_FOR_S = 30.0


@dataclass(frozen=True, slots=True)
class Site:
    """Where a rollout happens and where it is written down."""

    inventory: Inventory
    drivers: Drivers
    journal: Journal
    clock: Clock
    operator: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """By when a rollout must have ended, None at any time; or why the playbook's windows are ignored."""

    end_by_s: float | None = None
    ignored: str = ""


def begin(site: Site, plan: Plan, deploy_id: DeployId, listeners: Sequence[Listener] = (), bounds: Bounds = Bounds()) -> DeployState:
    """
    Roll *plan* out, to its end or to a stop. The caller holds the homeserver's lock.

    Raises RefusedError when nobody can be had who would bring back what is ours if this process died, and DriverError when the journal
    can't be written; what was ours and out has been admitted by then, as far as it was well.
    """
    _have_guarded(site)
    loop = Loop(deploy_id, plan, start(plan), site.journal, site.clock, listeners)
    now_s = site.clock.now_s()
    number = site.drivers.ledger.last_number()
    began = DeployBegan(now_s, deploy_id, plan.digest, DECISION_VERSION, site.operator, number, bounds.end_by_s, bounds.ignored)
    site.journal.begin(deploy_id, plan, began)
    loop.admit((began,))
    found = baseline.from_history(site.journal, plan, now_s)
    if found is not None:
        loop.record((found,))
    return _run(site, loop, deploy_id, ())


def resume(
    site: Site,
    deploy_id: DeployId,
    listeners: Sequence[Listener] = (),
    asked: Command | None = None,
    bounds: Bounds = Bounds(),
    accept_version: int | None = None,
) -> DeployState:
    """
    Take a rollout up where its journal ends; *asked* is heeded first (abort, roll back). The caller holds the homeserver's lock.

    Raises RefusedError when it has ended, when its journal was written by another version of the decision code than *accept_version*, or
    as `begin` does.
    """
    plan = site.journal.plan(deploy_id)
    state, version = _read(site.journal, plan, deploy_id)
    if state.outcome is not None and state.outcome not in RESUMABLE:
        raise RefusedError(f"rollout {deploy_id} has ended: {state.outcome}", why=state.outcome_why, remedy="rollout deploy")
    if version not in {DECISION_VERSION, accept_version}:
        raise RefusedError(
            f"rollout {deploy_id} was decided by version {version} of the decision code, and this is version {DECISION_VERSION}",
            why=f"what version {version} has begun, version {DECISION_VERSION} may judge and end in another way",
            remedy=f"the release of rollout that began it, or --accept-version {version} if you want this one to take over",
        )
    _have_guarded(site)
    # Between the crash and now the clock may have been set back. The rollout's time goes on from its last line all the same: looks count as
    # fresh at once, and a deadline that was half over is half over.
    site = replace(site, clock=AheadClock(site.clock, max(0.0, state.last_at_s - site.clock.now_s())))
    loop = Loop(deploy_id, plan, state, site.journal, site.clock, listeners)
    now_s = max(site.clock.now_s(), state.last_at_s)
    number = max(state.last_number, site.drivers.ledger.last_number())
    accepted = None if version == DECISION_VERSION else version
    loop.record((DeployResumed(now_s, DECISION_VERSION, site.operator, number, accepted, bounds.end_by_s, bounds.ignored),))
    why = "the process that had begun it is gone"
    loop.record([EffectInDoubt(now_s, doubted, why) for doubted in tuple(loop.state.in_flight)])
    return _run(site, loop, deploy_id, () if asked is None else (asked,))


def note(site: Site, deploy_id: DeployId, request: Request) -> DeployState:
    """
    Write down what was said of a rollout that nobody runs, for whoever takes it up. The caller holds the homeserver's lock.

    Raises RefusedError when it has ended.
    """
    plan = site.journal.plan(deploy_id)
    loop = Loop(deploy_id, plan, replay(site.journal, plan, deploy_id), site.journal, site.clock)
    state = loop.state
    if state.outcome is not None and state.outcome not in RESUMABLE:
        raise RefusedError(f"rollout {deploy_id} has ended: {state.outcome}", why=state.outcome_why, remedy="rollout deploy")
    loop.record((_spoken(max(site.clock.now_s(), state.last_at_s), request),))
    if state.outcome is not None:
        # It is as paused as it was before.
        loop.record((DeployFinished(loop.state.last_at_s, state.outcome, state.outcome_why),))
    return loop.state


def replay(journal: Journal, plan: Plan, deploy_id: DeployId) -> DeployState:
    """Fold a whole journal, whichever version of the decision code wrote it: to look at it, anybody may."""
    return _read(journal, plan, deploy_id)[0]


def _read(journal: Journal, plan: Plan, deploy_id: DeployId) -> tuple[DeployState, int]:
    """Fold a whole journal, and name the version of the decision code that wrote its end."""
    state, version = start(plan), DECISION_VERSION
    for _, event in journal.events(deploy_id):
        if isinstance(event, DeployBegan | DeployResumed):
            version = event.decision_version
        state = fold(plan, state, event)
    return state, version


def _have_guarded(site: Site) -> None:
    ledger = site.drivers.ledger
    try:
        ledger.beat(ledger.token(), site.clock.now_s() + ALIVE_FOR_S)
        ledger.guard(site.inventory.homeserver)
    except DriverError as error:
        raise RefusedError(error.what, where=error.where, why=error.why, remedy=error.remedy) from error


def _run(site: Site, loop: Loop, deploy_id: DeployId, asked: Sequence[Command]) -> DeployState:
    surveyor = Surveyor(site.drivers, site.inventory, site.clock)
    with _signals() as take_signals, ThreadedPerformer(loop.plan, site.drivers, site.inventory, surveyor, site.clock) as performer:
        ears = _Ears(site, deploy_id, asked, take_signals)
        try:
            return loop.run(performer, ears.heed)
        except DriverError:
            # Without a journal nothing more may be begun; what is out comes back by the ledger alone.
            condemned = {worker: loop.plan.to_release.id for worker in loop.state.workers if is_taken_back(loop.state, worker)}
            admit_ours(site.drivers, site.inventory, condemned)
            raise
        finally:
            # From now on whatever is still out has nobody else.
            ears.beat(site.clock.now_s())


class _Ears:
    """Everything that can be asked of a running rollout: signals, requests of other processes, and what `resume` was told."""

    def __init__(self, site: Site, deploy_id: DeployId, asked: Sequence[Command], take_signals: Callable[[], list[str]]) -> None:
        self._site = site
        self._deploy_id = deploy_id
        self._asked = list(asked)
        self._take_signals = take_signals
        self._asked_at_s = 0.0
        self._beaten_at_s = 0.0
        self._token = site.drivers.ledger.token()

    def beat(self, alive_until_s: float) -> None:
        """Say until when this process lives. Where that can't be written, the next effect can't be either, and says so."""
        with suppress(DriverError):
            self._site.drivers.ledger.beat(self._token, alive_until_s)

    def heed(self) -> list[OperatorSpoke]:
        now_s = self._site.clock.now_s()
        heard = [OperatorSpoke(now_s, command, self._site.operator, "") for command in self._asked]
        self._asked.clear()
        heard += [OperatorSpoke(now_s, Command.INTERRUPT, self._site.operator, name) for name in self._take_signals()]
        if now_s - self._beaten_at_s >= BEAT_EVERY_S:
            self._beaten_at_s = now_s
            self.beat(now_s + ALIVE_FOR_S)
        if now_s - self._asked_at_s >= ASK_EVERY_S:
            self._asked_at_s = now_s
            heard += [_spoken(now_s, request) for request in self._site.journal.take_requests(self._deploy_id)]
        return heard


def _spoken(now_s: float, request: Request) -> OperatorSpoke:
    return OperatorSpoke(now_s, request.command, request.operator, request.why, request.worker)


@contextmanager
def _signals() -> Iterator[Callable[[], list[str]]]:
    """
    The first SIGINT, and every SIGTERM and SIGHUP (a terminal or connection that is gone), ask for a safe stop; the second SIGINT leaves at
    once, with what is under way in doubt. Who started this with nohup goes on.

    Signals reach only the main thread; elsewhere nothing is caught.
    """
    caught: list[str] = []
    interrupted = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if number == signal.SIGINT and interrupted.is_set():
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            interrupted.set()
        caught.append(signal.Signals(number).name)

    def take() -> list[str]:
        names = caught[:]
        del caught[: len(names)]
        return names

    if threading.current_thread() is not threading.main_thread():
        yield take
        return
    heeded = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        heeded.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield take
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
