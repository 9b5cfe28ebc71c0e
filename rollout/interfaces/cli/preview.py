"""`check` and `plan`: everything that can be said before anything is done."""

from collections.abc import Iterator
from pathlib import Path

import click

from rollout.adapters.documents.read import read_playbook
from rollout.interfaces.cli.opening import before_anything, open_homeserver
from rollout.interfaces.cli.options import FILE, inventory_option, json_option, playbook_option
from rollout.interfaces.cli.selecting import Selection, plan_for, playbook_for, selectors
from rollout.interfaces.plan_text import plan_text
from rollout.model.codec import dump_json
from rollout.model.errors import InvalidFileError
from rollout.model.ids import PoolId, Role, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan

CHANGES = 6


@click.command()
@playbook_option
@inventory_option
def check(inventory_path: Path, playbook_path: Path | None) -> int:
    """
    Check the inventory, and the playbook if there is one, and say what was checked.

    Nothing is connected to: `rollout status` looks at the homeserver.
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
    accepted = [role for role in _roles(inventory) if role in playbook.liveness_only]
    click.echo("every role has a gate that looks at it" + (f", but {', '.join(accepted)}: being alive is enough" if accepted else ""))
    return 0


def _drivers(inventory: Inventory) -> list[str]:
    settings = {
        "workers": inventory.workers_driver,
        "releases": inventory.releases_driver,
        "traffic": inventory.traffic_driver,
        "metrics": inventory.metrics_driver,
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


@click.command()
@selectors
@click.option("-o", "--output", "output_path", type=FILE, help="save the plan, for `rollout deploy FILE`")
@json_option
@click.option("--detailed-exitcode", is_flag=True, help=f"end with {CHANGES} when there is something to do")
@playbook_option
@inventory_option
def plan(
    inventory_path: Path,
    playbook_path: Path | None,
    output_path: Path | None,
    selection: Selection,
    *,
    as_json: bool,
    detailed_exitcode: bool,
) -> int:
    """Show what a rollout would do: every step with its reason, and the way back. Nothing is touched."""
    opened = open_homeserver(inventory_path)
    playbook = playbook_for(opened, playbook_path, selection)
    with before_anything():
        planned = plan_for(opened, playbook, selection)
    click.echo(dump_json(planned, indent=2) if as_json else plan_text(planned), nl=as_json)
    if output_path is not None:
        _save(planned, output_path)
        click.echo(f"saved: rollout deploy {output_path}", err=True)
    return CHANGES if detailed_exitcode and planned.phases else 0


def _save(planned: Plan, path: Path) -> None:
    half = path.with_name(f".{path.name}.half")
    try:
        half.write_text(dump_json(planned, indent=2) + "\n", encoding="utf-8")
        half.replace(path)
    except OSError as error:
        raise InvalidFileError("the plan can't be saved", where=str(path), why=error.strerror or str(error)) from error
