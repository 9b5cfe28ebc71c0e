"""
Which files that is, where nobody names them.

Who names nothing means this machine, and is told where was looked. Who names homeserver.yaml means that one, with what lies beside it, and
nothing else of this machine: it may be a copy.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rollout.model.errors import InvalidFileError

# Debian's package; those of other distributions; a container's own; matrix-docker-ansible-deploy.
HOMESERVERS = (
    "etc/matrix-synapse/homeserver.yaml",
    "etc/synapse/homeserver.yaml",
    "data/homeserver.yaml",
    "matrix/synapse/config/homeserver.yaml",
)
UNITS = ("etc/systemd/system", "run/systemd/system", "lib/systemd/system")
SUPERVISORD = ("etc/supervisor/supervisord.conf", "etc/supervisor/conf.d", "etc/supervisord.conf")
HAPROXY = ("etc/haproxy/haproxy.cfg", "etc/haproxy/conf.d")
NGINX = (
    "etc/nginx/nginx.conf",
    "etc/nginx/conf.d",
    "etc/nginx/sites-enabled",
    "matrix/synapse/reverse-proxy-companion/conf.d",
)
# More in one directory is another kind of directory.
_FILES_MAX = 5_000
_LEFT_BEHIND = ("~", ".bak", ".old", ".orig", ".save", ".swp", ".dpkg-dist", ".dpkg-old", ".dpkg-new", ".rpmnew", ".rpmsave")


@dataclass(frozen=True, slots=True)
class Named:
    """What somebody named; nothing at all of a kind means that it is looked for."""

    configs: tuple[Path, ...] = ()
    workers: tuple[Path, ...] = ()
    units: tuple[Path, ...] = ()
    supervisord: tuple[Path, ...] = ()
    haproxy: tuple[Path, ...] = ()
    nginx: tuple[Path, ...] = ()


def found(named: Named, root: Path) -> Named:
    """
    Fill in what wasn't named, below *root* (`/`, unless it is a test).

    Raises InvalidFileError if there is no homeserver.yaml anywhere, naming where was looked.
    """
    configs = named.configs
    if not configs:
        first = next((path for path in (root / one for one in HOMESERVERS) if path.is_file()), None)
        configs = () if first is None else (first,)
        if not configs:
            looked = ", ".join(str(root / one) for one in HOMESERVERS)
            raise InvalidFileError("no homeserver.yaml was found", why=f"looked for {looked}", remedy="rollout init PATH/homeserver.yaml")
    here = not named.configs
    beside = configs[0].parent
    if len(configs) == 1 and (beside / "conf.d").is_dir():
        # So do the units of Debian's package.
        configs = (*configs, beside / "conf.d")
    return Named(
        configs,
        named.workers or tuple(_workers_beside(beside, configs)),
        named.units or _there(root, UNITS, here=here),
        named.supervisord or _there(root, SUPERVISORD, here=here),
        named.haproxy or (() if named.nginx else _there(root, HAPROXY, here=here)),
        named.nginx or (() if named.haproxy else _there(root, NGINX, here=here)),
    )


def files_in(paths: Iterable[Path], wanted: Callable[[Path], bool], *, deep: bool = False) -> Iterator[Path]:
    """
    List files: those named, and of a directory those that are *wanted*, by name (*deep*: below its own directories too).

    Raises InvalidFileError for a directory that can't be read, and for one of thousands.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        try:
            inside = sorted(path.rglob("*") if deep else path.iterdir())
        except OSError as error:
            raise InvalidFileError(
                "the directory can't be read", where=str(path), why=(error.strerror or "").lower(), remedy="sudo, or another directory"
            ) from error
        if len(inside) > _FILES_MAX:
            raise InvalidFileError(f"{len(inside):,} files are in there", where=str(path), remedy="the directory of the homeserver's own")
        yield from (one for one in inside if wanted(one))


def named_by(pattern: str) -> str:
    """Say what to name so that what a pattern means is read: with a star in it, a shell would make several words of it."""
    folder, _, name = pattern.rpartition("/")
    return folder if "*" in name and folder else pattern


def is_yaml(path: Path) -> bool:
    """As Synapse does: the others in conf.d/ are not for it."""
    return path.suffix == ".yaml" and path.is_file()


def is_of_haproxy(path: Path) -> bool:
    """As HAProxy does with a directory."""
    return path.suffix == ".cfg" and path.is_file()


def is_of_supervisord(path: Path) -> bool:
    """As Debian has them included."""
    return path.suffix in {".conf", ".ini"} and path.is_file()


def is_of_nginx(path: Path) -> bool:
    """A site's file is called as somebody likes, often by its domain; what editors and packages leave beside it is not read by nginx."""
    return path.is_file() and not path.name.startswith(".") and not path.name.endswith(_LEFT_BEHIND)


def is_of_systemd(path: Path) -> bool:
    """A unit, a drop-in, or the link by which one is enabled, wherever that leads from here."""
    return path.suffix == ".service" or (path.suffix == ".conf" and path.parent.name.endswith(".service.d"))


def is_link(path: Path) -> bool:
    """Whether this only says that a unit is enabled."""
    return path.parent.suffix in {".wants", ".requires"}


def _workers_beside(beside: Path, configs: tuple[Path, ...]) -> Iterator[Path]:
    """`workers/` as in Synapse's docs, or `worker.NAME.yaml` beside homeserver.yaml as matrix-docker-ansible-deploy has it."""
    for folder in ("workers", "workers.d"):
        if (beside / folder).is_dir():
            yield beside / folder
    yield from (path for path in sorted(beside.glob("worker*.yaml")) if path not in configs and path.is_file())


def _there(root: Path, places: Iterable[str], *, here: bool) -> tuple[Path, ...]:
    return tuple(path for path in (root / one for one in places) if path.exists()) if here else ()
