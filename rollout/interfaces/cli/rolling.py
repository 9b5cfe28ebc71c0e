"""`deploy`, `resume`, `abort`, `rollback`: everything that changes something."""

import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click

from rollout.adapters.documents.read import read_playbook
from rollout.adapters.reading import read_bounded
from rollout.adapters.wording import shortened
from rollout.engine import deploy as engine
from rollout.engine.leasing import Tenure
from rollout.interfaces.cli.desk import (
    Desk,
    ask,
    choose,
    has_ended,
    hold,
    line_of,
    new_deploy_id,
    open_desk,
    run,
    take_up,
    try_to_hold,
)
from rollout.interfaces.cli.keeping import concerns
from rollout.interfaces.cli.opening import Opened, before_anything
from rollout.interfaces.cli.options import (
    FILE,
    accept_version_option,
    events_option,
    inventory_option,
    journal_option,
    playbook_option,
    rollout_argument,
    take_over_option,
)
from rollout.interfaces.cli.selecting import Selection, observe, plan_back, plan_for, playbook_for, selectors
from rollout.interfaces.plan_text import plan_text
from rollout.interfaces.report.accounts import summarise
from rollout.model.codec import load_plan
from rollout.model.errors import InvalidFileError, LeaseHeldError, RefusedError
from rollout.model.event import Command, Outcome
from rollout.model.ids import DeployId, ReleaseId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook
from rollout.planning.digest import digest_of_plan, digest_of_playbook
from rollout.planning.drift import explain_stale
from rollout.ports.journal import DeployLine

# Of a thousand workers a plan has about ten.
PLAN_BYTES_MAX = 32_000_000


@click.command()
@click.argument("saved", type=FILE, required=False, metavar="[PLAN.json]")
@selectors
@click.option("--yes", is_flag=True, help="do not ask (nobody is asked without a terminal)")
@take_over_option
@events_option
@journal_option
@playbook_option
@inventory_option
def deploy(
    inventory_path: Path,
    playbook_path: Path | None,
    journal_place: str | None,
    events: str | None,
    saved: Path | None,
    selection: Selection,
    *,
    yes: bool,
    take_over: bool,
) -> int:
    """Roll out a version, a configuration or a restart; or a plan that `rollout plan -o` saved, if nothing has changed since."""
    if saved is not None and selection:
        raise click.UsageError("a saved plan says already what to roll to: leave --to, --config, --restart, --only and --until out")
    desk = open_desk(inventory_path, journal_place, events)
    # Files that are wrong are said before anybody else is kept out.
    if saved is None:
        planned = partial(plan_for, desk.opened, playbook_for(desk.opened, playbook_path, selection), selection)
    else:
        named = None if playbook_path is None else read_playbook(playbook_path, desk.opened.inventory)
        planned = partial(_still_true, _read(saved, desk.opened.inventory), saved, desk.opened, named)
    with ExitStack() as held:
        with before_anything():
            why, deploy_id = f"deploy {saved or selection.to or selection.config or 'restart'}", new_deploy_id(desk.opened)
            tenure = held.enter_context(hold(desk.opened, why, deploy_id, take_over=take_over))
            plan = planned()
        return _deploy(desk, tenure, deploy_id, plan, yes=yes)


def _read(path: Path, inventory: Inventory) -> Plan:
    """Read a saved plan. Raises InvalidFileError."""
    where, again = str(path), f"rollout plan -o {path}"
    try:
        content = read_bounded(path, PLAN_BYTES_MAX)
        text = content.decode()
    except (OSError, ValueError) as error:
        why = (error.strerror or "").lower() if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidFileError("the plan can't be read", where=where, why=why, remedy=again) from error
    if len(content) > PLAN_BYTES_MAX:
        raise InvalidFileError(f"the file is larger than {PLAN_BYTES_MAX:,} bytes: it is no plan", where=where, remedy=again)
    try:
        plan = load_plan(text)
    except InvalidFileError as error:
        raise InvalidFileError("this is no plan that `rollout plan` saved", where=where, why=error.why, remedy=again) from error
    if plan.homeserver != inventory.homeserver:
        what = f"this is a plan for {shortened(plan.homeserver)}, not for {inventory.homeserver}"
        raise InvalidFileError(what, where=where, remedy="the plan or the inventory that goes with the other")
    if digest_of_plan(plan) != plan.digest:
        raise InvalidFileError("the plan was changed after it was saved", where=where, remedy=again)
    return plan


def _still_true(plan: Plan, path: Path, opened: Opened, playbook: Playbook | None) -> Plan:
    """Return the plan. Raises RefusedError with what has changed since it was made."""
    playbook_digest = plan.playbook_digest if playbook is None else digest_of_playbook(playbook)
    if changes := explain_stale(plan, observe(opened), playbook_digest):
        raise RefusedError("the plan is stale", where=str(path), why="\n".join(changes), remedy="plan again, and look at what is different")
    return plan


def _deploy(desk: Desk, tenure: Tenure, deploy_id: DeployId, plan: Plan, *, yes: bool) -> int:
    """Show the plan, ask if there is somebody to ask, and roll it out."""
    desk.say(plan_text(plan))
    if not plan.phases:
        return 0
    with before_anything():
        for concern in concerns(desk.journal.keeping(), os.environ):
            desk.say(f"note: {concern}")
    if not yes and sys.stdin.isatty() and desk.human.isatty() and not click.confirm("Roll this out?", err=desk.human is sys.stderr):
        raise RefusedError("you said no", remedy="nothing was touched")
    site = desk.opened.site(desk.journal, tenure)
    return run(desk, deploy_id, plan, lambda listeners: engine.begin(site, plan, deploy_id, listeners))


