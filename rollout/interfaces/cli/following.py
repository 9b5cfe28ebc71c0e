"""
Watching a rollout that another process runs, through their journal.

What is asked of it (abort, roll back) is left there as well: the process that holds the homeserver's lease hears it within a second. A
process that holds the lease but doesn't write into this journal is noticed by its silence.
"""

import threading
from collections.abc import Sequence

from rollout.deciding.fold import fold, start
from rollout.engine.run import Listener
from rollout.model.errors import RefusedError
from rollout.model.event import RESUMABLE, OperatorSpoke, Outcome
from rollout.model.ids import DeployId
from rollout.model.plan import Plan
from rollout.ports.clock import Clock
from rollout.ports.journal import Journal, Request

LOOK_EVERY_S = 0.5
# A process that is alive writes what it sees every two seconds; beside a slow disk or a busy machine, fifteen times that.
SILENCE_S = 30.0


def ask_and_follow(
    journal: Journal, clock: Clock, deploy_id: DeployId, plan: Plan, request: Request, listeners: Sequence[Listener]
) -> Outcome:
    """Ask the process that runs a rollout, and follow it to its end. Raises RefusedError when nobody hears."""
    journal.ask(deploy_id, request)
    try:
        return follow(journal, clock, deploy_id, plan, listeners)
    finally:
        # What nobody took must not be heard by somebody who resumes next week.
        journal.take_requests(deploy_id)


def heard(journal: Journal, clock: Clock, deploy_id: DeployId, request: Request) -> None:
    """Ask the process that runs a rollout, and return once it has written down that it heard. Raises RefusedError when nobody does."""
    seen = max((number for number, _ in journal.events(deploy_id)), default=0)
    journal.ask(deploy_id, request)
    end_s = clock.now_s() + SILENCE_S
    pause = threading.Event()
    while clock.now_s() < end_s:
        for number, event in journal.events(deploy_id, after=seen):
            seen = number
            if isinstance(event, OperatorSpoke) and (event.command, event.worker) == (request.command, request.worker):
                return
        pause.wait(LOOK_EVERY_S)
    journal.take_requests(deploy_id)
    raise RefusedError(f"nobody who runs {deploy_id} has heard within {SILENCE_S:.0f} s", remedy="rollout status")


def follow(journal: Journal, clock: Clock, deploy_id: DeployId, plan: Plan, listeners: Sequence[Listener]) -> Outcome:
    """Tell the listeners of everything that happens from now on, and return how it ended. Raises RefusedError when nothing happens."""
    pause = threading.Event()
    state, seen = start(plan), 0
    for seen, event in journal.events(deploy_id):  # noqa: B007  (the last number is what is wanted)
        state = fold(plan, state, event)
    # A pause that is over has not been written down as such yet.
    over = state.outcome is not None and state.outcome not in RESUMABLE
    heard_at_s = clock.now_s()
    while not over:
        pause.wait(LOOK_EVERY_S)
        for number, event in journal.events(deploy_id, after=seen):
            seen, heard_at_s = number, clock.now_s()
            state = fold(plan, state, event)
            over = state.outcome is not None
            for listener in listeners:
                listener(event, state)
        if clock.now_s() - heard_at_s > SILENCE_S:
            raise RefusedError(
                f"somebody holds the lease of {plan.homeserver}, but nothing has been written about {deploy_id} for {SILENCE_S:.0f} s",
                why="it has just died, or it keeps another journal",
                remedy=f"`rollout status` shows who; `rollout resume {deploy_id}` once the lease has run out, or with --take-over",
            )
    return state.outcome or Outcome.INTERRUPTED
