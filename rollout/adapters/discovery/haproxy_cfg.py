"""
HAProxy's configuration, as far as it says which server is where, what leads to it, and where the admin socket is.

Everything else is skipped, and so is what this doesn't understand. What is chosen only when HAProxy runs (a backend named by a variable,
servers from a template, patterns from another file) is a gap.

Source: HAProxy's configuration manual (2.8), chapters 2 (quoting), 3.1 (stats socket), 4.2 (acl, use_backend, server, balance, stick).
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rollout.homeservers.synapse.deriving.sources import Backend, Gap, Place, Proxy, Server

_SECTIONS = frozenset(
    {
        "backend", "cache", "crt-store", "defaults", "fcgi-app", "frontend", "global", "http-errors", "listen", "log-forward",
        "log-profile", "mailers", "peers", "program", "resolvers", "ring", "traces", "userlist",
    }
)  # fmt: skip
_PATHS = re.compile(r"(?:path|path_\w+|url|url_\w+|base|base_\w+|capture\.req\.uri)(?:,.*)?\Z")
_HOLD = "lua.rollout_hold"
_ADDRESS = re.compile(r"(?:ipv[46]@|tcp[46]?@)?(.*?)(?::(\d+))?\Z")


# A backend's name, the patterns that lead to it, and whether everything else does.
_Lead = tuple[str, tuple[str, ...], bool]


@dataclass(slots=True)
class _Section:
    """What was read of one section."""

    name: str
    place: Place
    acls: dict[str, list[str]] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)
    leads: list[_Lead] = field(default_factory=list)
    held: bool = False
    sticky: bool = False
    balance: str = ""


@dataclass(slots=True)
class _Reading:
    sections: list[_Section] = field(default_factory=list)
    backends: dict[str, _Section] = field(default_factory=dict)
    sockets: list[str] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def gap(self, what: str, look: str, place: Place) -> None:
        """Remember that something isn't said here."""
        self.gaps.append(Gap(what, look, place))


def parse_haproxy(files: Mapping[str, str]) -> Proxy:
    """Read HAProxy's files, text by name, in the order in which it is given them. Never raises."""
    reading = _Reading()
    for name, text in files.items():
        _read(reading, name, text)
    leads = [lead for section in reading.sections for lead in section.leads]
    return Proxy(
        "haproxy",
        tuple(files),
        tuple(_backend(section, leads) for section in reading.backends.values()),
        tuple(dict.fromkeys(reading.sockets)),
        tuple(reading.gaps),
    )


def address_of(written: str) -> tuple[str, int | None, str | None]:
    """Take an address apart: host, port, and path of a unix socket."""
    if written.startswith(("/", "unix@", "unix:")):
        return "", None, re.sub(r"^unix[@:]", "", written).rstrip(":")
    match = _ADDRESS.match(written)
    host, port = (match[1], match[2]) if match else (written, None)
    if host.count(":") > 1 and not host.startswith("[") and port is None:
        # An IPv6 address without brackets: what follows the last colon is its port.
        host, _, port = host.rpartition(":")
    return host.strip("[]"), int(port) if port and port.isdecimal() else None, None


def _read(reading: _Reading, name: str, text: str) -> None:
    kind, section = "", _Section("", Place(name, 1))
    for number, line in enumerate(text.splitlines(), start=1):
        words, place = _words(line), Place(name, number)
        if not words:
            continue
        if words[0] in _SECTIONS:
            kind, section = words[0], _Section(words[1] if len(words) > 1 else "", place)
            reading.sections.append(section)
            if kind in {"backend", "listen"}:
                reading.backends.setdefault(section.name, section)
        elif kind == "global":
            _global(reading, words, place)
        elif kind in {"frontend", "listen", "backend", "defaults"}:
            _proxying(reading, section, words, place)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        # A quote that doesn't end: not for us to say.
        return []


