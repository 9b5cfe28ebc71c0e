"""
What a rollout promises besides doing no harm: it heeds whoever speaks to it, gives up in time, and takes back whom the playbook says.

As in invariants.py each is a pure function from an account to sentences about what broke it.
"""

from collections import Counter
from collections.abc import Iterator

from rollout.model.effect import Effect
from rollout.model.event import (
    Command,
    DeployBegan,
    DeployResumed,
    EffectFailed,
    EffectIntended,
    EffectObserved,
    OperatorSpoke,
    RollbackBegan,
    StepBegan,
)
from rollout.model.ids import EffectNumber, StepId, WorkerId
from rollout.model.plan import Plan, Verb, steps_of
from rollout.rehearsal.perform import Account
from rollout.simulation.faults import Fault

_TAKES_OUT = frozenset({Verb.DRAIN, Verb.HOLD, Verb.RESTART})
_STOPS = frozenset({Command.ABORT, Command.INTERRUPT})
# A thorough look comes every five seconds and may be lost; an act that was intended by then was intended in good faith.
AWAY_UNSEEN_S = 20.0


def stopped(account: Account) -> Iterator[str]:
    """After a stop nobody is taken out; after a pause nobody new is begun with."""
    if account.plan is None:
        return
    forward = {step.id: step for step in steps_of(account.plan.phases)}
    stopped = paused = False
    begun: set[WorkerId] = set()
    for event in account.events:
        match event:
            case OperatorSpoke():
                stopped = stopped or event.command in _STOPS
                paused = event.command is Command.PAUSE or (paused and event.command is not Command.CONTINUE)
            case DeployBegan() | DeployResumed() | RollbackBegan():
                stopped, paused = stopped and isinstance(event, RollbackBegan), False
            case EffectIntended() if stopped and event.effect.step_id in forward and event.effect.verb in _TAKES_OUT:
                yield f"{event.effect.verb} of {event.effect.worker} was begun after a stop was asked for"
            case StepBegan() if (worker := _worker_of(event.step_id)) in account.end and "/rollback/" not in event.step_id:
                if paused and worker not in begun:
                    yield f"{worker} was begun with after a pause was asked for"
                begun.add(worker)


def _worker_of(step_id: StepId) -> WorkerId:
    """Return whose step it is, in whichever plan: a lost journal had another one."""
    return WorkerId(step_id.partition("/")[0])


def attempts(account: Account) -> Iterator[str]:
    """No act of a step fails oftener than it may, in one life of the tool."""
    if account.plan is None:
        return
    allowed = _attempts_of(account.plan)
    failed: Counter[StepId] = Counter()
    acts: dict[EffectNumber, Effect] = {}
    for event in account.events:
        match event:
            case DeployBegan() | DeployResumed():
                failed.clear()
            case EffectIntended():
                acts[event.effect.number] = event.effect
                step = event.effect.step_id
                if failed[step] >= allowed.get(step, failed[step] + 1):
                    yield f"{step} was tried again after {failed[step]} failures"
            case EffectFailed() | EffectObserved() if event.number in acts:
                unheld = isinstance(event, EffectFailed) and event.unheld
                failed[acts[event.number].step_id] += not unheld and not (isinstance(event, EffectObserved) and event.happened)


def _attempts_of(plan: Plan) -> dict[StepId, int]:
    return {step.id: step.attempts_max for step in (*steps_of(plan.phases), *steps_of(plan.rollback)) if step.verb in _TAKES_OUT}


def database(account: Account) -> Iterator[str]:
    """Nobody is restarted while the database is away, and has been long enough to be seen to be."""
    for one in account.struck:
        if one.strike.fault is not Fault.DATABASE_AWAY:
            continue
        until_s = float("inf") if one.strike.for_s is None else one.at_s + one.strike.for_s
        for number, effect in account.effects.items():
            intended_at_s = account.intended_at_s[number]
            if (
                effect.verb is Verb.RESTART
                and not effect.step_id.endswith("/safety")
                and one.at_s + AWAY_UNSEEN_S < intended_at_s < until_s
            ):
                yield f"{effect.worker} was restarted {intended_at_s - one.at_s:.0f} s after the database was gone"


def blame(account: Account) -> Iterator[str]:
    """Those are taken back that the playbook says: all, or those who failed."""
    if account.plan is None:
        return
    alone = account.plan.rollback_scope == "blamed"
    for event in account.events:
        if isinstance(event, RollbackBegan) and not event.requested and bool(event.blamed) is not alone:
            yield f"{', '.join(event.blamed) or 'nobody'} was blamed where {'only who failed is' if alone else 'all are'} taken back"
