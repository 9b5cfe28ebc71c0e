"""`admit --all --mine`: break-glass."""

from pathlib import Path

import click

from rollout.adapters.documents.read import read_inventory
from rollout.engine.drivers import open_drivers
from rollout.engine.rescue import admit_ours
from rollout.interfaces.cli.options import inventory_option
from rollout.interfaces.report.advice import left_out
from rollout.model.errors import DriverError
from rollout.model.inventory import DriverSettings

STILL_OUT = 4
# The lease isn't asked for, so where it is kept needn't be there.
_UNUSED = DriverSettings.model_validate({"driver": "file", "path": "unused"})


@click.command()
@click.option("--all", "every", is_flag=True, help="every worker …")
@click.option("--mine", is_flag=True, help="… that rollout took out of traffic")
@inventory_option
def admit(inventory_path: Path, *, every: bool, mine: bool) -> int:
    """
    Admit every worker that we took out of traffic and that answers, at once and at its full weight.

    For when all else fails: it needs no journal, no lease and no database, only the proxy and the ledger. What others drained stays
    drained.
    """
    if not (every and mine):
        raise click.UsageError("write `rollout admit --all --mine`: all of ours, and nothing of others'")
    # Secrets may be gone too: without them no database and no measurement is needed, and a worker is asked for its
    # health without credentials.
    inventory = read_inventory(inventory_path).model_copy(
        update={
            "database_driver": None,
            "lease_driver": _UNUSED,
            "probe_driver": DriverSettings(driver="http"),
            "metrics_driver": DriverSettings(driver="scrape"),
            "history_driver": None,
        }
    )
    drivers = open_drivers(inventory)
    try:
        rescued = admit_ours(drivers, inventory)
    except DriverError as error:
        click.echo(f"rollout: {error}", err=True)
        return STILL_OUT
    if rescued.admitted:
        click.echo(f"admitted: {', '.join(rescued.admitted)}")
    click.echo(left_out(inventory, rescued.left_out))
    return STILL_OUT if rescued.left_out else 0
