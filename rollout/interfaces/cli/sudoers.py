"""`sudoers`: what rollout has to be allowed on the hosts."""

from pathlib import Path

import click

from rollout.interfaces.cli.opening import open_acting
from rollout.interfaces.cli.options import inventory_option
from rollout.interfaces.sudoers_text import sudoers_text
from rollout.model.errors import InvalidFileError
from rollout.ports.privileges import Privileged, joined


@click.command()
@click.option("--host", "only", metavar="HOST", help="only the file of this host, ready to be installed there")
@inventory_option
def sudoers(inventory_path: Path, only: str | None) -> int:
    """
    Print the sudo rules that rollout needs on the homeserver's hosts: each command word for word, and nothing else.

    Nothing is connected to, and no secret that the inventory refers to is needed.
    """
    drivers = open_acting(inventory_path)
    found = joined(one for driver in drivers if isinstance(driver, Privileged) for one in driver.privileges())
    if not found:
        raise InvalidFileError(
            "rollout does nothing as root there, so sudo need allow nothing",
            where=str(inventory_path),
            why="the drivers act with the rights of whoever runs rollout",
        )
    chosen = [one for one in found if only in {None, one.host}]
    if not chosen:
        what = f"rollout does nothing as root on host {only!r}"
        raise InvalidFileError(what, where=str(inventory_path), remedy=", ".join(one.host for one in found))
    try:
        click.echo(sudoers_text(chosen), nl=False)
    except ValueError as error:
        remedy = "a script of your own there that does it, and takes no such argument"
        raise InvalidFileError(
            f"a rule that allows just this can't be written: {error}", where=str(inventory_path), remedy=remedy
        ) from None
    return 0
