"""
What must hold of every rehearsal, whatever went wrong in it.

Each invariant is a pure function from the account of one rehearsal to sentences about what broke it; none when it held. They judge by the
world's own history, by which effect did what, and by the journal's lines, never by what the deciding code thought of it.

What nobody could have seen is no fault of ours: a look is up to six seconds old, so a worker that died within that time before an act was
intended may still have been well as far as anybody could know.

By our hand: under an effect of ours. What a fault does by itself (a process that dies, a proxy that forgets, a bound that the proxy keeps)
is not.
"""

from collections.abc import Callable, Iterator

from rollout.model.effect import Effect
from rollout.model.event import (
    Command,
    DeployBegan,
    DeployResumed,
    EffectFailed,
    EffectIntended,
    LeaseLost,
    OperatorSpoke,
    Outcome,
    RollbackBegan,
)
from rollout.model.gate import Gate, Metric
from rollout.model.ids import EffectNumber, ReleaseId, WorkerId
from rollout.model.plan import Duty, Plan, Verb, steps_of
from rollout.rehearsal import promises
from rollout.rehearsal.perform import Account, Stand
from rollout.simulation.drivers import HEALTHY_S, SLOW_S
from rollout.simulation.faults import Fault
from rollout.simulation.parts import Deed, Happening
from rollout.simulation.striking import ERRS

# How long something may have been so before anybody could see it: the age of the oldest look that counts, and the time to the next.
UNSEEN_S = 8.0
# Whoever has been well for so long before a halt, and is out, was forgotten.
WELL_S = 15.0
# How long winding down tries to bring somebody back.
BROUGHT_BACK_WITHIN_S = 120.0

_NEVER_WELL = frozenset({Fault.RELEASE_EXITS, Fault.RELEASE_HANGS})
# Who was slow before is compared with that, and who is skipped shows nothing.
_HIDES = frozenset({Fault.RECOVERS_SLOWLY, Fault.RECOVERS_NEVER, Fault.ASKS_SKIP})

_HITS = frozenset({Fault.WORKER_DIES, Fault.WORKER_HANGS, Fault.BOOTS_SLOWLY, Fault.BOOTS_TOO_SLOWLY})
_STOPS = frozenset({Command.ABORT, Command.INTERRUPT, Command.ROLLBACK})
_TAKES_OUT = frozenset({Deed.DRAINED, Deed.HELD, Deed.STOPPED})
_LETS_IN = frozenset({Verb.ADMIT, Verb.LET_GO})
_TAKEN_BACK = frozenset({Outcome.ROLLED_BACK, Outcome.ROLLED_BACK_ON_REQUEST})
_IN_THE_WAY = frozenset(
    {Fault.PROXY_AWAY, Fault.MANAGER_AWAY, Fault.CLOCK_BACK, Fault.CLOCK_FORWARD, Fault.TOOL_STALLS, Fault.PROXY_FORGETS}
)


def ends(account: Account) -> Iterator[str]:
    """Every run ends, within its bounds, and nothing in it fails that can't fail."""
    if account.error:
        yield account.error


def budget(account: Account) -> Iterator[str]:
    """Never more than max_unavailable of a pool out by our hand; of those without a pool, never two of a role."""
    plan = account.plan
    if plan is None:
        return
    pools = {worker.id: worker.pool or f"role {worker.role}" for worker in plan.workers}
    limits = {str(pool): limit for pool, limit in plan.max_unavailable.items()}
    for it in account.history:
        # Who is down by itself already takes nothing away by being drained; from then on it counts.
        if it.number is None or it.deed not in _TAKES_OUT or not it.answers:
            continue
        out = {other for other in it.out if pools[other] == pools[it.worker]} | {it.worker}
        if len(out) > limits.get(pools[it.worker], 1):
            yield f"{_when(account, it)}: {it.worker} {it.deed} by effect {it.number} while out: {', '.join(sorted(out))}"


