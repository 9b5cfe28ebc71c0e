"""`pause`, `continue`, `skip`: a word to a rollout that is under way."""

from contextlib import ExitStack
from pathlib import Path

import click

from rollout.engine import deploy as engine
from rollout.engine.leasing import TIMEOUT_MAX_S
from rollout.interfaces.cli.completion import complete_worker
from rollout.interfaces.cli.desk import Desk, ask, choose, open_desk, take_up, try_to_hold
from rollout.interfaces.cli.following import heard
from rollout.interfaces.cli.opening import before_anything
from rollout.interfaces.cli.options import (
    accept_version_option,
    events_option,
    ignore_windows_option,
    inventory_option,
    journal_option,
    rollout_argument,
)
from rollout.interfaces.cli.windows import bounds_again
from rollout.model.errors import LeaseHeldError, RefusedError
from rollout.model.event import Command, Outcome
from rollout.model.ids import DeployId, WorkerId
from rollout.model.plan import Plan
from rollout.ports.journal import Request


@click.command()
@rollout_argument
@events_option
@journal_option
@inventory_option
def pause(inventory_path: Path, journal_place: str | None, events: str | None, deploy_id: str | None) -> int:
    """Ask a rollout to stop once the worker that is out is back and well, and watch it do so. `rollout continue` goes on."""
    desk = open_desk(inventory_path, journal_place, events)
    with before_anything():
        chosen = choose(desk, deploy_id)
        plan = desk.journal.plan(chosen)
        # Read, not taken: of a process that was only stopped for a while nobody should take it just to ask.
        lease = desk.opened.drivers.lease.read(TIMEOUT_MAX_S)
        if lease is None or lease.free:
            raise RefusedError(f"nobody runs {chosen}, so there is nothing to pause", remedy="rollout why")
    return ask(desk, chosen, plan, Command.PAUSE)


@click.command(name="continue")
@rollout_argument
@accept_version_option
@ignore_windows_option
@events_option
@journal_option
@inventory_option
def go_on(
    inventory_path: Path,
    journal_place: str | None,
    events: str | None,
    deploy_id: str | None,
    accept_version: int | None,
    *,
    ignore_windows: bool,
) -> int:
    """End a pause: take up a rollout that has paused, or take back a pause that was asked for and has not come about."""
    desk = open_desk(inventory_path, journal_place, events)
    with ExitStack() as held:
        with before_anything():
            chosen = choose(desk, deploy_id)
            plan = desk.journal.plan(chosen)
            tenure = try_to_hold(desk, held, "continue", chosen)
        if isinstance(tenure, LeaseHeldError):
            heard(desk.journal, desk.opened.clock, chosen, Request(Command.CONTINUE, desk.opened.operator, ""))
            desk.say(f"{chosen} goes on, in the process that runs it")
            return 0
        if engine.replay(desk.journal, plan, chosen).outcome is not Outcome.PAUSED:
            raise RefusedError(f"{chosen} did not pause: its process was stopped or has died", remedy=f"rollout resume {chosen}")
        with before_anything():
            bounds = bounds_again(plan, desk.opened.clock.now_s(), is_safe=True, ignore=ignore_windows)
        return take_up(desk, tenure, chosen, plan, None, bounds, accept_version)


@click.command()
@click.argument("worker", shell_complete=complete_worker)
@rollout_argument
@click.option("--why", required=True, help="for the journal, and for whoever wonders later")
@journal_option
@inventory_option
def skip(inventory_path: Path, journal_place: str | None, worker: str, deploy_id: str | None, why: str) -> int:
    """Leave WORKER as it is: the rollout goes on without it. One that is out, or was restarted already, can't be skipped."""
    desk = open_desk(inventory_path, journal_place, None)
    with ExitStack() as held:
        with before_anything():
            chosen = choose(desk, deploy_id)
            plan = desk.journal.plan(chosen)
            _check(desk, plan, chosen, WorkerId(worker))
            tenure = try_to_hold(desk, held, "skip", chosen)
        request = Request(Command.SKIP, desk.opened.operator, why, WorkerId(worker))
        if not isinstance(tenure, LeaseHeldError):
            state = engine.note(desk.opened.site(desk.journal, tenure), chosen, request)
        else:
            heard(desk.journal, desk.opened.clock, chosen, request)
            state = engine.replay(desk.journal, plan, chosen)
    if WorkerId(worker) not in state.skipped:
        raise RefusedError(f"{worker} could not be skipped any more: its turn has begun", remedy="rollout why")
    desk.say(f"{worker} is skipped" + ("" if isinstance(tenure, LeaseHeldError) else f"; to go on: rollout continue {chosen}"))
    return 0


def _check(desk: Desk, plan: Plan, chosen: DeployId, worker: WorkerId) -> None:
    """Refuse what makes no sense before anybody is asked."""
    known = {one.id for one in plan.workers}
    if worker not in known:
        raise RefusedError(f"{chosen} has no worker {worker}", why=f"workers are: {', '.join(sorted(known))}")
    if worker in plan.skipped:
        raise RefusedError(f"{worker} is left alone anyway: {plan.skipped[worker]}")
    state = engine.replay(desk.journal, plan, chosen).workers[worker]
    if state.touched or state.drained_by_us:
        what = "is out of traffic" if state.drained_by_us else "was restarted already"
        raise RefusedError(f"{worker} {what}, so it can't be skipped", remedy="rollout abort leaves everybody as they are now")