@click.command()
@rollout_argument
@take_over_option
@accept_version_option
@events_option
@journal_option
@inventory_option
def resume(
    inventory_path: Path,
    journal_place: str | None,
    events: str | None,
    deploy_id: str | None,
    accept_version: int | None,
    *,
    take_over: bool,
) -> int:
    """Take a rollout up again that crashed, paused or was interrupted: the newest one, or the one that is named."""
    desk = open_desk(inventory_path, journal_place, events)
    with ExitStack() as held:
        with before_anything():
            chosen = choose(desk, deploy_id)
            plan = desk.journal.plan(chosen)
            tenure = held.enter_context(hold(desk.opened, "resume", chosen, take_over=take_over))
        return take_up(desk, tenure, chosen, plan, None, accept_version)


@click.command()
@rollout_argument
@take_over_option
@accept_version_option
@events_option
@journal_option
@inventory_option
def abort(
    inventory_path: Path,
    journal_place: str | None,
    events: str | None,
    deploy_id: str | None,
    accept_version: int | None,
    *,
    take_over: bool,
) -> int:
    """Bring back what is out, and end the rollout where it is. A rollout that another process runs is asked to, and watched."""
    desk = open_desk(inventory_path, journal_place, events)
    with ExitStack() as held:
        with before_anything():
            chosen = choose(desk, deploy_id)
            plan = desk.journal.plan(chosen)
            tenure = try_to_hold(desk, held, "abort", chosen, take_over=take_over)
        if isinstance(tenure, LeaseHeldError):
            return ask(desk, chosen, plan, Command.ABORT)
        return take_up(desk, tenure, chosen, plan, Command.ABORT, accept_version)


@click.command()
@rollout_argument
@click.option("--to", metavar="RELEASE", help="only the workers that ran this one before a rollout that has ended")
@click.option("--yes", is_flag=True, help="do not ask (nobody is asked without a terminal)")
@take_over_option
@accept_version_option
@events_option
@journal_option
@playbook_option
@inventory_option
def rollback(  # noqa: PLR0913  (click hands over every option by its name)
    inventory_path: Path,
    playbook_path: Path | None,
    journal_place: str | None,
    events: str | None,
    deploy_id: str | None,
    to: str | None,
    accept_version: int | None,
    *,
    yes: bool,
    take_over: bool,
) -> int:
    """
    Take workers back to what they ran before.

    A rollout that has not ended turns round (one that another process runs is asked to, and watched). After one that has ended, a new
    rollout of the workers that it touched, to the release that they ran before, is planned, with the playbook's gates, and rolled out.
    """
    desk = open_desk(inventory_path, journal_place, events)
    with ExitStack() as held:
        with before_anything():
            line = line_of(desk, deploy_id)
            plan = desk.journal.plan(line.deploy_id)
            back_id = new_deploy_id(desk.opened) if has_ended(line) else line.deploy_id
            tenure = try_to_hold(desk, held, "rollback", back_id, take_over=take_over)
            if not has_ended(line):
                if to is not None:
                    raise RefusedError(
                        f"rollout {line.deploy_id} has not ended: each worker goes back to what it ran before",
                        remedy=f"rollout rollback {line.deploy_id}",
                    )
                back = None
            elif not isinstance(tenure, LeaseHeldError):
                release, workers = _before(desk, line, plan, to)
                back = plan_back(desk.opened, playbook_path, plan.releases[release], workers)
            else:
                raise tenure
        if isinstance(tenure, LeaseHeldError):
            return ask(desk, line.deploy_id, plan, Command.ROLLBACK)
        if back is not None:
            return _deploy(desk, tenure, back_id, back, yes=yes)
        return take_up(desk, tenure, line.deploy_id, plan, Command.ROLLBACK, accept_version)


def _before(desk: Desk, line: DeployLine, plan: Plan, wanted: str | None) -> tuple[ReleaseId, frozenset[WorkerId]]:
    """
    Return a release, and the workers that ran it before this rollout restarted them; it is *wanted*, or the only one.

    Raises RefusedError when that rollout left nothing to take back, or when they ran several and none is wanted: a rollout goes to one.
    """
    if line.outcome not in {Outcome.DEPLOYED, Outcome.HALTED}:
        raise RefusedError(f"rollout {line.deploy_id} ended as {line.outcome}: there is nothing to take back", remedy="rollout status")
    touched = summarise(plan, (event for _, event in desk.journal.events(line.deploy_id))).touched
    ran: dict[ReleaseId, list[WorkerId]] = {}
    for worker in touched:
        if (release := plan.from_releases[worker]) != plan.to_release.id:
            ran.setdefault(release, []).append(worker)
    if not ran:
        raise RefusedError(f"rollout {line.deploy_id} took no worker to another release", remedy="rollout status")
    if wanted is None and len(ran) == 1:
        wanted = next(iter(ran))
    chosen = next((release for release in ran if release == wanted), None)
    if chosen is not None:
        return chosen, frozenset(ran[chosen])
    if wanted is None:
        what = f"the workers of rollout {line.deploy_id} ran several releases before, and one rollout goes to one"
    else:
        what = f"no worker of rollout {line.deploy_id} ran {wanted} before"
    raise RefusedError(
        what,
        why="\n".join(f"{release}: {', '.join(workers)}" for release, workers in ran.items()),
        remedy=", then ".join(f"rollout rollback {line.deploy_id} --to {release}" for release in ran),
    )
