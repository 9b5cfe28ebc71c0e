"""`status`, `why`, `history`: looking, and nothing else."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rollout.adapters.clock.system import SystemClock
from rollout.adapters.documents.read import read_inventory
from rollout.engine.deploy import replay
from rollout.engine.leasing import TIMEOUT_MAX_S
from rollout.interfaces.cli.keeping import Keep, prune, read_keep
from rollout.interfaces.cli.opening import Opened, newest, open_homeserver, open_user_journal
from rollout.interfaces.cli.options import inventory_option, journal_option, json_option
from rollout.interfaces.cli.selecting import observe
from rollout.interfaces.report.accounts import summarise
from rollout.interfaces.report.advice import next_commands
from rollout.interfaces.report.lease import lease_text, lease_values
from rollout.interfaces.report.progress import steps_done, watch_text, watched_until_s
from rollout.interfaces.report.reasons import headline, mode, reasons
from rollout.interfaces.report.score import score
from rollout.interfaces.report.standing import standing_text, standing_values
from rollout.interfaces.report.words import duration, moment, table
from rollout.model.errors import RolloutError
from rollout.model.event import RESUMABLE, Outcome
from rollout.model.ids import DeployId
from rollout.ports.journal import DeployLine, Journal
from rollout.ports.lease import Lease


@click.command()
@json_option
@journal_option
@inventory_option
def status(inventory_path: Path, journal_place: str | None, *, as_json: bool) -> int:
    """Look at every worker now, and say which rollout is under way and who holds the homeserver's lease."""
    opened = open_homeserver(inventory_path)
    seen = observe(opened, once=True)
    now_s = opened.clock.now_s()
    # Read before the journal: who gives it back has written down first how it ended.
    lease = _lease(opened)
    try:
        journal = open_user_journal(journal_place)
        line = newest(journal, opened.inventory.homeserver)
        under_way = None if line is None or _has_ended(line) else line
        rollout_text = "no rollout is under way" if under_way is None else _headline_and_wait(journal, under_way, lease, now_s)
        rollout_values = None if under_way is None else _values(journal, under_way, lease)
    except RolloutError as error:
        # What is matters more than what was written about it.
        rollout_text = f"the rollout under way, if there is one, can't be told:\n{error}"
        rollout_values = {"error": str(error)}
    if as_json:
        held_values = {"error": str(lease)} if isinstance(lease, RolloutError) else lease_values(lease)
        values = {**standing_values(opened.inventory, seen), "rollout": rollout_values, "lease": held_values}
        click.echo(json.dumps(values, indent=2, ensure_ascii=False))
    else:
        held_text = f"who holds the lease can't be told:\n{lease}" if isinstance(lease, RolloutError) else lease_text(lease, now_s)
        click.echo(f"{standing_text(opened.inventory, seen)}\n\n{rollout_text}\n{held_text}")
    return 0


def _lease(opened: Opened) -> Lease | RolloutError | None:
    """Return what is written down of the lease, or why it can't be read."""
    try:
        return opened.drivers.lease.read(TIMEOUT_MAX_S)
    except RolloutError as error:
        return error


def _is_run(lease: Lease | RolloutError | None, deploy_id: DeployId) -> bool | None:
    """Tell whether a process runs this rollout; None when nobody knows."""
    if isinstance(lease, RolloutError):
        return None
    return lease is not None and lease.held and not lease.free and lease.deploy_id == deploy_id


def _has_ended(line: DeployLine) -> bool:
    return line.outcome is not None and line.outcome not in RESUMABLE


def _headline_and_wait(journal: Journal, line: DeployLine, lease: Lease | RolloutError | None, now_s: float) -> str:
    plan = journal.plan(line.deploy_id)
    state = replay(journal, plan, line.deploy_id)
    waits = "" if state.waiting is None else f"\n  waiting: {state.waiting.why}"
    watch = watch_text(plan, state, is_run=_is_run(lease, line.deploy_id))
    return headline(line.deploy_id, plan, state, now_s) + waits + (f"\n  {watch}" if watch else "")


