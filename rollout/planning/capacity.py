"""
Could the others carry it? What the siblings of a worker come to while it is out, from how busy they are measured to be.

A Synapse worker is one thread, so its CPU seconds per second say how full it is, and near 1.0 its queue grows faster than its load: from
.60 to .90 requests take four times as long. With even routing each of the others takes an equal part of what the drained worker carried.
With hashing each of its points on the ring falls to whoever is next, so that by chance one sibling gets more than the others: reckoned
with is the most that one gets in 95 % of all rings. A map-based hash reshuffles everybody; that divides more evenly, so the same bound
holds. The share of a SHARDED role falls to nobody: it waits, and the worker works it off when it is back.

Source: the queue is Kingman's, `P(W > t) ≈ u·e^(−2(1−u)t / ((1+cv²)·E[S]))`; tests/planning/test_capacity.py holds it against a simulation.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from statistics import NormalDist

from rollout.model.gate import LATENCY_EDGES_S, Tally
from rollout.model.ids import PoolId, WorkerId
from rollout.model.inventory import PoolEntry
from rollout.model.listing import listed
from rollout.model.load import CapacityLimits, Headroom, Load, Routing
from rollout.model.plan import Duty, Worker
from rollout.model.playbook import Playbook
from rollout.model.sighting import PoolSighting
from rollout.planning.forecast import BOOT_S
from rollout.planning.order import Stretch
from rollout.planning.situation import Situation

# HAProxy's words for sending each request to whoever has least, or to the next. (`first` fills one server before another: it isn't here.)
EVEN_ALGORITHMS = frozenset({"roundrobin", "static-rr", "leastconn"})
# Variance of a request's CPU time over its mean squared. Nothing measures it; with 2 the predictions agree with those that were simulated.
CV2 = 2.0
# How far the load of a worker wanders by itself within minutes (measured, as a share: .08 with all others, .05 alone).
LOAD_NOISE = 0.094
# One-sided 95 %: of the normal distribution, and Student's for 2, 3, … degrees of freedom (two windows say too little of their spread).
_Z95 = 1.645
_T95 = (2.92, 2.353, 2.132, 2.015, 1.943, 1.895, 1.86, 1.833, 1.812)
_WINDOWS_MIN = 3
_P95 = 0.05
# Fewer ordinary requests than these have no 95th percentile.
_P95_REQUESTS_MIN = 40
# Of those who were not measured so many are named.
_NAMES_MAX = 5
_NORMAL = NormalDist()


def routing_of(entry: PoolEntry, seen: PoolSighting | None) -> Routing:
    """
    Take the worse of what the inventory and the proxy say. Where neither says anything it is taken to be hashed, which asks for more room.

    A sticky table in front of an even algorithm isn't seen at the proxy: that is what `routing: hash` in the inventory is for.
    """
    algorithm = seen.algorithm if seen is not None else ""
    hashed = entry.routing == "hash" or (algorithm not in EVEN_ALGORITHMS if algorithm else entry.routing is None)
    return Routing(hashed, (seen.hash_points if seen is not None else 0) or Routing().points)


def share_max(routing: Routing, siblings: int) -> float:
    """
    Return the share of a drained worker's load that one of *siblings* gets at most; a bound, by 95 %, where it is hashed.

    A ring of n points has n·s/(s+1) stretches of the drained worker's (points of its own that follow one another are one), of random
    length, and each falls to a random sibling: the variance of one's share p is 2p(1−p) over their number. Its distribution is skewed,
    nearly a gamma one, whose quantile is Wilson and Hilferty's. Users are taken to be alike.
    """
    even = 1 / siblings
    if not routing.hashed or siblings == 1:
        return even
    stretches = routing.points * siblings / (siblings + 1)
    relative = 2 * (1 - even) / even / (stretches + 1)  # variance over the mean squared
    deviations = _NORMAL.inv_cdf(1 - 0.05 / siblings)
    return min(1.0, even * (1 - relative / 9 + deviations * math.sqrt(relative) / 3) ** 3)


def wait_p95(utilisation: float) -> float:
    """Return the 95th percentile of the wait for the CPU, in units of a request's mean CPU time; 0 where fewer than 5 % wait."""
    if utilisation <= _P95:
        return 0.0
    return math.log(utilisation / _P95) * (1 + CV2) / (2 * (1 - utilisation))


