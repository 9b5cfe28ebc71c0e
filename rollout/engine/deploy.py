"""Beginning a rollout, and taking one up again after a crash, a signal or a pause."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from rollout.deciding.agenda import agenda_of
from rollout.deciding.fold import fold, start
from rollout.deciding.state import DECISION_VERSION, DeployState, is_taken_back
from rollout.engine import baseline
from rollout.engine.ahead import AheadClock
from rollout.engine.drivers import Drivers
from rollout.engine.leasing import ALIVE_FOR_S, Tenure
from rollout.engine.perform import ThreadedPerformer
from rollout.engine.rescue import admit_ours
from rollout.engine.run import Listener, Loop
from rollout.engine.survey import Surveyor
from rollout.model.errors import DriverError, JournalTakenError, RefusedError
from rollout.model.event import RESUMABLE, Command, DeployBegan, DeployFinished, DeployResumed, EffectInDoubt, OperatorSpoke
from rollout.model.ids import DeployId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan
from rollout.ports.clock import Clock
from rollout.ports.journal import Journal, Request

# The journal is asked for requests of other processes no more often than this.
ASK_EVERY_S = 1.0
# Who has been taken over from writes a line every half second or so.
TAKE_UP_ATTEMPTS_MIN, TAKE_UP_ATTEMPTS_MAX = 20, 10_000


@dataclass(frozen=True, slots=True)
class Site:
    """Where a rollout happens, where it is written down, and the lease by which it is ours to do."""

    inventory: Inventory
    drivers: Drivers
    journal: Journal
    clock: Clock
    operator: str
    tenure: Tenure


@dataclass(frozen=True, slots=True)
class Bounds:
    """By when a rollout must have ended, None at any time; or why the playbook's windows are ignored."""

    end_by_s: float | None = None
    ignored: str = ""


def begin(site: Site, plan: Plan, deploy_id: DeployId, listeners: Sequence[Listener] = (), bounds: Bounds = Bounds()) -> DeployState:
    """
    Roll *plan* out, to its end or to a stop.

    Raises RefusedError when the lease is lost already, or nobody can be had who would bring back what is ours if this process died, and
    DriverError when the journal can't be written; what was ours and out has been admitted by then, as far as it was well.
    """
    _need_lease(site)
    _have_guarded(site)
    loop = Loop(deploy_id, plan, start(plan), site.journal, site.clock, listeners)
    now_s = site.clock.now_s()
    number, (token, taken_from) = site.drivers.ledger.last_number(), _by_lease(site)
    began = DeployBegan(
        now_s, deploy_id, plan.digest, DECISION_VERSION, site.operator, number, token, taken_from, bounds.end_by_s, bounds.ignored
    )
    site.journal.begin(deploy_id, plan, began)
    loop.admit((began,))
    found = baseline.find(site.drivers, site.journal, plan, now_s)
    if found is not None:
        loop.record((baseline.with_canaries(site.drivers, plan, found),))
    return _run(site, loop, deploy_id, ())


def resume(
    site: Site,
    deploy_id: DeployId,
    listeners: Sequence[Listener] = (),
    asked: Command | None = None,
    bounds: Bounds = Bounds(),
    accept_version: int | None = None,
    *,
    detached: bool = False,
) -> DeployState:
    """
    Take a rollout up where its journal ends; *asked* is heeded first (abort, roll back).

    With *detached* this process only goes on with its last watch. Raises RefusedError when there is none to go on with, when the rollout
    has ended, when its journal was written by another version of the decision code than *accept_version*, or as `begin` does.
    """
    plan = site.journal.plan(deploy_id)
    site, loop = _take_up(site, plan, deploy_id, listeners, accept_version, bounds, detached=detached)
    why = "the process that had begun it is gone"
    loop.record([EffectInDoubt(loop.state.last_at_s, doubted, why) for doubted in tuple(loop.state.in_flight)])
    return _run(site, loop, deploy_id, () if asked is None else (asked,))


