"""
HAProxy through its runtime API.

Servers are read from `show servers state` (who may take requests) and `show
stat` (sessions and counters), by the names in their headers. After a reload the old process keeps its sessions and the new one doesn't
count them, so the master is asked for old processes and each of them for its sessions; where one can't be asked, the number of sessions
is unknown.

What is set at run time is forgotten by a reload. Source: HAProxy's management guide, sections 9.1 (CSV), 9.3 (socket commands), 9.4
(master CLI).
"""

import csv
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from pathlib import Path
from time import monotonic  # noqa: TID251  (a socket's own timeout begins anew with every byte)
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from rollout.adapters.faults import run
from rollout.adapters.settings import FilePath, Settings, check, refused
from rollout.adapters.traffic.runtime_api import read
from rollout.adapters.wording import reason_of, shortened
from rollout.model.errors import DriverError, PermanentDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import HoldBound
from rollout.model.sighting import HoldSighting, PoolSighting, ProxyLimits, ProxySighting
from rollout.ports.acts import Acts
from rollout.ports.traffic import Server

# Any of these bits in srv_admin_state keeps new requests away: maintenance or drain, forced, inherited, or from the configuration.
ADMIN_OUT = 0x7F
# srv_op_state: 1 is coming up through slow start, 2 is up, 3 is up and finishing.
OPERATIONAL = frozenset({"1", "2", "3"})
COUNTERS = ("econ", "eresp", "srv_abrt", "cli_abrt", "wretr", "wredis", "hrsp_5xx")
# Ways to choose a server in which nothing is hashed, as `show stat` calls them; "" where it doesn't say.
UNHASHED = frozenset({"roundrobin", "static-rr", "leastconn", "first", ""})
# Of a server on the ring, for each unit of its weight (BE_WEIGHT_SCALE).
POINTS_PER_WEIGHT = 16
_HOLDS = "# backend,"
_OLD_WORKER = re.compile(r"^(\d+)\s+worker\s")


def _each_once(sockets: tuple[Path, ...]) -> tuple[Path, ...]:
    # A proxy that is asked twice would count twice.
    if twice := [str(one) for one in dict.fromkeys(sockets) if sockets.count(one) > 1]:
        raise refused(f"sockets names {shortened(twice[0])} twice", "remove one of them")
    return sockets


class HaproxySettings(Settings):
    """
    *sockets*: every proxy in front of the homeserver; all must agree. *master_socket*: HAProxy's master (`-S`), if it has one.

    Without a master there is no reload that leaves old processes behind.
    """

    sockets: Annotated[tuple[FilePath, ...], Field(min_length=1), AfterValidator(_each_once)]
    master_socket: FilePath | None = None


def build(settings: Mapping[str, object], inventory: Inventory) -> "Haproxy":
    """Open the driver; nothing is connected yet."""
    checked = check(HaproxySettings, settings, "traffic_driver")
    held = frozenset(pool.backend for pool in inventory.pools.values() if pool.hold)
    return Haproxy(checked.sockets, checked.master_socket, held)


