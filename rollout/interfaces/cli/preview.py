"""`check` and `plan`: everything that can be said before anything is done."""

import math
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import click

from rollout.adapters.documents.read import read_playbook
from rollout.interfaces.cli.opening import Opened, before_anything, open_homeserver, open_user_journal
from rollout.interfaces.cli.options import FILE, ignore_windows_option, inventory_option, journal_option, json_option, playbook_option
from rollout.interfaces.cli.saved import drift_of, drift_text, read_plan
from rollout.interfaces.cli.selecting import Measuring, Selection, measure_option, plan_for, playbook_for, selectors
from rollout.interfaces.cli.windows import check_that_it_can_fit, why_not_now
from rollout.interfaces.plan_text import plan_text
from rollout.model.codec import dump_json
from rollout.model.errors import InvalidFileError, RefusedError, RolloutError
from rollout.model.ids import PoolId, Role, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook
from rollout.planning.evidence import gates_of
from rollout.ports.journal import Journal
from rollout.ports.metrics import Scraped

CHANGES = 6
# Of what is scraped one may be missed before it is too old.
SCRAPES_MIN = 2
ASK_TIMEOUT_S = 5.0


@click.command()
@playbook_option
@inventory_option
def check(inventory_path: Path, playbook_path: Path | None) -> int:
    """
    Check the inventory, and the playbook if there is one, and say what was checked.

    Nothing is connected to but a Prometheus that metrics come from: `rollout status` looks at the homeserver.
    """
    opened = open_homeserver(inventory_path)
    inventory = opened.inventory
    click.echo(f"{inventory_path}: {inventory.homeserver} has {len(inventory.workers)} workers, {len(inventory.pools)} pools at the proxy")
    click.echo(f"drivers: {', '.join(_drivers(inventory))}; each accepts its settings")
    for pool, worker in _alone(inventory):
        click.echo(
            f"pool {pool}: requests will be cut while {worker}, its only worker, is out; `hold: true` in the inventory and hold.lua at the "
            "proxy would let them wait"
        )
    if playbook_path is None:
        click.echo("no playbook was given, so none was checked")
        return 0
    playbook = read_playbook(playbook_path, inventory, whole=True)
    click.echo(
        f"{playbook_path}: {playbook.name} has {len(playbook.gates)} gates and {len(playbook.guards)} guards; "
        "every role, worker and pool that it names is there"
    )
    for line in _stale_between_scrapes(opened, playbook):
        click.echo(line)
    accepted = [role for role in _roles(inventory) if role in playbook.liveness_only]
    click.echo("every role has a gate that looks at it" + (f", but {', '.join(accepted)}: being alive is enough" if accepted else ""))
    return 0


def _stale_between_scrapes(opened: Opened, playbook: Playbook) -> Iterator[str]:
    """Name the gates whose measurements would be too old before the next one comes. One scrape may be missed."""
    metrics, entries = opened.drivers.metrics, opened.inventory.workers
    if not isinstance(metrics, Scraped):
        return
    every_s = metrics.intervals(tuple(entries), ASK_TIMEOUT_S)
    unknown: dict[str, list[WorkerId]] = {}
    for worker, its in every_s.items():
        if isinstance(its, str):
            unknown.setdefault(its, []).append(worker)
    for why, workers in unknown.items():
        yield f"whether fresh_s of the gates is long enough for {', '.join(workers)} isn't known: {why}"
    for gate in playbook.gates:
        looked_at = [worker for worker, one in entries.items() if gate.id in gates_of(one.role, playbook, proxied=one.pool is not None)]
        known = {worker: its for worker in looked_at if isinstance(its := every_s[worker], float)}
        slowest = max(known, key=lambda worker: known[worker], default=None)
        if slowest is not None and gate.fresh_s < SCRAPES_MIN * known[slowest]:
            every = f"{slowest} is scraped every {known[slowest]:g} s, and its fresh_s of {gate.fresh_s:g} s is shorter than two of these"
            least_s = math.ceil(SCRAPES_MIN * known[slowest]) + 1
            yield f"gate {gate.id}: {every}: what was measured would be too old again and again; try fresh_s: {least_s}"


