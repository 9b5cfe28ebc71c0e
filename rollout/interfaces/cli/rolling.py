"""`deploy`, `resume`, `abort`, `rollback`: everything that changes something."""

import secrets
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import click

from rollout.adapters.documents.read import read_playbook
from rollout.deciding.state import DeployState
from rollout.engine import deploy as engine
from rollout.engine.run import Listener
from rollout.interfaces.cli.following import ask_and_follow
from rollout.interfaces.cli.logging import log_event
from rollout.interfaces.cli.opening import Opened, before_anything, newest, open_homeserver, open_user_journal
from rollout.interfaces.cli.options import FILE, events_option, inventory_option, journal_option, playbook_option
from rollout.interfaces.cli.selecting import Selection, observe, plan_for, plan_to, selectors
from rollout.interfaces.live import Reporter, ndjson, open_screen, writer
from rollout.interfaces.plan_text import plan_text
from rollout.interfaces.report.advice import left_out, next_commands
from rollout.interfaces.report.words import utc
from rollout.model.codec import load_plan
from rollout.model.errors import DriverError, InvalidFileError, RefusedError
from rollout.model.event import EXIT_CODES, RESUMABLE, Command, Outcome
from rollout.model.ids import DeployId
from rollout.model.plan import Plan
from rollout.model.release import Release
from rollout.planning.digest import digest_of_plan, digest_of_playbook
from rollout.planning.drift import explain_stale
from rollout.ports.journal import DeployLine, Journal, Request

# After these something may be left to do for a person.
_NEEDS_A_PERSON = frozenset({Outcome.HALTED, Outcome.PAUSED, Outcome.INTERRUPTED})


@dataclass(frozen=True, slots=True)
class _Desk:
    """Where a rollout is run from: the homeserver, the journal, and who reads along. *human* is stdout, or stderr when events go there."""

    opened: Opened
    journal: Journal
    human: TextIO
    listeners: tuple[Listener, ...]

    def say(self, text: str) -> None:
        """Tell the person at the terminal."""
        writer(self.human)(text)


def _desk(inventory_path: Path, journal_place: str | None, events: str | None) -> _Desk:
    opened = open_homeserver(inventory_path)
    with before_anything():
        journal = open_user_journal(journal_place)
    if events is None:
        return _Desk(opened, journal, sys.stdout, (log_event,))
    return _Desk(opened, journal, sys.stderr, (log_event, ndjson(sys.stdout)))


@click.command()
@click.argument("saved", type=FILE, required=False, metavar="[PLAN.json]")
@selectors
@click.option("--yes", is_flag=True, help="do not ask (nobody is asked without a terminal)")
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
) -> int:
    """Roll out a version, a configuration or a restart; or a plan that `rollout plan -o` saved, if nothing has changed since."""
    if saved is not None and selection:
        raise click.UsageError("a saved plan says already what to roll to: leave --to, --config, --restart, --only and --until out")
    desk = _desk(inventory_path, journal_place, events)
    with ExitStack() as held:
        with before_anything():
            held.enter_context(_lock(desk.opened, f"deploy {saved or selection.to or selection.config or 'restart'}"))
            plan = plan_for(desk.opened, playbook_path, selection) if saved is None else _load(saved, desk.opened, playbook_path)
        return _deploy(desk, plan, yes=yes)