def _values(journal: Journal, line: DeployLine, lease: Lease | RolloutError | None) -> dict[str, Any]:
    plan = journal.plan(line.deploy_id)
    state = replay(journal, plan, line.deploy_id)
    done, total = steps_done(plan, state)
    return {
        "id": line.deploy_id,
        "to_version": line.to_version,
        "mode": mode(state),
        "steps_done": done,
        "steps": total,
        "began_at_s": state.began_at_s,
        "last_at_s": state.last_at_s,
        "outcome": state.outcome,
        "watched_until_s": watched_until_s(plan, state, is_run=_is_run(lease, line.deploy_id)),
        "waiting": None if state.waiting is None else {"cause": state.waiting.cause, "why": state.waiting.why},
        "drained_by_us": [worker for worker, known in state.workers.items() if known.drained_by_us],
    }


@click.command()
@journal_option
@inventory_option
def why(inventory_path: Path, journal_place: str | None) -> int:
    """Say why the newest rollout waits, or why it stopped, with the evidence. Reads the journal alone."""
    inventory = read_inventory(inventory_path)
    journal = open_user_journal(journal_place)
    line = newest(journal, inventory.homeserver)
    if line is None:
        click.echo(f"no rollout of {inventory.homeserver} was ever written down here")
        return 0
    plan = journal.plan(line.deploy_id)
    state = replay(journal, plan, line.deploy_id)
    now_s = SystemClock().now_s()
    click.echo(f"{headline(line.deploy_id, plan, state, now_s)}\n{reasons(plan, state, now_s)}")
    if state.outcome in RESUMABLE:
        click.echo(next_commands(line.deploy_id, state.outcome))
    return 0


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="how many")
@click.option(
    "--prune", "keep", metavar="KEEP", callback=read_keep,
    help="delete all but the newest KEEP rollouts (100), or what ended longer ago (90d); never the newest, nor one that has not ended",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="do not ask before deleting (nobody is asked without a terminal)")
@json_option
@journal_option
@inventory_option
def history(inventory_path: Path, journal_place: str | None, limit: int, keep: Keep | None, *, yes: bool, as_json: bool) -> int:
    """List rollouts, newest first, and how good their forecasts were; with --json, where the time of each went."""
    inventory = read_inventory(inventory_path)
    journal = open_user_journal(journal_place)
    if keep is not None:
        everything = journal.deploys(inventory.homeserver, sys.maxsize)
        ask = not yes and sys.stdin.isatty() and sys.stdout.isatty()
        click.echo(prune(journal, inventory.homeserver, everything, keep, SystemClock().now_s(), ask=ask))
        return 0
    lines = journal.deploys(inventory.homeserver, limit)
    if as_json:
        json.dump([_account(journal, line) for line in lines], sys.stdout, indent=2, ensure_ascii=False)
        click.echo()
    elif lines:
        click.echo(table(("rollout", "from", "to", "began", "took", "forecast", "outcome"), [_row(journal, line) for line in lines]))
    else:
        click.echo(f"no rollout of {inventory.homeserver} was ever written down here")
    return 0


def _row(journal: Journal, line: DeployLine) -> tuple[str, ...]:
    took = "" if line.finished_at_s is None else duration(line.finished_at_s - line.began_at_s)
    outcome = "has not ended" if line.outcome is None else line.outcome.value.replace("_", " ")
    versions = (", ".join(line.from_versions), line.to_version)
    return (line.deploy_id, *versions, moment(line.began_at_s), took, _forecast(journal, line), outcome)


def _forecast(journal: Journal, line: DeployLine) -> str:
    """Say by how much it took longer than was forecast; nothing of what wasn't deployed."""
    if line.outcome is not Outcome.DEPLOYED:
        return ""
    scored = score(journal.plan(line.deploy_id), (event for _, event in journal.events(line.deploy_id)))
    return "" if scored is None or scored.whole.error is None else f"{scored.whole.error:+.0%}"


def _account(journal: Journal, line: DeployLine) -> dict[str, Any]:
    plan, events = journal.plan(line.deploy_id), [event for _, event in journal.events(line.deploy_id)]
    scored = score(plan, events)
    return {"id": line.deploy_id, **asdict(summarise(plan, events)), "forecast": None if scored is None else asdict(scored)}
