"""Where a rollout is run from: what `deploy` and all that follows it have in common."""

import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from rollout.deciding.state import DeployState
from rollout.engine import deploy as engine
from rollout.engine.deploy import Bounds
from rollout.engine.leasing import TIMEOUT_MAX_S, Tenure, acquire
from rollout.engine.run import Listener
from rollout.interfaces.cli.following import ask_and_follow
from rollout.interfaces.cli.logging import log_event
from rollout.interfaces.cli.opening import Opened, before_anything, newest, open_homeserver, open_user_journal
from rollout.interfaces.cli.watching_on import WATCHED_ON, Again, Handover, why_of
from rollout.interfaces.live import Reporter, ndjson, open_screen, writer
from rollout.interfaces.pager import Pager
from rollout.interfaces.paging import Pages
from rollout.interfaces.report.advice import left_out, next_commands
from rollout.interfaces.report.score import score, score_text
from rollout.interfaces.report.words import utc
from rollout.model.errors import DriverError, LeaseHeldError, RefusedError
from rollout.model.event import EXIT_CODES, RESUMABLE, Command, Outcome
from rollout.model.ids import DeployId
from rollout.model.plan import Plan
from rollout.ports.journal import DeployLine, Journal, Request
from rollout.ports.lease import Claim

# After these something may be left to do for a person.
_NEEDS_A_PERSON = frozenset({Outcome.HALTED, Outcome.PAUSED, Outcome.INTERRUPTED})


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a rollout is run from: the homeserver, the journal, and who reads along. *human* is stdout, or stderr when events go there."""

    opened: Opened
    journal: Journal
    human: TextIO
    listeners: tuple[Listener, ...]

    def say(self, text: str) -> None:
        """Tell the person at the terminal."""
        writer(self.human)(text)


def open_desk(inventory_path: Path, journal_place: str | None, events: str | None) -> Desk:
    opened = open_homeserver(inventory_path)
    with before_anything():
        journal = open_user_journal(journal_place)
    if events is None:
        return Desk(opened, journal, sys.stdout, (log_event,))
    return Desk(opened, journal, sys.stderr, (log_event, ndjson(sys.stdout)))


def run(
    desk: Desk, deploy_id: DeployId, plan: Plan, act: Callable[[Sequence[Listener]], DeployState], handed_to: Again | None = None
) -> int:
    """
    Run it to its end or to a stop; say what is left to do for a person, and what nobody could be told.

    Once everybody has passed it is handed over to another process, if one is named.
    """
    theirs = False
    with ExitStack() as open_things:
        pager = _pager(desk, deploy_id, plan)
        if pager is not None:
            open_things.enter_context(pager)
        handover = None if handed_to is None else Handover(handed_to, plan, desk.opened.drivers.lease, desk.say)
        listeners: tuple[Listener, ...] = desk.listeners
        if handover is not None:
            listeners = (*listeners, open_things.enter_context(handover))
        try:
            with Reporter(plan, open_screen(desk.human)) as reporter:
                people = [one for one in (pager, reporter) if one is not None]
                state = act((*listeners, *(people if handover is None else map(handover.quiet, people))))
                outcome, theirs = state.outcome or Outcome.HALTED, state.taken_over
        except KeyboardInterrupt:
            desk.say("left at once; what was under way is looked at by `rollout resume`")
            outcome = Outcome.INTERRUPTED
        except DriverError as error:
            # The journal can't be written: what was ours and well has been admitted again by now.
            desk.say(f"rollout: {error}")
            outcome = Outcome.HALTED
            if pager is not None:
                pager.lost(error.what)
    if pager is not None and (untold := pager.untold()):
        desk.say(f"nobody could be told: {'; '.join(untold)}")
    if theirs and handover is not None and handover.has_taken_up(desk.journal, deploy_id):
        desk.say(handover.said(deploy_id))
        return WATCHED_ON
    _say_what_is_left(desk, deploy_id, plan, outcome, theirs=theirs)
    return EXIT_CODES[outcome]


def _say_what_is_left(desk: Desk, deploy_id: DeployId, plan: Plan, outcome: Outcome, *, theirs: bool) -> None:
    if outcome is Outcome.DEPLOYED:
        _say_score(desk, deploy_id, plan)
    if theirs:
        # What is out is for whoever took over to bring back, and nothing for anybody to type here.
        desk.say("to see what they do: rollout status; how it ended: rollout history")
    elif outcome in _NEEDS_A_PERSON:
        desk.say(what_is_out(desk))
        desk.say(next_commands(deploy_id, outcome))


def _say_score(desk: Desk, deploy_id: DeployId, plan: Plan) -> None:
    # It is deployed, whatever becomes of this line.
    with suppress(DriverError):
        scored = score(plan, (event for _, event in desk.journal.events(deploy_id)))
        if scored is not None:
            desk.say(score_text(scored))


def _pager(desk: Desk, deploy_id: DeployId, plan: Plan) -> Pager | None:
    notifier = desk.opened.drivers.notifier
    return None if notifier is None else Pager(notifier, Pages(deploy_id, plan), desk.opened.clock)


def what_is_out(desk: Desk) -> str:
    try:
        marks = desk.opened.drivers.ledger.marks()
    except DriverError as error:
        return f"what of ours is out of traffic can't be read:\n{error}"
    return left_out(desk.opened.inventory, {worker: mark.why for worker, mark in marks.items()})


def hold(opened: Opened, why: str, deploy_id: DeployId, *, take_over: bool = False) -> Tenure:
    """Take the homeserver's lease; it is kept within a `with` block. Raises LeaseHeldError when another process holds it."""
    drivers = opened.drivers
    return acquire(drivers.lease, drivers.ledger, opened.clock, Claim(opened.operator, why, deploy_id), take_over=take_over)