def _global(reading: _Reading, words: Sequence[str], place: Place) -> None:
    if words[:2] != ["stats", "socket"] or len(words) < 3:  # noqa: PLR2004  (stats, socket, where)
        return
    path = address_of(words[2])[2]
    options = words[3:]
    level = options[options.index("level") + 1] if "level" in options[:-1] else "operator"
    if path is None:
        reading.gap(f"HAProxy's admin socket is {words[2]}, which is no file", "one that is: `stats socket PATH level admin`", place)
    elif level != "admin":
        reading.gap(f"HAProxy's socket {path} may not drain anybody (level {level})", "`level admin` at the end of this line", place)
    else:
        reading.sockets.append(path)


def _proxying(reading: _Reading, section: _Section, words: Sequence[str], place: Place) -> None:
    match words:
        case ["server" | "server-template", name, address, *_]:
            _server(reading, section, words[0], name, address, place)
        case ["acl", name, *test]:
            section.acls.setdefault(name, []).extend(_patterns(reading, test, place))
        case ["use_backend", backend, *condition]:
            section.leads.append((backend, tuple(_routes(reading, section, condition, place)), False))
            if "%[" in backend:
                look = "what each backend is asked for, and so the roles of its workers"
                reading.gap("which backend gets a request is worked out when it comes", look, place)
        case ["default_backend", backend, *_]:
            section.leads.append((backend, (), True))
        case ["http-request", action, *_]:
            section.held = section.held or action.startswith(_HOLD)
        case ["balance", how, *_]:
            section.balance = how
        case ["stick" | "stick-table", *_]:
            section.sticky = True


def _server(reading: _Reading, section: _Section, kind: str, name: str, address: str, place: Place) -> None:
    if kind == "server-template":
        reading.gap(f'the servers "{name}…" are made by a template, from what a name resolves to', "a `server` line for each worker", place)
        return
    if "$" in address:
        reading.gap(f'where the server "{name}" is stands in the environment', "its address, as HAProxy is given it", place)
    host, port, path = address_of(address)
    # Of a host that isn't known the port still is.
    host = "" if "$" in host else host
    section.servers.append(Server(name, address, place, host, port, path))


def _patterns(reading: _Reading, test: Sequence[str], place: Place) -> Iterator[str]:
    """List the patterns of a test of the path."""
    if not test or not _PATHS.match(test[0]):
        return
    words = iter(test[1:])
    for word in words:
        if word == "-f":
            file = next(words, "")
            reading.gap(f"patterns of paths stand in {file}", "what they lead to, and so the roles of its workers", place)
        elif word in {"-m", "-M", "-u", "-n"}:
            next(words, None)
        elif not word.startswith("-"):
            yield word


def _routes(reading: _Reading, section: _Section, condition: Sequence[str], place: Place) -> Iterator[str]:
    """List the patterns that lead somewhere by a condition: those of what it names, and those written in it."""
    if condition[:1] != ["if"]:
        return
    words = iter(condition[1:])
    negated = False
    for word in words:
        name = word.lstrip("!")
        negated ^= len(word) - len(name) == 1
        if name == "{":
            inner: list[str] = []
            for other in words:
                if other == "}":
                    break
                inner.append(other)
            found: Iterable[str] = _patterns(reading, inner, place)
        else:
            found = section.acls.get(name, ())
        if name:
            # What is not asked for there leads elsewhere.
            yield from () if negated else found
            negated = False


def _backend(section: _Section, leads: Sequence[_Lead]) -> Backend:
    routes = tuple(route for name, found, _ in leads if name == section.name for route in found)
    backend = Backend(
        section.name,
        section.place,
        tuple(section.servers),
        routes,
        catches_all=any(default for name, _, default in leads if name == section.name),
        held=section.held,
    )
    # HAProxy says the rest itself.
    if section.sticky:
        return replace(backend, routing="hash")
    return replace(backend, routing="even") if section.balance.startswith("random") else backend