def bad_admission(account: Account) -> Iterator[str]:
    """Nobody is admitted, or let go to, who is down or runs a release that is condemned for it."""
    condemned = _condemned(account)
    for it, effect in _ours(account):
        if it.deed not in {Deed.ADMITTED, Deed.LET_GO} or effect.verb not in _LETS_IN:
            continue
        if not it.answers and it.at_s - it.down_for_s < account.intended_at_s[effect.number] - UNSEEN_S:
            yield f"{_when(account, it)}: {it.worker} {it.deed} by effect {it.number}, and it has been down for {it.down_for_s:.1f} s"
        # Too little of a hold was left for the restart: it has yet to be taken back, and what waits goes where it went before.
        anew = effect.verb is Verb.LET_GO and effect.step_id.endswith("/hold")
        if effect.number in condemned and it.runs == condemned[effect.number] and not anew:
            yield f"{_when(account, it)}: {it.worker} {it.deed} by effect {it.number} on {it.runs}, which was being taken back"


def truth(account: Account) -> Iterator[str]:
    """What is said at the end is true, and still is when everything late has landed."""
    plan = account.plan
    if plan is None or account.outcome is None:
        return
    rolled = {step.worker for step in steps_of(plan.phases) if step.worker is not None}
    touched = {effect.worker for effect in account.effects.values() if effect.worker is not None}
    struck_late = _struck_late(account)
    said = account.outcome
    lost = any(one.strike.fault is Fault.JOURNAL_LOST for one in account.struck)
    if said is Outcome.REFUSED and not lost and touched:
        yield f"it is said that nothing was touched, and {', '.join(sorted(touched))} was"
    for worker, stand in account.later.items():
        if worker in struck_late or worker in account.foreign_since_s:
            continue
        if said is Outcome.DEPLOYED and worker in rolled and f"{worker} was skipped" not in account.why:
            yield from _untrue(said, worker, stand, plan.to_release.id)
        if said in _TAKEN_BACK | {Outcome.ABORTED} and worker in touched:
            yield from _untrue(said, worker, stand, plan.from_releases.get(worker))


def _struck_late(account: Account) -> set[str]:
    """Name those who were struck when nobody could see it before the end."""
    late = [one for one in account.struck if one.at_s > account.ended_at_s - UNSEEN_S]
    if any(one.strike.fault is Fault.RELEASE_HANGS for one in late):
        return set(account.end)
    return {one.worker for one in late if one.strike.fault in _HITS}


def _untrue(said: Outcome, worker: WorkerId, stand: Stand, release: ReleaseId | None) -> Iterator[str]:
    if stand.runs != release:
        yield f"it is said to be {said}, and {worker} runs {stand.runs}"
    elif not stand.full:
        yield f"it is said to be {said}, and {worker} {'is out of traffic' if stand.answers else 'does not answer'}"


def nothing_left(account: Account) -> Iterator[str]:
    """Nothing of ours that is healthy and not condemned stays out: not at the end, unless it could not be brought back and is named."""
    plan = account.plan
    if plan is None or account.outcome is None:
        return
    condemned = set(_condemned(account).values())
    if _handed_over(account):
        yield from _left_by_all(account, condemned)
        return
    in_the_way = any(one.strike.fault in _IN_THE_WAY and one.at_s > account.ended_at_s - BROUGHT_BACK_WITHIN_S for one in account.struck)
    for worker, stand in account.end.items():
        if not stand.taken or worker in _struck_late(account):
            continue
        if worker in account.foreign_since_s and not stand.marked:
            # Ours was over, and somebody else keeps it out.
            continue
        if account.outcome is not Outcome.HALTED and account.outcome is not Outcome.REFUSED:
            yield f"it ended as {account.outcome}, and {worker} is out by our hand"
        elif account.outcome is Outcome.HALTED:
            if worker not in account.drained and worker not in account.why:
                yield f"it halted, and {worker} is out by our hand and not named"
            if stand.well_for_s > WELL_S and stand.runs not in condemned and not in_the_way:
                yield f"it halted, and {worker}, well for {stand.well_for_s:.0f} s, is out by our hand"


