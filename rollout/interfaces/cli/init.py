"""`init`: an inventory from what is there."""

from contextlib import suppress
from pathlib import Path

import click

from rollout.adapters.discovery.look import Looked, look
from rollout.adapters.discovery.places import Named
from rollout.adapters.registry import DRIVERS
from rollout.homeservers.synapse.deriving.derive import Derived, derive
from rollout.interfaces.cli.options import FILE, READ
from rollout.interfaces.inventory_text import inventory_text, left_to_do
from rollout.model.errors import InvalidFileError

# Where this machine's own files are looked for.
ROOT = Path("/")
_IS_READ = "this is one of the files that the inventory was made from"


@click.command()
@click.argument("configs", nargs=-1, type=READ, metavar="[HOMESERVER.YAML [CONFIG]...]")
@click.option("-w", "--workers", multiple=True, type=READ, help="worker files, or a directory of them  [default: beside homeserver.yaml]")
@click.option("-u", "--units", multiple=True, type=READ, help="systemd's units, or a directory of them")
@click.option("--supervisord", multiple=True, type=READ, help="supervisord's configuration, or a directory of it")
@click.option("--haproxy", multiple=True, type=READ, help="HAProxy's configuration, or a directory of it")
@click.option(
    "--nginx", multiple=True, type=READ, help="nginx's configuration, or a directory of it; once for each file that includes another"
)
@click.option("-o", "--output", "output_path", type=FILE, help="where to write the inventory  [default: stdout]")
@click.option("--force", is_flag=True, help="write it even where a file is already")
def init(
    configs: tuple[Path, ...],
    workers: tuple[Path, ...],
    units: tuple[Path, ...],
    supervisord: tuple[Path, ...],
    haproxy: tuple[Path, ...],
    nginx: tuple[Path, ...],
    output_path: Path | None,
    *,
    force: bool,
) -> int:
    """
    Write an inventory from what is there: the configuration of Synapse, of systemd or supervisord, of HAProxy or nginx.

    HOMESERVER.YAML may be followed by the further files and directories that Synapse is given; alone it has conf.d beside it read too. If
    it isn't named, all of it is looked for on this machine, where Debian's package, a container and matrix-docker-ansible-deploy put it. If
    it is, nothing else is read but what is named and the worker files beside it.

    Files are read, nobody is asked. What they don't say is marked in the inventory and listed on stderr; that is no error, and the exit
    code is 0. No secret gets into it.
    """
    named = Named(configs, workers, units, supervisord, haproxy, nginx)
    looked = look(named, ROOT)
    derived = derive(looked.sources, DRIVERS)
    text = inventory_text(derived, tuple(map(str, looked.files)))
    if output_path is None:
        click.echo(text, nl=False)
    else:
        _write(output_path, text, looked, force=force)
    _say(derived, looked, output_path)
    return 0


def _say(derived: Derived, looked: Looked, output_path: Path | None) -> None:
    folders: dict[Path, list[str]] = {}
    for file in looked.files:
        folders.setdefault(file.parent, []).append(file.name)
    for folder, names in folders.items():
        click.echo(f"read in {folder}: {', '.join(names)}", err=True)
    if left := left_to_do(derived):
        click.echo(left, err=True)
    next_one = "put it into a file, then: rollout check -i FILE" if output_path is None else f"next: rollout check -i {output_path}"
    click.echo(next_one, err=True)


def _write(path: Path, text: str, looked: Looked, *, force: bool) -> None:
    """Write it, whole or not at all. Raises InvalidFileError where a file is, and whatever is asked for where it is one that was read."""
    half: Path | None = None
    try:
        if any(path.exists() and one.exists() and path.samefile(one) for one in looked.files):
            raise InvalidFileError(_IS_READ, where=str(path), remedy="-o with another path")
        half = path.with_name(f".{path.name}.half") if force else path
        # It fails if something is there, even if that came a moment ago.
        with half.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
        half.replace(path)
    except FileExistsError:
        raise InvalidFileError(
            "a file is there already", where=str(path), remedy="-o with another path, or --force to replace it"
        ) from None
    except (OSError, ValueError) as error:
        if half is not None:
            with suppress(OSError):
                half.unlink(missing_ok=True)
        why = ((error.strerror or "" if isinstance(error, OSError) else "") or str(error)).lower()
        raise InvalidFileError("the inventory can't be written", where=str(path), why=why, remedy="-o with another path") from error
