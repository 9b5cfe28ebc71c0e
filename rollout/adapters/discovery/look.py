"""All of what is there, read."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rollout.adapters.discovery.haproxy_cfg import parse_haproxy
from rollout.adapters.discovery.nginx_conf import parse_nginx
from rollout.adapters.discovery.places import (
    HAPROXY,
    NGINX,
    UNITS,
    Named,
    files_in,
    found,
    is_link,
    is_of_haproxy,
    is_of_nginx,
    is_of_supervisord,
    is_of_systemd,
    is_yaml,
)
from rollout.adapters.discovery.supervisord_conf import parse_supervisord
from rollout.adapters.discovery.synapse_yaml import read_bytes, read_synapse_yaml
from rollout.adapters.discovery.unit_files import parse_units
from rollout.homeservers.synapse.deriving.sources import Shared, Sources
from rollout.model.errors import InvalidFileError

# A unit that can't be read is said only if it may be one that matters.
_MATTERS = re.compile(r"synapse|matrix|haproxy")


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found, and the files that it comes from."""

    sources: Sources
    files: tuple[Path, ...]


def look(named: Named, root: Path = Path("/")) -> Looked:
    """
    Read everything that was named, or that is where such files usually are.

    Raises InvalidFileError: no homeserver.yaml anywhere, a file or directory that can't be read, or YAML that is none.
    """
    try:
        return _look(named, root)
    except OSError as error:
        # Whoever may not enter a directory can't even be told whether a file is in it.
        raise InvalidFileError(
            "this can't be looked at",
            where=str(error.filename or root),
            why=(error.strerror or "").lower(),
            remedy="sudo, or the paths of copies that can be read",
        ) from error


def _look(named: Named, root: Path) -> Looked:
    all_named = found(named, root)
    configs = list(files_in(all_named.configs, is_yaml))
    workers = [path for path in files_in(all_named.workers, is_yaml) if path not in configs]
    units = list(files_in(all_named.units, is_of_systemd, deep=True))
    haproxy = list(files_in(all_named.haproxy, is_of_haproxy))
    nginx = list(files_in(all_named.nginx, is_of_nginx))
    proxies = [parse_haproxy(_texts(haproxy))] if haproxy else []
    proxies += [parse_nginx(_texts(nginx))] if nginx else []
    supervisord = list(files_in(all_named.supervisord, is_of_supervisord))
    here = not named.configs
    started = parse_units(_units(units, named.units), [str(path) for path in units if is_link(path)])
    sources = Sources(
        shared=Shared(tuple(map(read_synapse_yaml, configs))),
        workers=tuple(map(read_synapse_yaml, workers)),
        units=started,
        supervisor=parse_supervisord(_texts(supervisord)) if supervisord else None,
        proxies=tuple(proxies),
        looked_for_units=_looked(all_named.units, root, UNITS, here=here),
        looked_for_proxies=_looked((*all_named.haproxy, *all_named.nginx), root, (*HAPROXY, *NGINX), here=here),
    )
    of_units = [Path(unit.place.file) for unit in started]
    return Looked(sources, tuple(dict.fromkeys((*configs, *workers, *of_units, *supervisord, *haproxy, *nginx))))


def _texts(paths: Iterable[Path]) -> dict[str, str]:
    # What is no text in a proxy's file is no directive either.
    return {str(path): read_bytes(path).decode(errors="replace") for path in paths}


def _units(paths: Iterable[Path], named: Iterable[Path]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path in paths:
        if is_link(path) or (path not in named and not path.exists()):
            # A link that leads nowhere is how a unit is masked, or what is left of one that is gone.
            continue
        try:
            texts |= _texts([path])
        except InvalidFileError:
            if path in named or _MATTERS.search(path.name):
                raise
    return texts


def _looked(paths: tuple[Path, ...], root: Path, usual: Iterable[str], *, here: bool) -> tuple[str, ...]:
    return tuple(map(str, paths)) or (tuple(str(root / one) for one in usual) if here else ())