def cuts(account: Account) -> Iterator[str]:
    """No request is cut by our hand at workers that can be replaced, or that are held."""
    plan = account.plan
    if plan is None:
        return
    held = {step.worker for step in steps_of(plan.phases) if step.verb is Verb.HOLD}
    spared = {worker.id for worker in plan.workers if worker.duty is Duty.REPLACEABLE} | held
    for it, effect in _ours(account):
        if it.deed is not Deed.CUT or it.worker not in spared:
            continue
        intended_at_s = account.intended_at_s[effect.number]
        # It died, or was given traffic by a proxy that forgot, when nobody could see it before the act.
        unseen = not it.answers and it.at_s - it.down_for_s >= intended_at_s - UNSEEN_S
        forgot = any(one.strike.fault is Fault.PROXY_FORGETS and intended_at_s - UNSEEN_S <= one.at_s <= it.at_s for one in account.struck)
        if not unseen and not forgot:
            yield f"{_when(account, it)}: {it.sessions} requests cut at {it.worker} by effect {it.number} ({effect.verb})"
    if account.late and not account.struck:
        yield f"{account.late} requests were let go by the proxy's own bound, and nothing had gone wrong"


def others_drains(account: Account) -> Iterator[str]:
    """What others drained stays drained. Who was being drained by us then, as far as anybody could see, is ours."""
    taken = [(it.worker, it.at_s, account.intended_at_s[effect.number]) for it, effect in _ours(account) if it.deed is Deed.DRAINED]
    for it, effect in _ours(account):
        since_s = account.foreign_since_s.get(it.worker)
        if it.deed is not Deed.ADMITTED or since_s is None or it.at_s < since_s:
            continue
        if any(worker == it.worker and at_s >= since_s >= intended_s - UNSEEN_S for worker, at_s, intended_s in taken):
            continue
        if account.intended_at_s[effect.number] > since_s + UNSEEN_S:
            yield f"{_when(account, it)}: {it.worker}, drained by somebody else before, was admitted by effect {it.number}"


def intent_first(account: Account) -> Iterator[str]:
    """Nothing is done that the journal did not say before, numbers only rise, and time never runs backwards."""
    said: set[EffectNumber] = {event.effect.number for event in account.events if isinstance(event, EffectIntended)}
    for it in account.history:
        if it.number is not None and it.number not in said:
            yield f"{_when(account, it)}: {it.worker} {it.deed} by effect {it.number}, which no journal intended"
    number, at_s = EffectNumber(0), 0.0
    for event in account.events:
        if isinstance(event, DeployBegan):
            # The journal of the rollout before is lost. What was never done at the target has no number there either.
            number, at_s = EffectNumber(0), event.at_s
        if event.at_s < at_s:
            yield f"time runs backwards in the journal, from {at_s} to {event.at_s}"
        at_s = event.at_s
        if isinstance(event, EffectIntended):
            if event.effect.number <= number:
                yield f"effect {event.effect.number} follows {number}"
            number = event.effect.number


def undisturbed(account: Account) -> Iterator[str]:
    """A good release is deployed where nothing goes wrong."""
    scenario = account.scenario
    calm = account.plan is not None and not account.struck and scenario.bad is None and scenario.foreign is None
    if calm and account.outcome is not Outcome.DEPLOYED:
        yield f"nothing went wrong, and it ended as {account.outcome}: {account.why}"


def bad_release(account: Account) -> Iterator[str]:
    """A release that is bad from the start, in a way that gates look at, is not deployed, whatever else goes wrong."""
    plan, bad = account.plan, account.scenario.bad
    if plan is None or bad is None or account.outcome is not Outcome.DEPLOYED:
        return
    if any(one.strike.fault in _HIDES for one in account.struck):
        return
    gates = [plan.gates[gate] for step in steps_of(plan.phases) for gate in step.gates]
    if bad in _NEVER_WELL or any(_shows(gate, bad) for gate in gates):
        yield f"a release that {bad.removeprefix('release_')} was deployed"