def response_p95(utilisation: float) -> float:
    """Return the 95th percentile of wait and service together, in units of a request's mean CPU time. *utilisation* is below 1."""
    # Times (1 − u) it is nearly a straight line, so few points suffice; at 1 it is the queue alone.
    place = utilisation * _GRID
    below = math.floor(place)
    scaled = _scaled_p95(below) + (place - below) * (_scaled_p95(below + 1) - _scaled_p95(below))
    return scaled / (1 - utilisation)


_GRID = 50


@cache
def _scaled_p95(place: int) -> float:
    utilisation = place / _GRID
    if place == _GRID:
        return -math.log(_P95) * (1 + CV2) / 2
    rate = 2 * (1 - utilisation) / (1 + CV2)
    # Service times: lognormal, mean 1.
    spread = math.sqrt(math.log(1 + CV2))
    services = [math.exp(spread * _NORMAL.inv_cdf((index + 0.5) / 200) - spread * spread / 2) for index in range(200)]
    low, high = 0.0, services[-1] + 2 * math.log(1 / _P95) / rate
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        later = sum(1.0 if one > middle else utilisation * math.exp(-rate * (middle - one)) for one in services) / len(services)
        low, high = (middle, high) if later > _P95 else (low, middle)
    return high * (1 - utilisation)


def p95_ratio(now: float, then: float, load: Load) -> float | None:
    """
    Return how many times as long requests take (95th percentile) at *then* than at *now*; None where the queue only grows.

    What a request spends elsewhere (database, other workers) doesn't grow with the wait for the CPU: where the 95th percentile is
    measured, the longer wait is added to that, and a request that is nothing but CPU time remains the most that is reckoned with.
    """
    if then >= 1 or now >= 1:
        return None
    ratio = response_p95(then) / response_p95(now)
    if load.p95_s is not None and load.p95_s > 0:
        ratio = min(ratio, 1 + (wait_p95(then) - wait_p95(now)) * load.request_cpu_s / load.p95_s)
    return max(1.0, ratio)


def load_of(tallies: Sequence[Tally], source: str) -> Load | None:
    """Sum up what was measured of one worker, a window each; None where that is nothing."""
    lasting = [tally for tally in tallies if tally.until_s > tally.since_s]
    if not lasting:
        return None
    requests = sum(tally.requests + tally.polls for tally in lasting)
    cpu_s = sum(tally.cpu_s for tally in lasting)
    counts = [sum(bucket) for bucket in zip(*(tally.latency for tally in lasting), strict=True)]
    utilisation = tuple(tally.cpu_s / (tally.until_s - tally.since_s) for tally in lasting)
    seconds = sum(tally.until_s - tally.since_s for tally in lasting)
    ordinary_per_s = sum(tally.requests for tally in lasting) / seconds
    p95_s = _p95_of(counts)
    failed = sum(tally.errors for tally in lasting) / requests if requests else None
    return Load(utilisation, requests, cpu_s / requests if requests else 0.0, p95_s, source, requests / seconds, ordinary_per_s, failed)


def _p95_of(counts: Sequence[float]) -> float | None:
    """Interpolate within the bucket; None where there are too few, or where it lies above the last edge."""
    total = sum(counts)
    if total < _P95_REQUESTS_MIN:
        return None
    left, lower = (1 - _P95) * total, 0.0
    for count, upper in zip(counts, LATENCY_EDGES_S, strict=False):
        if count >= left:
            return lower + (upper - lower) * (left / count if count else 0.0)
        left, lower = left - count, upper
    return None


