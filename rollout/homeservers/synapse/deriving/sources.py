"""What was read, as plain data with its places. Nothing in here is a secret: whoever reads leaves out what nobody here asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of a file, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        """Write it as every editor and compiler does."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """One file of Synapse's configuration. *lines* has the line of each value, by its path."""

    name: str
    values: Mapping[str, object]
    lines: Mapping[Path, int]

    def place(self, *path: str | int) -> Place:
        """Find where a value stands; of one that isn't there, its nearest parent."""
        while path and path not in self.lines:
            path = path[:-1]
        return Place(self.name, self.lines.get(path, 1))


@dataclass(frozen=True, slots=True)
class Shared:
    """
    What all processes read: homeserver.yaml and what follows it, in the order in which Synapse is given them.

    A later file replaces whole sections of an earlier one. Source: read_config_files (synapse/config/_base.py) of 1.163.2.
    """

    files: tuple[ParsedFile, ...]

    @property
    def values(self) -> dict[str, object]:
        """The last word on each section."""
        return {key: value for file in self.files for key, value in file.values.items()}

    def place(self, *path: str | int) -> Place:
        """Find where the last word on something stands."""
        owners = [file for file in self.files if path and path[0] in file.values]
        return (owners or self.files)[-1 if owners else 0].place(*path)


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a backend: *address* as it is written, and what it means; *path* is that of a unix socket."""

    name: str
    address: str
    place: Place
    host: str = ""
    port: int | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """
    A backend of HAProxy or an upstream of nginx.

    *routes* are the patterns of the paths that lead to it; *catches_all*: so does everything else. *direct*: it is none, but an address
    that nginx passes requests to.
    """

    name: str
    place: Place
    servers: tuple[Server, ...] = ()
    routes: tuple[str, ...] = ()
    catches_all: bool = False
    direct: bool = False
    held: bool = False
    routing: Literal["even", "hash"] | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Something in a file that leads to where nobody can look from here."""

    what: str
    look: str
    place: Place


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy, from all of its files. *sockets* are admin sockets of HAProxy."""

    kind: Literal["haproxy", "nginx"]
    files: tuple[str, ...]
    backends: tuple[Backend, ...] = ()
    sockets: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class Tie:
    """A line such as `Requires=matrix-synapse.service`, by which systemd takes a unit down along with another (BindsTo, PartOf, too)."""

    verb: str
    unit: str
    place: Place


@dataclass(frozen=True, slots=True)
class Unit:
    """
    A unit of systemd that starts a part of Synapse, or HAProxy.

    *configs* are the files that it names, with `%i` in those of a template, whose enabled instances are *instances*; *program* is what it
    starts, as it is written; *container* is what docker or podman call it, if it runs in one. *master_socket* is HAProxy's.
    """

    name: str
    place: Place
    configs: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    program: str = ""
    main: bool = False
    container: str = ""
    ties: tuple[Tie, ...] = ()
    master_socket: str | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """What supervisord starts: *program* is what its command begins with."""

    name: str
    program: str
    place: Place


@dataclass(frozen=True, slots=True)
class Supervisor:
    """supervisord, from all of its files. *master_socket* is that of HAProxy, if it starts that."""

    files: tuple[str, ...]
    socket: str | None = None
    programs: tuple[Program, ...] = ()
    master_socket: str | None = None
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """
    All that was read.

    *looked_for_units* and *looked_for_proxies* say where, so that what isn't there can be told from what was never looked for.
    """

    shared: Shared
    workers: tuple[ParsedFile, ...] = ()
    units: tuple[Unit, ...] = ()
    supervisor: Supervisor | None = None
    proxies: tuple[Proxy, ...] = ()
    looked_for_units: tuple[str, ...] = ()
    looked_for_proxies: tuple[str, ...] = ()