def try_to_hold(desk: Desk, held: ExitStack, why: str, deploy_id: DeployId, *, take_over: bool = False) -> Tenure | LeaseHeldError:
    """Take the homeserver's lease, and keep it for as long as *held* is open; return the refusal when another process holds it."""
    try:
        return held.enter_context(hold(desk.opened, why, deploy_id, take_over=take_over))
    except LeaseHeldError as refusal:
        return refusal


def new_deploy_id(opened: Opened) -> DeployId:
    """Name a rollout by a word that sorts by time, and can be said aloud."""
    return DeployId(f"{utc(opened.clock.now_s(), '%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")


def line_of(desk: Desk, deploy_id: str | None) -> DeployLine:
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


def choose(desk: Desk, deploy_id: str | None) -> DeployId:
    """Find a rollout that has not ended. Raises RefusedError when it has."""
    line = line_of(desk, deploy_id)
    if has_ended(line):
        raise RefusedError(f"no rollout is under way: {line.deploy_id} ended as {line.outcome}", remedy="rollout deploy")
    return line.deploy_id


def has_ended(line: DeployLine) -> bool:
    return line.outcome is not None and line.outcome not in RESUMABLE


def is_safe(desk: Desk, deploy_id: DeployId) -> bool:
    """Tell whether a rollout that has not ended has stopped, rather than been left in the middle."""
    return line_of(desk, deploy_id).outcome in RESUMABLE


def take_up(
    desk: Desk,
    tenure: Tenure,
    deploy_id: DeployId,
    plan: Plan,
    asked: Command | None,
    bounds: Bounds = Bounds(),
    accept_version: int | None = None,
    handed_to: Again | None = None,
) -> int:
    site = desk.opened.site(desk.journal, tenure)
    act = partial(engine.resume, site, deploy_id, asked=asked, bounds=bounds, accept_version=accept_version)
    return run(desk, deploy_id, plan, act, handed_to)


def watch_on(desk: Desk, deploy_id: DeployId, from_pid: int) -> int:
    """Take the last watch of a rollout over from the process *from_pid* of this machine, and go on with it (watching_on.py)."""
    with before_anything():
        plan = desk.journal.plan(deploy_id)
        lease = desk.opened.drivers.lease.read(TIMEOUT_MAX_S)
        begun_us = lease is not None and (lease.pid, lease.host, lease.deploy_id) == (from_pid, socket.gethostname(), deploy_id)
        tenure = hold(desk.opened, why_of(deploy_id), deploy_id, take_over=begun_us)
    with tenure:
        site = desk.opened.site(desk.journal, tenure)
        return run(desk, deploy_id, plan, partial(engine.resume, site, deploy_id, detached=True))


def ask(desk: Desk, deploy_id: DeployId, plan: Plan, command: Command) -> int:
    """Ask the process that runs it, and watch."""
    desk.say(f"{deploy_id} runs in another process, which is asked to {command}; ^C ends only the watching")
    request = Request(command, desk.opened.operator, "")
    with Reporter(plan, open_screen(desk.human)) as reporter:
        outcome = ask_and_follow(desk.journal, desk.opened.clock, deploy_id, plan, request, (*desk.listeners, reporter))
    return EXIT_CODES[outcome]