def predict(out: Sequence[WorkerId], siblings: Sequence[WorkerId], loads: Mapping[WorkerId, Load], routing: Routing) -> Headroom:
    """Say what the busiest of *siblings* comes to when those of *out* go out, all of one pool."""
    if unmeasured := [worker for worker in (*out, *siblings) if worker not in loads]:
        names = sorted(unmeasured)
        whose = f"how busy {listed(names, _NAMES_MAX)} {'is' if len(unmeasured) == 1 else 'are'}"
        return Headroom(unknown=f"{whose if len(unmeasured) < len(out) + len(siblings) else 'how busy they are'} has not been measured")
    if not siblings:
        return Headroom(unknown="nobody is left to take its load")
    share = share_max(routing, len(siblings))
    windows = min(len(loads[worker].utilisation) for worker in (*out, *siblings))
    drained = [sum(loads[worker].utilisation[index - windows] for worker in out) for index in range(windows)]
    worst = Headroom(then_max=-1.0)
    slowest: float | None = 1.0
    drained_requests = sum(loads[worker].requests for worker in out)
    for sibling in siblings:
        own = loads[sibling].utilisation[-windows:]
        then = [mine + share * theirs for mine, theirs in zip(own, drained, strict=True)]
        requests = loads[sibling].requests + share * drained_requests
        before, after = _mean(own), _mean(then)
        ratio = p95_ratio(before, after, loads[sibling])
        slowest = None if ratio is None or slowest is None else max(slowest, ratio)
        one = Headroom(sibling, before, after, _upper(then, requests))
        worst = one if one.then_max > worst.then_max else worst
    sources = dict.fromkeys(loads[worker].source for worker in (*out, *siblings))
    return replace(worst, p95_ratio=slowest, how=_how(routing, share, len(siblings)), source=" and ".join(sources))


def _mean(windows: Sequence[float]) -> float:
    # That of `statistics` is exact, and takes twenty times as long: a plan for a thousand workers would show it.
    return sum(windows) / len(windows)


def _upper(windows: Sequence[float], requests: float) -> float:
    """
    Return the upper 95 % bound of the mean: from the windows' own spread, if there are enough of them.

    Otherwise by assumption: each request's CPU time varies by CV2, and the load wanders by LOAD_NOISE.
    """
    if len(windows) >= _WINDOWS_MIN:
        average = _mean(windows)
        spread = sum((one - average) ** 2 for one in windows) / (len(windows) - 1)
        student = _T95[min(len(windows) - _WINDOWS_MIN, len(_T95) - 1)]
        return average + student * math.sqrt(spread / len(windows))
    deviation = math.sqrt((1 + CV2) / max(1.0, requests) + LOAD_NOISE**2)
    return _mean(windows) * (1 + _Z95 * deviation)


def _how(routing: Routing, share: float, siblings: int) -> str:
    if siblings == 1:
        return "which takes over all of it"
    return (
        f"hashed: one of {siblings} may inherit up to {100 * share:.0f} %"
        if routing.hashed
        else f"each of {siblings} takes {100 * share:.0f} % of it"
    )


def refusal(worker: WorkerId, room: Headroom, limits: CapacityLimits) -> str:
    """Say why a worker's siblings couldn't do without it; "" when they could, as far as is known and the playbook asks."""
    if room.unknown:
        return f"{worker}: what its siblings could carry is not known ({room.unknown}; capacity.require)" if limits.require else ""
    if room.sibling is None:
        return ""
    while_out = f"while {worker} is out"
    if room.then_max > limits.utilisation_max:
        most = f"{100 * limits.utilisation_max:.0f} % is the most (capacity.utilisation_max)"
        return f"{while_out}, {room.sibling} would use up to {_five(room.then_max)} % of its core, and {most}"
    if limits.p95_ratio_max is not None and (room.p95_ratio is None or room.p95_ratio > limits.p95_ratio_max):
        longer = "longer and longer" if room.p95_ratio is None else f"up to {math.ceil(2 * room.p95_ratio) / 2:g} × as long"
        most = f"{limits.p95_ratio_max:g} × is the most (capacity.p95_ratio_max)"
        return f"{while_out}, its siblings' requests would take {longer} (95th percentile), and {most}"
    return ""


