"""`deploy`, `resume`, `abort`, `rollback`: everything that changes something."""

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from rollout.adapters.documents.read import read_playbook
from rollout.engine import deploy as engine
from rollout.engine.leasing import Tenure
from rollout.interfaces.cli.desk import (
    Desk,
    ask,
    choose,
    has_ended,
    hold,
    is_safe,
    line_of,
    new_deploy_id,
    open_desk,
    run,
    take_up,
    try_to_hold,
)
from rollout.interfaces.cli.desk import watch_on as go_on_watching
from rollout.interfaces.cli.keeping import concerns
from rollout.interfaces.cli.opening import before_anything
from rollout.interfaces.cli.options import (
    FILE,
    accept_version_option,
    events_option,
    ignore_windows_option,
    inventory_option,
    journal_option,
    no_way_back_option,
    playbook_option,
    rollout_argument,
    take_over_option,
    watch_option,
)
from rollout.interfaces.cli.saved import read_plan, still_true
from rollout.interfaces.cli.selecting import Measuring, Selection, measure_option, plan_back, plan_for, playbook_for, selectors
from rollout.interfaces.cli.watching_on import DETACHED, Again, again
from rollout.interfaces.cli.windows import bounds_again, bounds_now
from rollout.interfaces.plan_text import plan_text
from rollout.interfaces.report.accounts import summarise
from rollout.model.errors import LeaseHeldError, RefusedError
from rollout.model.event import Command, Outcome
from rollout.model.ids import DeployId, ReleaseId, WorkerId
from rollout.model.plan import Plan
from rollout.ports.journal import DeployLine

# Of a thousand workers a plan has about ten.
PLAN_BYTES_MAX = 32_000_000


