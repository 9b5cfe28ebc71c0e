"""
HAProxy through its runtime API, on this machine or on hosts; in pods of a cluster (`pods`) see haproxy_pods.py.

Servers are read from `show servers state` (who may take requests) and `show stat` (sessions and counters), by the names in their headers.
After a reload the old process keeps its sessions and the new one doesn't count them, so the master is asked for old processes and each of
them for its sessions; where one can't be asked, the number of sessions is unknown.

Of several proxies all are asked, each host in one round trip. All must answer: what one that is silent does with a server nobody knows.
What keeps requests away is told to one after the other, once all have been reached; what lets them through to each that can be told.

What is set at run time is forgotten by a reload. Source: HAProxy's management guide, sections 9.1 (CSV), 9.3 (socket commands), 9.4
(master CLI).
"""

import csv
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from pathlib import Path
from time import monotonic  # noqa: TID251  (how long a proxy takes, whatever clock a rollout goes by)
from typing import TYPE_CHECKING, Any

from rollout.adapters.ssh_shared import Hosts
from rollout.adapters.traffic.haproxy_settings import read_settings
from rollout.adapters.traffic.holds import both_holds
from rollout.adapters.traffic.places import Here, Place, There, into_traffic, out_of_traffic
from rollout.adapters.traffic.runtime_api import Answers, Sockets, ask
from rollout.adapters.wording import reason_of
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import HoldBound
from rollout.model.sighting import HoldSighting, PoolSighting, ProxyLimits, ProxySighting
from rollout.ports.acts import Acts, at_hosts
from rollout.ports.traffic import Server

if TYPE_CHECKING:
    from rollout.adapters.traffic.haproxy_pods import HaproxiesInPods

# Any of these bits in srv_admin_state keeps new requests away: maintenance or drain, forced, inherited, or from the configuration. 0x20 is
# left aside: its name has no address at the moment (`resolvers`). That is nobody's decision, ends by itself, and it is down meanwhile.
ADMIN_OUT = 0x5F
# srv_op_state: 1 is coming up through slow start, 2 is up, 3 is up and finishing.
OPERATIONAL = frozenset({"1", "2", "3"})
COUNTERS = ("econ", "eresp", "srv_abrt", "cli_abrt", "wretr", "wredis", "hrsp_5xx")
# Ways to choose a server in which nothing is hashed, as `show stat` calls them; "" where it doesn't say.
UNHASHED = frozenset({"roundrobin", "static-rr", "leastconn", "first", ""})
# Of a server on the ring, for each unit of its weight (BE_WEIGHT_SCALE).
POINTS_PER_WEIGHT = 16
_HOLDS = "# backend,"
# What is asked, and what must be in the answer.
_STATES = {"show servers state": "# be_id"}
_STATS = {"show stat": "# pxname,"}
_INFO = {"show info": "Maxconn:"}
# Where hold.lua isn't loaded it is unknown, which is an answer too.
_HOLDING = {"rollout-holds": ""}


def build(settings: Mapping[str, object], inventory: Inventory) -> "Haproxies | HaproxiesInPods":
    """Open the driver; nothing is connected yet."""
    held = frozenset(pool.backend for pool in inventory.pools.values() if pool.hold)
    if "pods" in settings:
        from rollout.adapters.traffic import haproxy_pods  # noqa: PLC0415  (only those with a cluster need what it imports)

        return haproxy_pods.build(settings, inventory, held)
    checked = read_settings(settings, inventory)
    here, on_hosts = checked.by_place()
    if not on_hosts:
        return Haproxy([Path(one) for one in here.sockets], None, held, [Path(one) for one in here.masters])
    reached = Hosts(checked.hosts, checked.connect_timeout_s)
    everywhere = [Sockets(Here(), here.sockets, here.masters)] if here.sockets else []
    for name, one in on_hosts.items():
        place = There(name, checked.hosts[name].user, reached, checked.python)
        everywhere.append(Sockets(place, one.sockets, one.masters))
    return Haproxies(everywhere, held)