def _load(path: Path, opened: Opened, playbook_path: Path | None) -> Plan:
    """Read a saved plan. Raises RefusedError with what has changed since it was made."""
    try:
        plan = load_plan(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFileError("the plan can't be read", where=str(path), why=str(error)) from error
    if plan.homeserver != opened.inventory.homeserver:
        raise InvalidFileError(f"this is a plan for {plan.homeserver}, not for {opened.inventory.homeserver}", where=str(path))
    if digest_of_plan(plan) != plan.digest:
        raise InvalidFileError("the plan was changed after it was saved", where=str(path), remedy="rollout plan -o …")
    playbook_digest = plan.playbook_digest if playbook_path is None else digest_of_playbook(read_playbook(playbook_path, opened.inventory))
    if changes := explain_stale(plan, observe(opened), playbook_digest):
        raise RefusedError("the plan is stale", where=str(path), why="\n".join(changes), remedy="plan again, and look at what is different")
    return plan


def _deploy(desk: _Desk, plan: Plan, *, yes: bool) -> int:
    """Show the plan, ask if there is somebody to ask, and roll it out. The caller holds the lock."""
    desk.say(plan_text(plan))
    if not plan.phases:
        return 0
    if not yes and sys.stdin.isatty() and desk.human.isatty() and not click.confirm("Roll this out?", err=desk.human is sys.stderr):
        raise RefusedError("you said no", remedy="nothing was touched")
    began_at_s = desk.opened.clock.now_s()
    # Sorts by time, and can be said aloud.
    deploy_id = DeployId(f"{utc(began_at_s, '%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")
    site = desk.opened.site(desk.journal)
    return _run(desk, deploy_id, plan, lambda listeners: engine.begin(site, plan, deploy_id, listeners))


def _run(desk: _Desk, deploy_id: DeployId, plan: Plan, run: Callable[[Sequence[Listener]], DeployState]) -> int:
    """Run it to its end or to a stop; say what is left to do for a person."""
    try:
        with Reporter(plan, open_screen(desk.human)) as reporter:
            outcome = run((*desk.listeners, reporter)).outcome or Outcome.HALTED
    except KeyboardInterrupt:
        desk.say("left at once; what was under way is looked at by `rollout resume`")
        outcome = Outcome.INTERRUPTED
    except DriverError as error:
        # The journal can't be written: what was ours and well has been admitted again by now.
        desk.say(f"rollout: {error}")
        outcome = Outcome.HALTED
    if outcome in _NEEDS_A_PERSON:
        desk.say(_what_is_out(desk))
        desk.say(next_commands(deploy_id, outcome))
    return EXIT_CODES[outcome]


def _what_is_out(desk: _Desk) -> str:
    try:
        marks = desk.opened.drivers.ledger.marks()
    except DriverError as error:
        return f"what of ours is out of traffic can't be read:\n{error}"
    return left_out(desk.opened.inventory, {worker: mark.why for worker, mark in marks.items()})


def _lock(opened: Opened, why: str) -> AbstractContextManager[None]:
    return opened.drivers.ledger.lock(opened.operator, why)


@click.command()
@click.argument("deploy_id", required=False, metavar="[ROLLOUT]")
@events_option
@journal_option
@inventory_option
def resume(inventory_path: Path, journal_place: str | None, events: str | None, deploy_id: str | None) -> int:
    """Take a rollout up again that crashed, paused or was interrupted: the newest one, or the one that is named."""
    desk = _desk(inventory_path, journal_place, events)
    with ExitStack() as held:
        with before_anything():
            held.enter_context(_lock(desk.opened, "resume"))
            chosen = _choose(desk, deploy_id)
            plan = desk.journal.plan(chosen)
        return _take_up(desk, chosen, plan, None)


@click.command()
@click.argument("deploy_id", required=False, metavar="[ROLLOUT]")
@events_option
@journal_option
@inventory_option
def abort(inventory_path: Path, journal_place: str | None, events: str | None, deploy_id: str | None) -> int:
    """Bring back what is out, and end the rollout where it is. A rollout that another process runs is asked to, and watched."""
    desk = _desk(inventory_path, journal_place, events)
    with ExitStack() as held:
        with before_anything():
            chosen = _choose(desk, deploy_id)
            plan = desk.journal.plan(chosen)
            refusal = _take_lock(desk, held, "abort")
        return _take_up(desk, chosen, plan, Command.ABORT) if refusal is None else _ask(desk, chosen, plan, Command.ABORT)


@click.command()
@click.argument("deploy_id", required=False, metavar="[ROLLOUT]")
@click.option("--yes", is_flag=True, help="do not ask (nobody is asked without a terminal)")
@events_option
@journal_option
@playbook_option
@inventory_option
def rollback(
    inventory_path: Path, playbook_path: Path | None, journal_place: str | None, events: str | None, deploy_id: str | None, *, yes: bool
) -> int:
    """
    Take workers back to what they ran before.

    A rollout that has not ended turns round (one that another process runs is asked to, and watched). After one that has ended, a new
    rollout to the release before it is planned, with the playbook's gates, and rolled out.
    """
    desk = _desk(inventory_path, journal_place, events)
    with ExitStack() as held:
        with before_anything():
            line = _line(desk, deploy_id)
            plan = desk.journal.plan(line.deploy_id)
            refusal = _take_lock(desk, held, "rollback")
            if not _has_ended(line):
                back = None
            elif refusal is None:
                back = plan_to(desk.opened, playbook_path, _before(desk, line, plan))
            else:
                raise refusal
        if back is not None:
            return _deploy(desk, back, yes=yes)
        if refusal is not None:
            return _ask(desk, line.deploy_id, plan, Command.ROLLBACK)
        return _take_up(desk, line.deploy_id, plan, Command.ROLLBACK)


def _before(desk: _Desk, line: DeployLine, plan: Plan) -> Release:
    """Return the release that most of the rolled workers ran before. Raises RefusedError when that rollout left nothing to take back."""
    if line.outcome not in {Outcome.DEPLOYED, Outcome.HALTED}:
        raise RefusedError(f"rollout {line.deploy_id} ended as {line.outcome}: there is nothing to take back", remedy="rollout status")
    rolled = [worker for worker in plan.from_releases if worker not in plan.skipped]
    counted = Counter(plan.from_releases[worker] for worker in rolled)
    if len(counted) > 1:
        before = ", ".join(f"{worker} {plan.from_releases[worker]}" for worker in rolled)
        desk.say(f"releases were mixed before ({before}); all go to the commonest")
    return plan.releases[max(counted, key=lambda release: counted[release])]


def _take_lock(desk: _Desk, held: ExitStack, why: str) -> RefusedError | None:
    """Take the homeserver's lock; return the refusal when another process holds it."""
    try:
        held.enter_context(_lock(desk.opened, why))
    except RefusedError as refusal:
        return refusal
    return None


def _line(desk: _Desk, deploy_id: str | None) -> DeployLine:
    """Find a rollout: the one that is named, or the newest."""
    homeserver = desk.opened.inventory.homeserver
    if deploy_id is None:
        line = newest(desk.journal, homeserver)
    else:
        line = next((one for one in desk.journal.deploys(homeserver, sys.maxsize) if one.deploy_id == deploy_id), None)
    if line is None:
        what = f"no rollout of {homeserver} was ever written down here" if deploy_id is None else f"there is no rollout {deploy_id}"
        raise RefusedError(what, remedy="`rollout history` lists them; --journal names another journal")
    return line


def _choose(desk: _Desk, deploy_id: str | None) -> DeployId:
    """Find a rollout that has not ended. Raises RefusedError when it has."""
    line = _line(desk, deploy_id)
    if _has_ended(line):
        raise RefusedError(f"no rollout is under way: {line.deploy_id} ended as {line.outcome}", remedy="rollout deploy")
    return line.deploy_id


def _has_ended(line: DeployLine) -> bool:
    return line.outcome is not None and line.outcome not in RESUMABLE


def _take_up(desk: _Desk, deploy_id: DeployId, plan: Plan, asked: Command | None) -> int:
    site = desk.opened.site(desk.journal)
    return _run(desk, deploy_id, plan, lambda listeners: engine.resume(site, deploy_id, listeners, asked))


def _ask(desk: _Desk, deploy_id: DeployId, plan: Plan, command: Command) -> int:
    """Ask the process that runs it, and watch."""
    desk.say(f"{deploy_id} runs in another process, which is asked to {command}; ^C ends only the watching")
    request = Request(command, desk.opened.operator, "")
    with Reporter(plan, open_screen(desk.human)) as reporter:
        outcome = ask_and_follow(desk.journal, desk.opened.clock, deploy_id, plan, request, (*desk.listeners, reporter))
    return EXIT_CODES[outcome]