def note(site: Site, deploy_id: DeployId, request: Request) -> DeployState:
    """
    Write down what was said of a rollout that nobody runs, for whoever takes it up.

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


def _take_up(
    site: Site,
    plan: Plan,
    deploy_id: DeployId,
    listeners: Sequence[Listener],
    accept_version: int | None,
    bounds: Bounds,
    *,
    detached: bool,
) -> tuple[Site, Loop]:
    """
    Fold what there is, and write down that it is ours now.

    Somebody from whom the lease was taken may write until they notice, which they do before theirs would have run out.
    """
    end_s = site.clock.elapsed_s() + site.tenure.lease.ttl_s
    for attempt in range(TAKE_UP_ATTEMPTS_MAX):
        if attempt >= TAKE_UP_ATTEMPTS_MIN and site.clock.elapsed_s() > end_s:
            break
        _need_lease(site)
        state, version = _read(site.journal, plan, deploy_id)
        if state.outcome is not None and state.outcome not in RESUMABLE:
            raise RefusedError(f"rollout {deploy_id} has ended: {state.outcome}", why=state.outcome_why, remedy="rollout deploy")
        if detached and not _is_watched(plan, state):
            raise RefusedError(f"rollout {deploy_id} is not in its last watch, or somebody has asked something of it")
        if version not in {DECISION_VERSION, accept_version}:
            raise RefusedError(
                f"rollout {deploy_id} was decided by version {version} of the decision code, and this is version {DECISION_VERSION}",
                why=f"what version {version} has begun, version {DECISION_VERSION} may judge and end in another way",
                remedy=f"the release of rollout that began it, or --accept-version {version} if you want this one to take over",
            )
        _have_guarded(site)
        # Between the crash and now the clock may have been set back. The rollout's time goes on from its last line all the same: looks
        # count as fresh at once, and a deadline that was half over is half over.
        ahead = replace(site, clock=AheadClock(site.clock, max(0.0, state.last_at_s - site.clock.now_s())))
        loop = Loop(deploy_id, plan, state, ahead.journal, ahead.clock, listeners)
        resumed = DeployResumed(
            max(ahead.clock.now_s(), state.last_at_s),
            DECISION_VERSION,
            site.operator,
            max(state.last_number, site.drivers.ledger.last_number()),
            None if version == DECISION_VERSION else version,
            *_by_lease(site),
            bounds.end_by_s,
            bounds.ignored,
            detached,
        )
        with suppress(JournalTakenError):
            loop.record((resumed,))
            return ahead, loop
    raise RefusedError(f"somebody else keeps writing about {deploy_id}", remedy="rollout status")


def _is_watched(plan: Plan, state: DeployState) -> bool:
    """Tell whether the last watch goes on; who was taken over meanwhile has written that it stops."""
    goes_on = state.outcome is None or state.taken_over
    return goes_on and state.asked is None and state.winding_down is None and agenda_of(plan, state).watching


def _need_lease(site: Site) -> None:
    if not site.tenure.holds():
        raise RefusedError("the homeserver's lease was lost before anything was done", remedy="rollout status")


def _by_lease(site: Site) -> tuple[int, str]:
    return site.tenure.lease.token, site.tenure.lease.taken_from


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
        ledger.beat(site.tenure.lease.token, site.clock.now_s() + ALIVE_FOR_S)
        ledger.guard(site.inventory.homeserver)
    except DriverError as error:
        raise RefusedError(error.what, where=error.where, why=error.why, remedy=error.remedy) from error


def _run(site: Site, loop: Loop, deploy_id: DeployId, asked: Sequence[Command]) -> DeployState:
    surveyor = Surveyor(site.drivers, site.inventory, site.clock)
    performer_of = partial(ThreadedPerformer, loop.plan, site.drivers, site.inventory, surveyor, site.clock, site.tenure)
    with _signals() as take_signals, performer_of() as performer:
        ears = _Ears(site, deploy_id, asked, take_signals)
        try:
            return loop.run(performer, ears.heed)
        except DriverError:
            if site.tenure.is_taken():
                raise
            # Without a journal nothing more may be begun; what is out comes back by the ledger alone.
            condemned = {worker: loop.plan.to_release.id for worker in loop.state.workers if is_taken_back(loop.state, worker)}
            admit_ours(site.drivers, site.inventory, condemned)
            raise


class _Ears:
    """Everything that can be asked of a running rollout: signals, requests of other processes, and what `resume` was told."""

    def __init__(self, site: Site, deploy_id: DeployId, asked: Sequence[Command], take_signals: Callable[[], list[str]]) -> None:
        self._site = site
        self._deploy_id = deploy_id
        self._asked = list(asked)
        self._take_signals = take_signals
        self._asked_at_s = 0.0

    def heed(self) -> list[OperatorSpoke]:
        now_s = self._site.clock.now_s()
        heard = [OperatorSpoke(now_s, command, self._site.operator, "") for command in self._asked]
        self._asked.clear()
        heard += [OperatorSpoke(now_s, Command.INTERRUPT, self._site.operator, name) for name in self._take_signals()]
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