def warning(worker: WorkerId, room: Headroom, limits: CapacityLimits) -> str:
    """Say that it will be narrow; "" where it won't, and where nothing is known."""
    if room.unknown or room.sibling is None or room.then_max <= limits.warn_above:
        return ""
    return f"while {worker} is out, {room.sibling} may use up to {_five(room.then_max)} % of its core"


def _five(share: float) -> int:
    # In steps of five: a sentence that changed with every look would be said again with every look.
    return 5 * math.ceil(20 * share - 1e-9)


def limits_of(playbook: Playbook) -> CapacityLimits:
    """Return what the playbook allows."""
    entry = playbook.capacity
    return CapacityLimits(entry.utilisation_max, entry.p95_ratio_max, entry.warn_above, entry.require)


def of_plan(situation: Situation, stretches: Sequence[Stretch]) -> dict[WorkerId, Headroom]:
    """Predict for every worker that the plan takes out of traffic."""
    return {worker: room for stretch in stretches for row in stretch.rows for worker, room in of_row(row, situation).items()}


def of_row(row: Sequence[Worker], situation: Situation) -> dict[WorkerId, Headroom]:
    """Predict for those of a wave, who go out together."""
    return {worker.id: room for worker in row if (room := _of_worker(worker, row, situation)) is not None}


def _of_worker(worker: Worker, row: Sequence[Worker], situation: Situation) -> Headroom | None:
    """Predict for one; None for those whose going out changes nothing: they are out already, or it isn't known and nobody would inherit."""
    loads = situation.observation.loads
    if situation.standings[worker.id].ours:
        return None
    if worker.duty is not Duty.REPLACEABLE or worker.pool is None:
        return _alone(loads[worker.id]) if worker.id in loads else None
    out = [other.id for other in row if other.pool == worker.pool]
    siblings = [other for other in situation.members(worker.pool) if other not in out and not situation.standings[other].foreign]
    return predict(out, siblings, loads, _routing(worker.pool, situation))


def _routing(pool: PoolId, situation: Situation) -> Routing:
    return routing_of(situation.inventory.pools[pool], situation.observation.pools.get(pool))


def routings(situation: Situation) -> dict[PoolId, Routing]:
    """Say of every pool how its requests find their worker."""
    return {pool: _routing(pool, situation) for pool in situation.inventory.pools}


def _alone(load: Load) -> Headroom:
    """Nobody inherits: what comes in during its boot waits, and is worked off with what it has to spare."""
    busy = _mean(load.utilisation)
    if busy >= 1:
        how = "nobody takes over, and it has nothing to spare for what waits meanwhile"
    else:
        how = f"nobody takes over: after {BOOT_S:g} s of boot it takes about {BOOT_S * busy / (1 - busy):.0f} s more to catch up"
    return Headroom(None, busy, busy, _upper(load.utilisation, load.requests), how=how, source=load.source)


def refusals(rooms: Mapping[WorkerId, Headroom], limits: CapacityLimits) -> Iterator[str]:
    """Say who can't be spared, and what helps."""
    narrow = {worker: why for worker, room in rooms.items() if (why := refusal(worker, room, limits))}
    yield from narrow.values()
    if any(not rooms[worker].unknown for worker in narrow):
        yield "too little is left without them: roll when less comes in, add a worker to the pool, or allow more in the playbook's capacity"


def notes(rooms: Mapping[WorkerId, Headroom], limits: CapacityLimits) -> Iterator[str]:
    """Say where it will be narrow; of a way back, which is never forbidden, also where it would be too much."""
    yield from (why for worker, room in rooms.items() if (why := refusal(worker, room, limits) or warning(worker, room, limits)))