def _shows(gate: Gate, bad: Fault) -> bool:
    """Tell whether a release is so bad that a gate fails it."""
    if bad is Fault.RELEASE_ERRS:
        return gate.metric is Metric.ERRORS and gate.max is not None and gate.max < ERRS
    slow = gate.metric is Metric.LATENCY_P95 and gate.ratio_max is not None
    return slow and (gate.ratio_max or 0.0) * HEALTHY_S + gate.slack < SLOW_S


def heeded(account: Account) -> Iterator[str]:
    """Where somebody asks for a stop, or for the way back, nothing is deployed, unless the rollout is taken up again after that."""
    asked: Command | None = None
    for event in account.events:
        if isinstance(event, OperatorSpoke) and event.command in _STOPS:
            asked = event.command
        elif isinstance(event, DeployBegan | DeployResumed):
            asked = None
    if asked is not None and account.outcome is Outcome.DEPLOYED:
        yield f"somebody asked for {asked}, and it was deployed"


INVARIANTS: dict[str, Callable[[Account], Iterator[str]]] = {
    "ends": ends,
    "budget": budget,
    "bad_admission": bad_admission,
    "truth": truth,
    "nothing_left": nothing_left,
    "cuts": cuts,
    "others_drains": others_drains,
    "intent_first": intent_first,
    "undisturbed": undisturbed,
    "bad_release": bad_release,
    "heeded": heeded,
    "stopped": promises.stopped,
    "attempts": promises.attempts,
    "database": promises.database,
    "blame": promises.blame,
}


def judge(account: Account) -> list[tuple[str, str]]:
    """Return what is broken: the invariant's name and a sentence."""
    return [(name, sentence) for name, invariant in INVARIANTS.items() for sentence in invariant(account)]


def _ours(account: Account) -> Iterator[tuple[Happening, Effect]]:
    for it in account.history:
        if it.number is not None and it.number in account.effects:
            yield it, account.effects[it.number]


def _left_by_all(account: Account, condemned: set[str]) -> Iterator[str]:
    """Whoever took over is responsible; if they do nothing, the dead-man brings it back."""
    for worker, stand in account.later.items():
        if stand.taken and stand.well_for_s > WELL_S and stand.runs not in condemned and worker not in _struck_late(account):
            yield f"it was taken over, and {worker}, well for {stand.well_for_s:.0f} s, was brought back by nobody"


def _handed_over(account: Account) -> bool:
    """Tell whether the last process stopped because somebody else has the homeserver's lease."""
    over = False
    for event in account.events:
        if isinstance(event, DeployBegan | DeployResumed):
            over = False
        over |= (isinstance(event, LeaseLost) and event.taken_over) or (isinstance(event, EffectFailed) and event.fenced)
    return over


def _condemned(account: Account) -> dict[EffectNumber, str]:
    """Say of each effect by which release its worker was being taken back from when it was intended."""
    plan = account.plan
    if plan is None:
        return {}
    found: dict[EffectNumber, str] = {}
    restarted: set[WorkerId] = set()
    back: RollbackBegan | None = None
    for event in account.events:
        if isinstance(event, RollbackBegan):
            back = event
        elif isinstance(event, EffectIntended) and event.effect.worker is not None:
            worker = event.effect.worker
            if event.effect.verb is Verb.RESTART:
                restarted.add(worker)
            if back is not None and worker in restarted and (not back.blamed or worker in back.blamed) and _differs(plan, worker):
                found[event.effect.number] = plan.to_release.id
        elif isinstance(event, DeployBegan):
            back, restarted = None, set()
    return found


def _differs(plan: Plan, worker: WorkerId) -> bool:
    return plan.from_releases.get(worker) != plan.to_release.id


def _when(account: Account, it: Happening) -> str:
    return f"{it.at_s - account.began_at_s:.1f} s"
