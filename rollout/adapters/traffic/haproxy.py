"""
HAProxy through its runtime API.

Every answer ends with an empty line; without it HAProxy hung up before it was done. Success of a command is nothing but that line; any
text is an error. Servers are read from `show servers state` (who may take requests) and `show
stat` (sessions and counters), by the names in their headers. After a reload the old process keeps its sessions and the new one doesn't
count them, so the master is asked for old processes and each of them for its sessions; where one can't be asked, the number of sessions
is unknown.

What is set at run time is forgotten by a reload. Source: HAProxy's management guide, sections 9.1 (CSV), 9.3 (socket commands), 9.4
(master CLI).
"""

import csv
import re
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic  # noqa: TID251  (a socket's own timeout begins anew with every byte)

from rollout.adapters.settings import Settings, check
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.sighting import ProxySighting
from rollout.ports.traffic import Server

# `show stat` of a thousand servers is about half of this.
ANSWER_BYTES_MAX = 4_000_000
# Any of these bits in srv_admin_state keeps new requests away: maintenance or drain, forced, inherited, or from the configuration.
ADMIN_OUT = 0x7F
# srv_op_state: 1 is coming up through slow start, 2 is up, 3 is up and finishing.
OPERATIONAL = frozenset({"1", "2", "3"})
COUNTERS = ("econ", "eresp", "srv_abrt", "cli_abrt", "wretr", "wredis", "hrsp_5xx")
_OLD_WORKER = re.compile(r"^(\d+)\s+worker\s")


class HaproxySettings(Settings):
    """
    *sockets*: every proxy in front of the homeserver; all must agree. *master_socket*: HAProxy's master (`-S`), if it has one.

    Without a master there is no reload that leaves old processes behind.
    """

    sockets: tuple[Path, ...]
    master_socket: Path | None = None


def build(settings: Mapping[str, object], inventory: Inventory) -> "Haproxy":
    """Open the driver; nothing is connected yet."""
    del inventory
    checked = check(HaproxySettings, settings, "traffic_driver")
    return Haproxy(checked.sockets, checked.master_socket)