class Haproxies:
    """See ports.traffic, and ports.acts.TrafficActs."""

    def __init__(self, everywhere: Sequence[Sockets], may_be_held: Collection[str] = ()) -> None:
        self._everywhere = tuple(everywhere)
        self._places = {one.place.name: one.place for one in everywhere}
        self._may_be_held = frozenset(may_be_held)

    def look(self, servers: Mapping[WorkerId, Server], timeout_s: float) -> dict[WorkerId, ProxySighting]:
        """See ports.traffic."""
        held = self._may_be_held & {server.backend for server in servers.values()}
        commands = {**_STATES, **_STATS, **(_HOLDING if held else {})}
        asked = ask(self._everywhere, commands, monotonic() + timeout_s, old=True)
        joined, *others = [_look_at(answers, servers) for answers in asked.proxies]
        for seen in others:
            joined = {worker: _both(sighting, seen[worker]) for worker, sighting in joined.items() if worker in seen}
        old = _old_sessions(asked.old)
        holds = _held(asked.proxies, {servers[worker].backend for worker in joined} & held)
        return {
            worker: replace(_with_old(sighting, old, servers[worker]), **holds.get(servers[worker].backend, {}))
            for worker, sighting in joined.items()
        }

    def drain(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        out_of_traffic(self._places, self._drain(server, timeout_s), monotonic() + timeout_s, self._reach(timeout_s))

    def drain_acts(self, server: Server, timeout_s: float) -> Acts:
        """See ports.acts."""
        return at_hosts(self._drain(server, timeout_s))

    def _drain(self, server: Server, timeout_s: float) -> dict[str, Acts]:
        return self._commands(timeout_s, f"set server {server.backend}/{server.name} state drain")

    def admit(self, server: Server, weight: int, timeout_s: float) -> None:
        """See ports.traffic."""
        into_traffic(self._places, self._admit(server, weight, timeout_s), monotonic() + timeout_s)

    def admit_acts(self, server: Server, weight: int, timeout_s: float) -> Acts:
        """See ports.acts."""
        return at_hosts(self._admit(server, weight, timeout_s))

    def _admit(self, server: Server, weight: int, timeout_s: float) -> dict[str, Acts]:
        """The weight comes first, so that the server never takes more than its share for a moment."""
        name = f"{server.backend}/{server.name}"
        return self._commands(timeout_s, f"set server {name} weight {weight}%", f"set server {name} state ready")

    def hold(self, server: Server, bound: HoldBound, timeout_s: float) -> None:
        """See ports.traffic. A reload forgets a hold: its new process lets everything through."""
        end_s = monotonic() + timeout_s
        acts = self._hold(server, bound, timeout_s)
        out_of_traffic(self._places, acts, end_s, self._reach(timeout_s))

    def hold_acts(self, server: Server, bound: HoldBound, timeout_s: float) -> Acts:
        """See ports.acts."""
        return at_hosts(self._hold(server, bound, timeout_s))

    def _hold(self, server: Server, bound: HoldBound, timeout_s: float) -> dict[str, Acts]:
        end_s = monotonic() + timeout_s
        for answers in ask(self._everywhere, _HOLDING, end_s).proxies:
            if server.backend not in _holds(answers):
                raise PermanentDriverError(
                    f"the proxy can't hold the requests of backend {server.backend}",
                    where=answers.where,
                    why="they don't pass through hold.lua, or none has come since the proxy was started",
                    remedy=f"in haproxy.cfg: `lua-load …/hold.lua` in global, `http-request lua.rollout_hold` in backend {server.backend}",
                )
        left_s = max(0.0, end_s - monotonic())
        return self._commands(left_s, f"rollout-hold {server.backend} {bound.hold_s:g} {bound.hold_max}")

    def let_go(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        into_traffic(self._places, self._let_go(server, timeout_s), monotonic() + timeout_s)

    def let_go_acts(self, server: Server, timeout_s: float) -> Acts:
        """See ports.acts."""
        return at_hosts(self._let_go(server, timeout_s))

    def _let_go(self, server: Server, timeout_s: float) -> dict[str, Acts]:
        return self._commands(timeout_s, f"rollout-let-go {server.backend}")

    def pools(self, backends: Collection[str], timeout_s: float) -> dict[str, PoolSighting]:
        """See ports.traffic. Of several proxies the counts are added up, and all of them must be able to hold."""
        asked = ask(self._everywhere, {**_STATES, **_STATS, **_HOLDING}, monotonic() + timeout_s)
        joined, *others = [_pools_at(answers, backends) for answers in asked.proxies]
        for seen in others:
            joined = {name: _both_pools(pool, seen[name]) for name, pool in joined.items() if name in seen}
        return joined

    def known(self, timeout_s: float) -> frozenset[Server]:
        """See ports.traffic."""
        asked = ask(self._everywhere, _STATES, monotonic() + timeout_s)
        return frozenset.intersection(*(_servers_at(answers) for answers in asked.proxies))

    def limits(self, timeout_s: float) -> ProxyLimits:
        """See ports.traffic."""
        found = [_limits_at(answers) for answers in ask(self._everywhere, _INFO, monotonic() + timeout_s).proxies]
        return min(found, key=lambda one: one.connections_max - one.connections)

    def close(self) -> None:
        """End the connections to hosts that no other driver uses."""
        for place in self._places.values():
            place.close()

    def _reach(self, timeout_s: float) -> Callable[[Place], object]:
        end_s = monotonic() + timeout_s
        at = {one.place.name: one for one in self._everywhere}
        return lambda place: ask([at[place.name]], _INFO, end_s)

    def _commands(self, timeout_s: float, *commands: str) -> dict[str, Acts]:
        told = {"kind": "haproxy", "commands": list(commands), "timeout_s": timeout_s}
        return {one.place.name: ({**told, "sockets": list(one.sockets)},) for one in self._everywhere}


class Haproxy(Haproxies):
    """On this machine alone."""

    def __init__(
        self, sockets: Sequence[Path], master: Path | None, may_be_held: Collection[str] = (), masters: Sequence[Path] = ()
    ) -> None:
        every = [*masters, *([] if master is None else [master])]
        here = Sockets(Here(), tuple(str(one.absolute()) for one in sockets), tuple(str(one.absolute()) for one in every))
        super().__init__([here], may_be_held)


def _old_sessions(statistics: Sequence[str] | None) -> dict[tuple[str, str], int] | None:
    """Count sessions that old processes still hold; None when one of them can't be asked."""
    if statistics is None:
        return None
    held: dict[tuple[str, str], int] = {}
    try:
        for text in statistics:
            for key, row in _stats(text).items():
                held[key] = held.get(key, 0) + int(row["scur"] or 0)
    except (ValueError, LookupError, csv.Error):
        return None
    return held


def _held(proxies: Sequence[Answers], backends: Collection[str]) -> dict[str, dict[str, Any]]:
    """Say of backends whether every proxy holds them, and what holding has come to."""
    rows: list[dict[str, HoldSighting]] = []
    for answers in proxies if backends else ():
        with _understood(answers.where):
            rows.append({name: _hold_of(row) for name, row in _holds(answers).items() if name in backends})
    return {
        name: {
            "held": all(name in row and row[name].held_for_s is not None for row in rows),
            "hold": reduce(both_holds, (row.get(name, HoldSighting()) for row in rows)),
        }
        for name in backends
    }


def _look_at(answers: Answers, servers: Mapping[WorkerId, Server]) -> dict[WorkerId, ProxySighting]:
    """See what the process that listens there knows."""
    with _understood(answers.where):
        states = {(row["be_name"], row["srv_name"]): row for row in _states(answers)}
        stats = _stats(answers.texts["show stat"])
        places = {worker: (server.backend, server.name) for worker, server in servers.items()}
        return {worker: _sighting(states[key], stats[key]) for worker, key in places.items() if key in states and key in stats}


def _servers_at(answers: Answers) -> frozenset[Server]:
    with _understood(answers.where):
        return frozenset(Server(row["be_name"], row["srv_name"]) for row in _states(answers))


@contextmanager
def _understood(where: str) -> Iterator[None]:
    """Tell of an answer that begins well and then makes no sense."""
    try:
        yield
    except (ValueError, LookupError, csv.Error) as error:
        raise PermanentDriverError("the proxy's answer makes no sense", where=where, why=reason_of(error)) from error


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


def _states(answers: Answers) -> list[dict[str, str]]:
    _, _, table = answers.texts["show servers state"].partition("# ")
    header, *lines = table.splitlines()
    rows = (dict(zip(header.split(), line.split(), strict=False)) for line in lines)
    return [row for row in rows if "srv_iweight" in row]


def _stats(text: str) -> dict[tuple[str, str], dict[str, str]]:
    rows = csv.DictReader(text.removeprefix("# ").strip().splitlines())
    return {(row["pxname"], row["svname"]): row for row in rows if row.get("scur") is not None}


def _holds(answers: Answers) -> dict[str, dict[str, str]]:
    """Read what hold.lua says of each backend; nothing where it isn't loaded."""
    answer = answers.texts["rollout-holds"]
    if not answer.startswith(_HOLDS):
        return {}
    return {row["backend"]: row for row in csv.DictReader(answer.removeprefix("# ").strip().splitlines())}


def _pools_at(answers: Answers, backends: Collection[str]) -> dict[str, PoolSighting]:
    with _understood(answers.where):
        stats, holds = _stats(answers.texts["show stat"]), _holds(answers)
        loaded = answers.texts["rollout-holds"].startswith(_HOLDS)
        points = _hash_points(answers)
        rows = {name: row for name in backends if (row := stats.get((name, "BACKEND"))) is not None}
        return {name: _pool(row, holds.get(name), points.get(name, 0), loaded=loaded) for name, row in rows.items()}


def _pool(row: Mapping[str, str], hold: Mapping[str, str] | None, points: int, *, loaded: bool) -> PoolSighting:
    requests, algorithm = int(row["stot"] or 0), _algorithm(row)
    return PoolSighting(
        requests=requests,
        arrivals_per_s=float(row["rate"] or 0),
        # Where nothing has come yet, nothing tells whether it would pass through the hold.
        can_hold=hold is not None or (loaded and requests == 0),
        algorithm=algorithm,
        hash_points=0 if algorithm in UNHASHED else points,
        **({} if hold is None else _in_pool(_hold_of(hold))),
    )


def _algorithm(row: Mapping[str, str]) -> str:
    # `random` is "unknown" there (2.8).
    said = row.get("algo") or ""
    return "" if said == "unknown" else said


def _hash_points(answers: Answers) -> dict[str, int]:
    """Count the points on the ring of each backend's lightest server (with `hash-type consistent`, which is nowhere told)."""
    points: dict[str, int] = {}
    for row in _states(answers):
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


def _in_pool(hold: HoldSighting) -> dict[str, Any]:
    return {"held": hold.held_for_s is not None, "hold": hold}


def _both_pools(one: PoolSighting, other: PoolSighting) -> PoolSighting:
    return PoolSighting(
        requests=(one.requests or 0) + (other.requests or 0),
        arrivals_per_s=(one.arrivals_per_s or 0.0) + (other.arrivals_per_s or 0.0),
        can_hold=one.can_hold and other.can_hold,
        held=one.held and other.held,
        hold=both_holds(one.hold, other.hold),
        # One that hashes, or that doesn't say, decides for both.
        algorithm=min(one.algorithm, other.algorithm, key=lambda algorithm: (algorithm in UNHASHED, algorithm)),
        hash_points=min((one.hash_points, other.hash_points), key=lambda points: (points == 0, points)),
    )


def _limits_at(answers: Answers) -> ProxyLimits:
    info = dict(line.split(": ", 1) for line in answers.texts["show info"].splitlines() if ": " in line)
    with _understood(answers.where):
        connections = int(info["CurrConns"])
        # Each connection of a client has one to a server beside it, while it is answered.
        return ProxyLimits(connections, int(info["Maxconn"]), 2 * connections, int(info["Ulimit-n"]))
