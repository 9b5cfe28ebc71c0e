"""
nginx's configuration, as far as it says which server is where and what leads to it.

Blocks are read wherever they stand, for what is included from elsewhere has no more context than its own file. What is skipped is what is
not about upstreams, locations, maps and variables. A file that is included and was not read is a gap.

Source: nginx's documentation of ngx_http_upstream_module, ngx_http_proxy_module (proxy_pass), ngx_http_map_module and of `include`.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rollout.adapters.discovery.haproxy_cfg import address_of
from rollout.adapters.discovery.places import named_by
from rollout.homeservers.synapse.deriving.sources import Backend, Gap, Place, Proxy, Server

_WORD = r"""\\.|\$\{[^}]*\}|[^\s{};\\]"""
_TOKENS = re.compile(
    rf"""\s+|\#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{{}};]|(?:{_WORD})+""",
    re.DOTALL,
)
_NESTING_MAX = 32
_ALL = frozenset({"/", "^/", "/_matrix", "/_matrix/"})
# These say nothing of Matrix, whatever is in them, and are included everywhere.
_HARMLESS = re.compile(r"mime\.types|modules-enabled|fastcgi|snippets/|ssl|letsencrypt|certbot|proxy_params|uwsgi|scgi|koi-|win-utf")
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_PASS = re.compile(r"https?://(unix:[^:]+:?|\[[^]]*\](?::\d+)?|[^/]*?)(?:\$(?:request_uri|uri|is_args).*)?(?:/.*)?\Z")


@dataclass(slots=True)
class _Directive:
    words: tuple[str, ...]
    place: Place
    block: "list[_Directive] | None" = None


@dataclass(slots=True)
class _Reading:
    files: Mapping[str, list[_Directive]]
    upstreams: dict[str, Backend] = field(default_factory=dict)
    variables: dict[str, list[str]] = field(default_factory=dict)
    passes: list[tuple[str, str, Place]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def gap(self, what: str, look: str, place: Place) -> None:
        """Remember that something isn't said here."""
        self.gaps.append(Gap(what, look, place))


def parse_nginx(files: Mapping[str, str]) -> Proxy:
    """Read nginx's files, text by name. Never raises."""
    reading = _Reading({name: _blocks(name, text) for name, text in files.items()})
    for directives in reading.files.values():
        _walk(reading, directives, "")
    routes: dict[str, list[str]] = {}
    direct: dict[str, tuple[Place, list[str]]] = {}
    for target, route, place in reading.passes:
        for name in _targets(reading, target, place):
            if name in reading.upstreams:
                routes.setdefault(name, []).append(route)
            else:
                direct.setdefault(name, (place, []))[1].append(route)
    backends = [_routed(one, routes.get(one.name, [])) for one in reading.upstreams.values()]
    for address, (place, found) in direct.items():
        server = _server(address, place)
        backends.append(_routed(Backend(address, place, (server,), direct=True), found))
    return Proxy("nginx", tuple(files), tuple(backends), (), tuple(dict.fromkeys(reading.gaps)))


def _routed(backend: Backend, routes: list[str]) -> Backend:
    return Backend(
        backend.name,
        backend.place,
        backend.servers,
        tuple(dict.fromkeys(routes)),
        catches_all=not _ALL.isdisjoint(routes),
        direct=backend.direct,
        routing=backend.routing,
    )


def _blocks(name: str, text: str) -> list[_Directive]:
    """Take a text apart into directives, with the blocks that belong to them. A brace that is missing or too many changes nothing."""
    top: list[_Directive] = []
    stack, line, begun = [top], 1, 1
    words: list[str] = []
    for found in _TOKENS.findall(text):
        if found == ";":
            if words:
                stack[-1].append(_Directive(tuple(words), Place(name, begun)))
            words = []
        elif found == "{":
            block: list[_Directive] = []
            stack[-1].append(_Directive(tuple(words) or ("",), Place(name, begun), block))
            # What is nested deeper is no configuration of nginx.
            stack.append(block if len(stack) < _NESTING_MAX else top)
            words = []
        elif found == "}":
            words = []
            if len(stack) > 1:
                stack.pop()
        elif not found.isspace() and not found.startswith("#"):
            begun = begun if words else line
            words.append(found[1:-1] if found[0] in "\"'" and found[-1] == found[0] and len(found) > 1 else found)
        line += found.count("\n")
    return top


def _walk(reading: _Reading, directives: list[_Directive], route: str) -> None:
    for one in directives:
        name, *rest = one.words
        match name:
            case "upstream" if rest and one.block is not None:
                _upstream(reading, rest[0], one)
            case "location" if rest:
                _walk(reading, one.block or [], rest[-1])
            case "map" if len(rest) > 1:
                values = [entry.words[-1] for entry in one.block or [] if len(entry.words) > 1]
                reading.variables.setdefault(rest[1].lstrip("$"), []).extend(values)
            case "set" if len(rest) > 1:
                reading.variables.setdefault(rest[0].lstrip("$"), []).append(rest[1])
            case "proxy_pass" if rest:
                reading.passes.append((rest[0], route, one.place))
            case "include" if rest:
                _included(reading, rest[0], one.place)
            case _ if one.block is not None:
                _walk(reading, one.block, route)


def _upstream(reading: _Reading, name: str, one: _Directive) -> None:
    servers: list[Server] = []
    routing: Literal["even", "hash"] = "even"
    inner, seen = list(one.block or []), set[str]()
    while inner:
        directive = inner.pop(0)
        match directive.words:
            case ["server", address, *_]:
                servers.append(_server(address, directive.place))
            case ["hash" | "ip_hash" | "sticky", *_]:
                routing = "hash"
            case ["include", pattern, *_]:
                files = [file for file in _included(reading, pattern, directive.place) if file not in seen]
                seen |= {*files}
                inner = [line for file in files for line in reading.files[file]] + inner
    reading.upstreams.setdefault(name, Backend(name, one.place, tuple(servers), routing=routing))


def _server(address: str, place: Place) -> Server:
    host, port, path = address_of(address)
    # What nginx takes when none is written.
    return Server(address, address, place, host, port if port is not None or path is not None else 80, path)


def _included(reading: _Reading, pattern: str, place: Place) -> list[str]:
    """List the files that were read and are meant; when there are none, that is a gap."""
    # What was read may be a copy, below some other directory.
    tail = f"*/{pattern.lstrip('/')}"
    found = [file for file in reading.files if fnmatch.fnmatchcase(f"/{file}", tail)]
    if not found and not _HARMLESS.search(pattern):
        look = f"--nginx {named_by(pattern)}, if it is about the homeserver"
        reading.gap(f"nginx includes {pattern}, which was not read", look, place)
    return found


def _targets(reading: _Reading, target: str, place: Place) -> Iterator[str]:
    """Follow what is passed to: a name or an address, or a variable that may hold several."""
    match = _PASS.match(target)
    # Nobody needs to be told who logs in there.
    whole = (match[1] if match else target).rpartition("@")[2]
    variable = _VARIABLE.fullmatch(whole)
    if variable is None:
        if "$" in whole:
            reading.gap(f"where requests go is put together when they come ({whole})", "the roles of the workers behind it", place)
        elif whole:
            yield whole.rstrip(":") if whole.startswith("unix:") else whole
        return
    values = [value for value in reading.variables.get(variable[1], ()) if value]
    if not values:
        reading.gap(f"where requests go stands in ${variable[1]}, which is set elsewhere", "the file that sets it, as --nginx", place)
    for value in dict.fromkeys(values):
        if "$" not in value:
            inner = _PASS.match(value)
            yield inner[1] if inner else value
