"""
Whose requests wait in the proxy while it restarts, and whether so many may wait there.

Whatever waits keeps a connection and a file of the proxy's open, and a second one once it is let go. An hour's requests behind a hold
that nobody ends would be the overload that this tool was made for, so the bound is in the proxy, and a rollout whose hold would outgrow
it, or the proxy, is refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rollout.model.plan import Duty, HoldBound, Worker
from rollout.model.sighting import PoolSighting, ProxyLimits
from rollout.planning.forecast import BOOT_S
from rollout.planning.situation import Situation

# A second's arrivals are few and vary; the least that is reckoned with is this many times what was seen.
ARRIVALS_MARGIN = 2.0
# What the proxy needs besides: health checks, its own sockets, and whoever comes meanwhile.
LIMIT_SHARE = 0.8
# One to the client, one to the server.
FILES_PER_REQUEST = 2


@dataclass(frozen=True, slots=True)
class Pile:
    """Requests that wait: after a usual boot, and at the most, when the proxy lets go by itself."""

    arrivals_per_s: float
    usual: float
    most: float


def is_held(worker: Worker, situation: Situation) -> bool:
    """Tell whether a worker's requests are held while it restarts."""
    if worker.pool is None or worker.duty is Duty.REPLACEABLE:
        return False
    return situation.inventory.pools[worker.pool].hold


def pile(seen: PoolSighting, hold_s: float) -> Pile | None:
    """Reckon what piles up; None where the proxy doesn't say what comes in."""
    if seen.arrivals_per_s is None:
        return None
    arrivals_per_s = ARRIVALS_MARGIN * seen.arrivals_per_s
    return Pile(seen.arrivals_per_s, seen.arrivals_per_s * BOOT_S, arrivals_per_s * hold_s)


def refusals(rolled: Sequence[Worker], situation: Situation) -> Iterator[str]:
    """Say which hold is impossible, or would be too much for itself or for the proxy."""
    for worker in rolled:
        if worker.pool is None or not is_held(worker, situation):
            continue
        seen = situation.observation.pools.get(worker.pool)
        if seen is None:
            yield _unknown(worker)
        elif not seen.can_hold:
            yield (
                f"{worker.id}: the inventory says that pool {worker.pool} can be held, but its requests don't pass through the hold of the "
                "proxy (hold.lua, and the line that leads to it in the proxy's configuration); mend that, or write hold: false"
            )
        else:
            hold = situation.playbook.strategy.hold
            yield from too_much(worker, seen, situation.observation.proxy, HoldBound(hold.hold_s, hold.hold_max))


def too_much(worker: Worker, seen: PoolSighting, proxy: ProxyLimits | None, hold: HoldBound) -> Iterator[str]:
    """Say what a hold of a worker's pool would be too much for. Asked when it is planned, and again before it begins."""
    piled = pile(seen, hold.hold_s)
    if piled is None:
        yield _unknown(worker)
        return
    whole = f"{ARRIVALS_MARGIN:g} × {piled.arrivals_per_s:.3g} requests a second × hold_s of {hold.hold_s:g} s = {piled.most:.0f}"
    if piled.most > hold.hold_max:
        yield f"{worker.id}: a hold could pile up {whole}, and hold_max is {hold.hold_max}: the others would be refused"
    if proxy is None:
        yield f"{worker.id}: how many connections the proxy may have could not be seen, so nobody knows whether a hold fits"
        return
    if proxy.connections + piled.most > LIMIT_SHARE * proxy.connections_max:
        yield (
            f"{worker.id}: a hold could pile up {whole} beside {proxy.connections} open connections, and the proxy may have "
            f"{proxy.connections_max}: raise its maxconn, or roll when less comes in"
        )
    if proxy.files + FILES_PER_REQUEST * piled.most > LIMIT_SHARE * proxy.files_max:
        yield (
            f"{worker.id}: a hold could pile up {whole}, with {FILES_PER_REQUEST} files each beside {proxy.files} open ones, and the proxy "
            f"may have {proxy.files_max}: raise its ulimit-n, or roll when less comes in"
        )


def _unknown(worker: Worker) -> str:
    return f"{worker.id}: what comes in for pool {worker.pool} could not be seen at the proxy, nor so what a hold would pile up"


def notes(worker: Worker, situation: Situation) -> Iterator[str]:
    """Say what a hold will pile up, against what there is room for; or, where there is no hold, what will be cut."""
    if worker.pool is None or worker.duty is Duty.REPLACEABLE or worker.id in situation.ours:
        return
    seen = situation.observation.pools.get(worker.pool)
    if is_held(worker, situation):
        if seen is not None:
            yield _of_hold(worker, seen, situation)
        return
    alone = f"it is alone in pool {worker.pool}, which has no hold, so nobody takes over"
    expected = ""
    if seen is not None and seen.arrivals_per_s is not None:
        expected = f": about {seen.arrivals_per_s:g} requests a second × {BOOT_S:g} s of boot = {seen.arrivals_per_s * BOOT_S:.0f}"
    elif seen is not None:
        expected = _by_its_own_count(worker, situation)
    yield f"{worker.id} can't be drained ({alone}): requests in flight and those during its boot will be cut{expected}"


def _by_its_own_count(worker: Worker, situation: Situation) -> str:
    """Reckon what is cut where the proxy doesn't count: by the worker's own metrics, and what it has open."""
    load, sighting = situation.observation.loads.get(worker.id), situation.observation.sightings.get(worker.id)
    if load is None or load.requests_per_s is None:
        return " (how many is not known: the proxy doesn't say how many come in, and what the worker answers was not measured)"
    during = load.requests_per_s * BOOT_S
    arriving = f"about {load.requests_per_s:.2g} requests a second × {BOOT_S:g} s of boot = {during:.0f}"
    sessions = None if sighting is None or sighting.proxy is None else sighting.proxy.sessions
    under_way = "" if sessions is None else f", and {sessions} that are open now: {during + sessions:.0f}"
    return f": {arriving}{under_way} (by its own count, which has other workers' requests to it as well: they try again)"


def _of_hold(worker: Worker, seen: PoolSighting, situation: Situation) -> str:
    hold, proxy = situation.playbook.strategy.hold, situation.observation.proxy
    piled = pile(seen, hold.hold_s)
    usual = (
        "how many is not known" if piled is None else f"about {piled.arrivals_per_s:g} a second × {BOOT_S:g} s of boot = {piled.usual:.0f}"
    )
    text = (
        f"{worker.id}'s requests wait at the proxy: {usual}; the proxy lets go by itself after {hold.hold_s:g} s, and refuses "
        f"(503, Retry-After) more than {hold.hold_max}"
    )
    if proxy is None:
        return text
    return f"{text}; it has {proxy.connections} of {proxy.connections_max} connections and {proxy.files} of {proxy.files_max} files open"