class Haproxy:
    """See ports.traffic."""

    def __init__(self, sockets: tuple[Path, ...], master: Path | None, may_be_held: Collection[str] = ()) -> None:
        self._sockets = sockets
        self._master = master
        self._may_be_held = frozenset(may_be_held)

    def look(self, servers: Mapping[WorkerId, Server], timeout_s: float) -> dict[WorkerId, ProxySighting]:
        """See ports.traffic."""
        end_s = monotonic() + timeout_s
        joined, *others = [_look_at(place, servers, end_s) for place in self._sockets]
        for seen in others:
            joined = {worker: _both(sighting, seen[worker]) for worker, sighting in joined.items() if worker in seen}
        # Asked last: a reload meanwhile has a session counted twice, which is only a longer drain, and not left out.
        old = self._old_sessions(end_s)
        held = self._held({servers[worker].backend for worker in joined} & self._may_be_held, end_s)
        return {
            worker: replace(_with_old(sighting, old, servers[worker]), **held.get(servers[worker].backend, {}))
            for worker, sighting in joined.items()
        }

    def drain(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        run(self.drain_acts(server, timeout_s))

    def drain_acts(self, server: Server, timeout_s: float) -> Acts:
        """See ports.acts."""
        return self._commands(timeout_s, f"set server {server.backend}/{server.name} state drain")

    def admit(self, server: Server, weight: int, timeout_s: float) -> None:
        """See ports.traffic."""
        run(self.admit_acts(server, weight, timeout_s))

    def admit_acts(self, server: Server, weight: int, timeout_s: float) -> Acts:
        """See ports.acts. The weight comes first, so that the server never takes more than its share for a moment."""
        name = f"{server.backend}/{server.name}"
        return self._commands(timeout_s, f"set server {name} weight {weight}%", f"set server {name} state ready")

    def hold(self, server: Server, bound: HoldBound, timeout_s: float) -> None:
        """See ports.traffic. A reload forgets a hold: its new process lets everything through."""
        run(self.hold_acts(server, bound, timeout_s))

    def hold_acts(self, server: Server, bound: HoldBound, timeout_s: float) -> Acts:
        """See ports.acts."""
        end_s = monotonic() + timeout_s
        for place in self._sockets:
            if server.backend not in _holds(place, end_s):
                raise PermanentDriverError(
                    f"the proxy can't hold the requests of backend {server.backend}",
                    where=str(place),
                    why="they don't pass through hold.lua, or none has come since the proxy was started",
                    remedy=f"in haproxy.cfg: `lua-load …/hold.lua` in global, `http-request lua.rollout_hold` in backend {server.backend}",
                )
        left_s = max(0.0, end_s - monotonic())
        return self._commands(left_s, f"rollout-hold {server.backend} {bound.hold_s:g} {bound.hold_max}")

    def let_go(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        run(self.let_go_acts(server, timeout_s))

    def let_go_acts(self, server: Server, timeout_s: float) -> Acts:
        """See ports.acts."""
        return self._commands(timeout_s, f"rollout-let-go {server.backend}")

    def pools(self, backends: Collection[str], timeout_s: float) -> dict[str, PoolSighting]:
        """See ports.traffic. Of several proxies the counts are added up, and all of them must be able to hold."""
        end_s = monotonic() + timeout_s
        joined: dict[str, PoolSighting] = {}
        for number, place in enumerate(self._sockets):
            with _understood(place):
                seen = _pools_at(place, backends, end_s)
            joined = seen if number == 0 else {name: _both_pools(joined[name], seen[name]) for name in joined if name in seen}
        return joined

    def known(self, timeout_s: float) -> frozenset[Server]:
        """See ports.traffic."""
        end_s = monotonic() + timeout_s
        return frozenset.intersection(*(_servers_at(place, end_s) for place in self._sockets))

    def limits(self, timeout_s: float) -> ProxyLimits:
        """See ports.traffic."""
        end_s = monotonic() + timeout_s
        found = [_limits_at(place, end_s) for place in self._sockets]
        return min(found, key=lambda one: one.connections_max - one.connections)

    def _held(self, backends: Collection[str], end_s: float) -> dict[str, dict[str, Any]]:
        """Say of backends whether every proxy holds them, and what holding has come to."""
        if not backends:
            return {}
        rows: list[dict[str, HoldSighting]] = []
        for place in self._sockets:
            with _understood(place):
                rows.append({name: _hold_of(row) for name, row in _holds(place, end_s).items() if name in backends})
        return {
            name: {
                "held": all(name in row and row[name].held_for_s is not None for row in rows),
                "hold": reduce(_both_holds, (row.get(name, HoldSighting()) for row in rows)),
            }
            for name in backends
        }

    def _commands(self, timeout_s: float, *commands: str) -> Acts:
        sockets = [str(place.absolute()) for place in self._sockets]
        return ({"kind": "haproxy", "sockets": sockets, "commands": list(commands), "timeout_s": timeout_s},)

    def _old_sessions(self, end_s: float) -> dict[tuple[str, str], int] | None:
        """Count sessions that old processes still hold; None when one of them can't be asked."""
        if self._master is None:
            return {}
        held: dict[tuple[str, str], int] = {}
        try:
            for pid in _old_workers(read(self._master, "show proc", "#<PID>", end_s)):
                for key, row in _stats(read(self._master, f"@!{pid} show stat", "# pxname,", end_s)).items():
                    held[key] = held.get(key, 0) + int(row["scur"] or 0)
        except (DriverError, ValueError, LookupError, csv.Error):
            return None
        return held


def _look_at(place: Path, servers: Mapping[WorkerId, Server], end_s: float) -> dict[WorkerId, ProxySighting]:
    """See what the process that listens there knows."""
    states_text, stats_text = read(place, "show servers state", "# be_id", end_s), read(place, "show stat", "# pxname,", end_s)
    with _understood(place):
        states = {(row["be_name"], row["srv_name"]): row for row in _states(states_text)}
        stats = _stats(stats_text)
        places = {worker: (server.backend, server.name) for worker, server in servers.items()}
        return {worker: _sighting(states[key], stats[key]) for worker, key in places.items() if key in states and key in stats}


def _servers_at(place: Path, end_s: float) -> frozenset[Server]:
    text = read(place, "show servers state", "# be_id", end_s)
    with _understood(place):
        return frozenset(Server(row["be_name"], row["srv_name"]) for row in _states(text))


@contextmanager
def _understood(place: Path) -> Iterator[None]:
    """Tell of an answer that begins well and then makes no sense."""
    try:
        yield
    except (ValueError, LookupError, csv.Error) as error:
        raise PermanentDriverError("the proxy's answer makes no sense", where=str(place), why=reason_of(error)) from error


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
        requests=(one.requests or 0) + (other.requests or 0),
        cuts=(one.cuts or 0) + (other.cuts or 0),
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


def _holds(place: Path, end_s: float) -> dict[str, dict[str, str]]:
    """Read what hold.lua says of each backend; nothing where it isn't loaded."""
    answer = read(place, "rollout-holds", "", end_s)
    if not answer.startswith(_HOLDS):
        return {}
    return {row["backend"]: row for row in csv.DictReader(answer.removeprefix("# ").strip().splitlines())}


def _pools_at(place: Path, backends: Collection[str], end_s: float) -> dict[str, PoolSighting]:
    stats = _stats(read(place, "show stat", "# pxname,", end_s))
    holds = _holds(place, end_s)
    loaded = read(place, "rollout-holds", "", end_s).startswith(_HOLDS)
    algorithms = {name: _algorithm(stats.get((name, "BACKEND"), {})) for name in backends}
    points = _hash_points(place, end_s) if not UNHASHED.issuperset(algorithms.values()) else {}
    found: dict[str, PoolSighting] = {}
    for name in backends:
        row = stats.get((name, "BACKEND"))
        if row is None:
            continue
        hold = holds.get(name)
        requests = int(row["stot"] or 0)
        found[name] = PoolSighting(
            requests=requests,
            arrivals_per_s=float(row["rate"] or 0),
            # Where nothing has come yet, nothing tells whether it would pass through the hold.
            can_hold=hold is not None or (loaded and requests == 0),
            algorithm=algorithms[name],
            hash_points=0 if algorithms[name] in UNHASHED else points.get(name, 0),
            **({} if hold is None else _in_pool(_hold_of(hold))),
        )
    return found


def _algorithm(row: Mapping[str, str]) -> str:
    # `random` is "unknown" there (2.8).
    said = row.get("algo") or ""
    return "" if said == "unknown" else said


def _hash_points(place: Path, end_s: float) -> dict[str, int]:
    """Count the points on the ring of each backend's lightest server (with `hash-type consistent`, which is nowhere told)."""
    points: dict[str, int] = {}
    for row in _states(read(place, "show servers state", "# be_id", end_s)):
        if weight := int(row["srv_iweight"]):
            points[row["be_name"]] = min(weight * POINTS_PER_WEIGHT, points.get(row["be_name"], sys.maxsize))
    return points


def _hold_of(row: Mapping[str, str]) -> HoldSighting:
    return HoldSighting(
        held_for_s=float(row["held_for_s"]) if row["held_for_s"] else None,
        waiting=int(row["waiting"]),
        waiting_max=int(row["waiting_max"]),
        shed=int(row["shed"]),
        let_go_late=int(row["late"]),
    )


def _both_holds(one: HoldSighting, other: HoldSighting) -> HoldSighting:
    return HoldSighting(
        held_for_s=max((seconds for seconds in (one.held_for_s, other.held_for_s) if seconds is not None), default=None),
        waiting=one.waiting + other.waiting,
        waiting_max=one.waiting_max + other.waiting_max,
        shed=one.shed + other.shed,
        let_go_late=one.let_go_late + other.let_go_late,
    )


def _in_pool(hold: HoldSighting) -> dict[str, Any]:
    return {"held": hold.held_for_s is not None, "hold": hold}


def _both_pools(one: PoolSighting, other: PoolSighting) -> PoolSighting:
    return PoolSighting(
        requests=(one.requests or 0) + (other.requests or 0),
        arrivals_per_s=(one.arrivals_per_s or 0.0) + (other.arrivals_per_s or 0.0),
        can_hold=one.can_hold and other.can_hold,
        held=one.held and other.held,
        hold=_both_holds(one.hold, other.hold),
        # One that hashes, or that doesn't say, decides for both.
        algorithm=min(one.algorithm, other.algorithm, key=lambda algorithm: (algorithm in UNHASHED, algorithm)),
        hash_points=min((one.hash_points, other.hash_points), key=lambda points: (points == 0, points)),
    )


def _limits_at(place: Path, end_s: float) -> ProxyLimits:
    text = read(place, "show info", "Maxconn:", end_s)
    info = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    with _understood(place):
        connections = int(info["CurrConns"])
        # Each connection of a client has one to a server beside it, while it is answered.
        return ProxyLimits(connections, int(info["Maxconn"]), 2 * connections, int(info["Ulimit-n"]))