@click.command()
@click.argument("saved", type=FILE, required=False, metavar="[PLAN.json]")
@selectors
@click.option("--yes", is_flag=True, help="do not ask (nobody is asked without a terminal)")
@no_way_back_option
@ignore_windows_option
@measure_option
@watch_option
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
    measure_s: float,
    selection: Selection,
    watched: str,
    *,
    yes: bool,
    accept_no_way_back: bool,
    ignore_windows: bool,
    take_over: bool,
) -> int:
    """Roll out a version, a configuration or a restart; or a plan that `rollout plan -o` saved, if it still holds."""
    if saved is not None and selection:
        raise click.UsageError("a saved plan says already what to roll to: leave --to, --config, --restart, --only and --until out")
    desk = open_desk(inventory_path, journal_place, events)
    measuring = Measuring(measure_s, desk.journal)
    # Files that are wrong are said before anybody else is kept out.
    if saved is None:
        playbook = playbook_for(desk.opened, playbook_path, selection)
        planned = partial(plan_for, desk.opened, playbook, selection, measuring, thorough=True)
    else:
        named = None if playbook_path is None else read_playbook(playbook_path, desk.opened.inventory)
        planned = partial(still_true, read_plan(saved, desk.opened.inventory), saved, desk.opened, named, measuring, desk.say)
    with ExitStack() as held:
        with before_anything():
            why, deploy_id = f"deploy {saved or selection.to or selection.config or 'restart'}", new_deploy_id(desk.opened)
            handed_to = again(inventory_path, journal_place, deploy_id) if watched == DETACHED else None
            tenure = held.enter_context(hold(desk.opened, why, deploy_id, take_over=take_over))
            plan = planned()
            # Before anybody reads the plan, and once more when it was read.
            bounds_now(plan, desk.opened.clock.now_s(), ignore=ignore_windows)
        consent = Consent(yes=yes, no_way_back=accept_no_way_back, ignore_windows=ignore_windows)
        return _deploy(desk, tenure, deploy_id, plan, consent, handed_to)


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person has said yes to beforehand."""

    yes: bool
    no_way_back: bool
    ignore_windows: bool = False


def _deploy(desk: Desk, tenure: Tenure, deploy_id: DeployId, plan: Plan, consent: Consent, handed_to: Again | None = None) -> int:
    """Show the plan, ask if there is somebody to ask, and roll it out."""
    desk.say(plan_text(plan))
    if not plan.phases:
        return 0
    with before_anything():
        for concern in concerns(desk.journal.keeping(), os.environ):
            desk.say(f"note: {concern}")
    somebody = sys.stdin.isatty() and desk.human.isatty()
    if plan.point_of_no_return is not None and not consent.no_way_back:
        _ask_for_consent(plan, somebody=somebody, err=desk.human is sys.stderr)
    if not consent.yes and somebody and not click.confirm("Roll this out?", err=desk.human is sys.stderr):
        raise RefusedError("you said no", remedy="nothing was touched")
    site = desk.opened.site(desk.journal, tenure)
    bounds = bounds_now(plan, desk.opened.clock.now_s(), ignore=consent.ignore_windows)
    return run(desk, deploy_id, plan, lambda listeners: engine.begin(site, plan, deploy_id, listeners, bounds), handed_to)


def _ask_for_consent(plan: Plan, *, somebody: bool, err: bool) -> None:
    """`--yes` is no answer to this: who wrote it into a script had another release in mind. Raises RefusedError."""
    what = f"after {plan.point_of_no_return} there is no way back to what runs now"
    if not somebody:
        why = "nobody is here to be asked whether that is meant; nothing was touched"
        raise RefusedError(what, why=why, remedy="make a backup, and say --accept-no-way-back")
    if not click.confirm(f"{what}. Is there a backup, and shall it go on?", err=err):
        raise RefusedError("you said no", remedy="nothing was touched")


@click.command()
@rollout_argument
@watch_option
@take_over_option
@accept_version_option
@ignore_windows_option
@events_option
@journal_option
@inventory_option
@click.option("--watch-on", type=click.IntRange(min=1), metavar="PID", hidden=True, help="what `--watch detached` begins")
def resume(
    inventory_path: Path,
    journal_place: str | None,
    events: str | None,
    deploy_id: str | None,
    watched: str,
    accept_version: int | None,
    watch_on: int | None,
    *,
    ignore_windows: bool,
    take_over: bool,
) -> int:
    """Take a rollout up again that crashed, paused or was interrupted: the newest one, or the one that is named."""
    desk = open_desk(inventory_path, journal_place, events)
    if watch_on is not None:
        return go_on_watching(desk, choose(desk, deploy_id), watch_on)
    with ExitStack() as held:
        with before_anything():
            chosen = choose(desk, deploy_id)
            handed_to = again(inventory_path, journal_place, chosen) if watched == DETACHED else None
            plan = desk.journal.plan(chosen)
            tenure = held.enter_context(hold(desk.opened, "resume", chosen, take_over=take_over))
            bounds = bounds_again(plan, desk.opened.clock.now_s(), is_safe=is_safe(desk, chosen), ignore=ignore_windows)
        return take_up(desk, tenure, chosen, plan, None, bounds, accept_version, handed_to)


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
        return take_up(desk, tenure, chosen, plan, Command.ABORT, accept_version=accept_version)


@click.command()
@rollout_argument
@click.option("--to", metavar="RELEASE", help="only the workers that ran this one before a rollout that has ended")
@click.option("--yes", is_flag=True, help="do not ask (nobody is asked without a terminal)")
@no_way_back_option
@take_over_option
@accept_version_option
@events_option
@journal_option
@playbook_option
@inventory_option
def rollback(
    inventory_path: Path,
    playbook_path: Path | None,
    journal_place: str | None,
    events: str | None,
    deploy_id: str | None,
    to: str | None,
    accept_version: int | None,
    *,
    yes: bool,
    accept_no_way_back: bool,
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
                back = plan_back(desk.opened, playbook_path, plan.releases[release], workers, desk.journal)
            else:
                raise tenure
        if isinstance(tenure, LeaseHeldError):
            return ask(desk, line.deploy_id, plan, Command.ROLLBACK)
        if back is not None:
            return _deploy(desk, tenure, back_id, back, Consent(yes=yes, no_way_back=accept_no_way_back))
        return take_up(desk, tenure, line.deploy_id, plan, Command.ROLLBACK, accept_version=accept_version)


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