def _drivers(inventory: Inventory) -> list[str]:
    settings = {
        "workers": inventory.workers_driver,
        "releases": inventory.releases_driver,
        "traffic": inventory.traffic_driver,
        "metrics": inventory.metrics_driver,
        "history": inventory.history_driver,
        "probe": inventory.probe_driver,
        "ledger": inventory.ledger_driver,
        "lease": inventory.lease_driver,
        "database": inventory.database_driver,
        "warming": inventory.warming_driver,
        "notifier": inventory.notifier_driver,
    }
    return [f"{port} {one.driver}" for port, one in settings.items() if one is not None]


def _alone(inventory: Inventory) -> Iterator[tuple[PoolId, WorkerId]]:
    for pool, entry in inventory.pools.items():
        members = [worker for worker, one in inventory.workers.items() if one.pool == pool]
        if len(members) == 1 and not entry.hold:
            yield pool, members[0]


def _roles(inventory: Inventory) -> list[Role]:
    return list(dict.fromkeys(entry.role for entry in inventory.workers.values()))


def _measured(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how the load becomes known; the command gets them as one argument, *measuring*."""

    @wraps(function)
    def command(measure_s: float, journal_place: str | None, **others: object) -> Any:  # noqa: ANN401  (whatever the command returns)
        return function(measuring=Measuring(measure_s, _journal(journal_place)), **others)

    return measure_option(journal_option(command))


def _journal(place: str | None) -> Journal | None:
    """Open it for what it says of earlier rollouts and of the load; one that nobody named, and that can't be opened, is done without."""
    try:
        return open_user_journal(place)
    except RolloutError as error:
        if place is not None:
            raise
        click.echo(f"nothing is known of earlier rollouts: {error.what}", err=True)
        return None


@click.command()
@selectors
@click.option("-o", "--output", "output_path", type=FILE, help="save the plan, for `rollout deploy FILE`")
@click.option(
    "--diff", "diff_path", type=FILE, help="say what changed since this saved plan was made, and whether it still holds; plan nothing"
)
@json_option
@click.option("--detailed-exitcode", is_flag=True, help=f"end with {CHANGES} when there is something to do")
@ignore_windows_option
@_measured
@playbook_option
@inventory_option
def plan(
    inventory_path: Path,
    playbook_path: Path | None,
    output_path: Path | None,
    diff_path: Path | None,
    measuring: Measuring,
    selection: Selection,
    *,
    as_json: bool,
    detailed_exitcode: bool,
    ignore_windows: bool,
) -> int:
    """
    Show what a rollout would do: every step with its reason, the way back, and how long it takes, by what the journal has of earlier ones.

    Nothing is touched.
    """
    opened = open_homeserver(inventory_path)
    if diff_path is not None:
        if selection or output_path is not None:
            raise click.UsageError("--diff plans nothing: it goes with neither -o nor what to roll to")
        return _diff(opened, diff_path, playbook_path, measuring)
    playbook = playbook_for(opened, playbook_path, selection)
    with before_anything():
        planned = plan_for(opened, playbook, selection, measuring, thorough=False)
    now_s = opened.clock.now_s()
    if not ignore_windows:
        check_that_it_can_fit(planned, now_s)
    click.echo(dump_json(planned, indent=2) if as_json else plan_text(planned), nl=as_json)
    if (not_now := why_not_now(planned, now_s)) and not ignore_windows:
        click.echo(f"not at this hour: {not_now}", err=True)
    if output_path is not None:
        _save(planned, output_path)
        click.echo(f"saved: rollout deploy {output_path}", err=True)
    return CHANGES if detailed_exitcode and planned.phases else 0


def _diff(opened: Opened, path: Path, playbook_path: Path | None, measuring: Measuring) -> int:
    planned = read_plan(path, opened.inventory)
    playbook = None if playbook_path is None else read_playbook(playbook_path, opened.inventory)
    with before_anything():
        found = drift_of(planned, opened, playbook, measuring)
    click.echo(drift_text(found), nl=False)
    return 0 if found.holds else RefusedError.exit_code


def _save(planned: Plan, path: Path) -> None:
    half = path.with_name(f".{path.name}.half")
    try:
        half.write_text(dump_json(planned, indent=2) + "\n", encoding="utf-8")
        half.replace(path)
    except OSError as error:
        raise InvalidFileError("the plan can't be saved", where=str(path), why=error.strerror or str(error)) from error