class Haproxy:
    """See ports.traffic."""

    def __init__(self, sockets: tuple[Path, ...], master: Path | None) -> None:
        self._sockets = sockets
        self._master = master

    def look(self, servers: Mapping[WorkerId, Server], timeout_s: float) -> dict[WorkerId, ProxySighting]:
        """See ports.traffic."""
        end_s = monotonic() + timeout_s
        joined, *others = [_look_at(place, servers, end_s) for place in self._sockets]
        for seen in others:
            joined = {worker: _both(sighting, seen[worker]) for worker, sighting in joined.items() if worker in seen}
        # Asked last: a reload meanwhile has a session counted twice, which is only a longer drain, and not left out.
        old = self._old_sessions(end_s)
        return {worker: _with_old(sighting, old, servers[worker]) for worker, sighting in joined.items()}

    def drain(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        self._command(f"set server {server.backend}/{server.name} state drain", monotonic() + timeout_s)

    def admit(self, server: Server, weight: int, timeout_s: float) -> None:
        """See ports.traffic. The weight comes first, so that the server never takes more than its share for a moment."""
        name = f"{server.backend}/{server.name}"
        end_s = monotonic() + timeout_s
        self._command(f"set server {name} weight {weight}%", end_s)
        self._command(f"set server {name} state ready", end_s)

    def _command(self, command: str, end_s: float) -> None:
        for number, place in enumerate(self._sockets):
            try:
                _tell(place, command, end_s)
            except DriverError as error:
                if number == 0:
                    raise
                # The proxies before this one have heard it: to say that it did not happen would be wrong.
                raise OutcomeUnknownError(
                    f"only {number} of {len(self._sockets)} proxies did it", where=error.where, why=str(error)
                ) from error

    def _old_sessions(self, end_s: float) -> dict[tuple[str, str], int] | None:
        """Count sessions that old processes still hold; None when one of them can't be asked."""
        if self._master is None:
            return {}
        held: dict[tuple[str, str], int] = {}
        try:
            for pid in _old_workers(_read(self._master, "show proc", "#<PID>", end_s)):
                for key, row in _stats(_read(self._master, f"@!{pid} show stat", "# pxname,", end_s)).items():
                    held[key] = held.get(key, 0) + int(row["scur"] or 0)
        except (DriverError, ValueError):
            return None
        return held


def _look_at(place: Path, servers: Mapping[WorkerId, Server], end_s: float) -> dict[WorkerId, ProxySighting]:
    """See what the process that listens there knows."""
    states = {(row["be_name"], row["srv_name"]): row for row in _states(_read(place, "show servers state", "# be_id", end_s))}
    stats = _stats(_read(place, "show stat", "# pxname,", end_s))
    seen: dict[WorkerId, ProxySighting] = {}
    for worker, server in servers.items():
        key = (server.backend, server.name)
        if key in states and key in stats:
            try:
                seen[worker] = _sighting(states[key], stats[key])
            except (ValueError, KeyError) as error:
                raise PermanentDriverError("the proxy's answer makes no sense", where=str(place), why=f"{worker}: {error}") from error
    return seen


def _sighting(state: Mapping[str, str], stat: Mapping[str, str]) -> ProxySighting:
    counters = {name: int(stat.get(name) or 0) for name in COUNTERS}
    initial = int(state["srv_iweight"])
    return ProxySighting(
        admitted=int(state["srv_admin_state"]) & ADMIN_OUT == 0,
        weight=round(100 * int(state["srv_uweight"]) / initial) if initial else 0,
        up=state["srv_op_state"] in OPERATIONAL,
        sessions=int(stat["scur"] or 0),
        requests=int(stat["stot"] or 0),
        # A server that aborts is counted among the response errors too, so it isn't added again.
        cuts=counters["econ"] + counters["eresp"],
        counters=counters,
    )


def _both(one: ProxySighting, other: ProxySighting) -> ProxySighting:
    """Join what two proxies say of a server: it takes requests if either sends it some; sessions and counters add up."""
    return replace(
        one,
        admitted=one.admitted or other.admitted,
        weight=min(one.weight, other.weight),
        up=one.up and other.up,
        sessions=(one.sessions or 0) + (other.sessions or 0),
        requests=one.requests + other.requests,
        cuts=one.cuts + other.cuts,
        counters={name: one.counters[name] + other.counters[name] for name in COUNTERS},
    )


def _with_old(sighting: ProxySighting, old: Mapping[tuple[str, str], int] | None, server: Server) -> ProxySighting:
    """Add the sessions that old processes hold; if nobody knows how many, nobody knows the sum."""
    return replace(sighting, sessions=None if old is None else (sighting.sessions or 0) + old.get((server.backend, server.name), 0))


def _states(text: str) -> list[dict[str, str]]:
    _, _, table = text.partition("# ")
    header, *lines = table.splitlines()
    rows = (dict(zip(header.split(), line.split(), strict=False)) for line in lines)
    return [row for row in rows if "srv_iweight" in row]


def _stats(text: str) -> dict[tuple[str, str], dict[str, str]]:
    rows = csv.DictReader(text.removeprefix("# ").strip().splitlines())
    return {(row["pxname"], row["svname"]): row for row in rows if row.get("scur") is not None}


def _old_workers(text: str) -> list[str]:
    """Read `show proc`: the processes below `# old workers`."""
    found: list[str] = []
    old = False
    for line in text.splitlines():
        if line.startswith("# "):
            old = line.startswith("# old workers")
        elif old and (match := _OLD_WORKER.match(line)):
            found.append(match.group(1))
    return found


def _tell(place: Path, command: str, end_s: float) -> None:
    try:
        connection = _connect(place, end_s)
    except OSError as error:
        raise TransientDriverError("the proxy can't be reached", where=str(place), why=str(error)) from error
    with connection:
        try:
            answer = _ask(connection, command, end_s)
        except OSError as error:
            raise OutcomeUnknownError("the proxy did not say whether it did it", where=str(place), why=f"{command}: {error}") from error
    if not answer:
        raise OutcomeUnknownError("the proxy hung up without saying whether it did it", where=str(place), why=command)
    if answer.strip():
        raise PermanentDriverError(f"the proxy refused {command!r}", where=str(place), why=answer.strip())


def _read(place: Path, command: str, header: str, end_s: float) -> str:
    """Return the whole answer to a question, in which *header* is."""
    try:
        with _connect(place, end_s) as connection:
            answer = _ask(connection, command, end_s)
    except OSError as error:
        raise TransientDriverError("the proxy can't be asked", where=str(place), why=f"{command}: {error}") from error
    if answer and header not in answer:
        raise PermanentDriverError("the socket doesn't speak HAProxy's runtime API", where=str(place), why=answer[:200])
    if not answer.endswith("\n\n"):
        raise TransientDriverError("the proxy hung up before its answer was complete", where=str(place), why=command)
    return answer


def _connect(place: Path, end_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_left_s(end_s))
        connection.connect(str(place))
    except OSError:
        connection.close()
        raise
    return connection


def _ask(connection: socket.socket, command: str, end_s: float) -> str:
    """Send one command and read until the proxy closes; TimeoutError and other OSErrors come through."""
    connection.sendall(f"{command}\n".encode())
    connection.shutdown(socket.SHUT_WR)
    answer = bytearray()
    while chunk := connection.recv(65_536):
        answer += chunk
        connection.settimeout(_left_s(end_s))
        if len(answer) > ANSWER_BYTES_MAX:
            raise PermanentDriverError(
                "the proxy's answer is too long", where=str(connection.getpeername()), why=f"more than {ANSWER_BYTES_MAX} bytes"
            )
    return answer.decode(errors="replace")


def _left_s(end_s: float) -> float:
    """Count what is left of the time; 0 would mean not to wait at all, which is another error."""
    return max(0.001, end_s - monotonic())
