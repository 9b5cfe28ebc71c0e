"""What the others carry while one is out: formulas against a simulation, who inherits what, and what is refused, warned of or unknown."""

import math
import random
from dataclasses import replace
from statistics import NormalDist

import pytest

from rollout.model.errors import RefusedError
from rollout.model.gate import LATENCY_EDGES_S, Metric, Tally
from rollout.model.ids import GateId, PoolId, Role, WorkerId
from rollout.model.inventory import DriverSettings, Inventory, PoolEntry, WorkerEntry
from rollout.model.load import CapacityLimits, Headroom, Load, Routing
from rollout.model.playbook import Capacity, GateEntry, Playbook
from rollout.model.sighting import Observation, PoolSighting
from rollout.planning import capacity
from rollout.planning.digest import digest_of_plan
from rollout.planning.planner import make_plan
from tests.planning.homeserver import NEW, OLD, SCHEMA, sighting

A, B, C, D = (WorkerId(name) for name in "abcd")
EVEN = Routing(hashed=False)
LIMITS = CapacityLimits()


def _load(*utilisation: float, requests: float = 10_000.0, cpu_s: float = 0.01, p95_s: float | None = None) -> Load:
    return Load(utilisation, requests, cpu_s, p95_s, "a test")


def _alike(count: int, utilisation: float) -> dict[WorkerId, Load]:
    return {worker: _load(utilisation, utilisation, utilisation) for worker in (A, B, C, D)[:count]}


# ------------------------------------------------------------------------------------------------------------------- the queue


def _simulated_p95(utilisation: float, seed: int, count: int = 400_000) -> float:
    """Lindley's recursion: one server, Poisson arrivals, lognormal service times of mean 1 and the variance that is assumed."""
    chance = random.Random(seed)
    spread = math.sqrt(math.log(1 + capacity.CV2))
    wait, times = 0.0, []
    for _ in range(count):
        service = chance.lognormvariate(-spread * spread / 2, spread)
        times.append(wait + service)
        wait = max(0.0, wait + service - chance.expovariate(utilisation))
    times.sort()
    return times[int(0.95 * count)]


@pytest.mark.parametrize(("workers", "now", "published"), [(4, 0.45, 1.46), (3, 0.60, 4.24), (2, 0.45, 6.2)])
def test_the_predicted_p95_is_that_of_a_simulated_queue(workers: int, now: float, published: float) -> None:
    """One fewer worker, even routing: within 8 % of a simulation of ours, and of the one that the figures are known from."""
    then = now * workers / (workers - 1)
    predicted = capacity.p95_ratio(now, then, _load(now))
    simulated = sum(_simulated_p95(then, seed) / _simulated_p95(now, seed) for seed in (1, 2)) / 2
    assert predicted == pytest.approx(simulated, rel=0.08)
    assert predicted == pytest.approx(published, rel=0.08)


@pytest.mark.parametrize("utilisation", [0.1, 0.31, 0.5, 0.77, 0.9, 0.949])
def test_between_the_points_that_are_computed_nothing_is_lost(utilisation: float) -> None:
    """The table's straight lines stay within 1 % of the formula itself."""
    rate = 2 * (1 - utilisation) / (1 + capacity.CV2)
    spread = math.sqrt(math.log(1 + capacity.CV2))
    services = [math.exp(spread * NormalDist().inv_cdf((index + 0.5) / 20_000) - spread * spread / 2) for index in range(20_000)]
    found = capacity.response_p95(utilisation)
    later = sum(1.0 if one > found else utilisation * math.exp(-rate * (found - one)) for one in services) / len(services)
    # A hundredth of the time is so much of the chance to be later.
    assert later == pytest.approx(0.05, rel=0.03)


def test_time_spent_elsewhere_does_not_grow_with_the_queue() -> None:
    """Requests of 10 ms of CPU that take 1 s in all hardly notice a fuller worker; ones that are all CPU do."""
    slow = capacity.p95_ratio(0.25, 0.5, _load(0.25, p95_s=1.0))
    assert slow is not None
    assert 1.0 < slow < 1.05
    alone = capacity.p95_ratio(0.25, 0.5, _load(0.25))
    assert alone is not None
    assert alone > 1.5
    # However little was measured: never more than a request that is nothing but CPU.
    assert capacity.p95_ratio(0.25, 0.5, _load(0.25, p95_s=0.001)) == alone


def test_a_worker_that_would_be_full_has_no_p95() -> None:
    assert capacity.p95_ratio(0.5, 1.0, _load(0.5)) is None
    assert capacity.p95_ratio(1.02, 1.5, _load(1.02)) is None


# ----------------------------------------------------------------------------------------------------------------- who inherits


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_even_routing_divides_by_one_fewer(workers: int) -> None:
    """U' = u·k/(k−1)."""
    loads = _alike(workers, 0.3)
    room = capacity.predict([A], [worker for worker in loads if worker != A], loads, EVEN)
    assert room.then == pytest.approx(0.3 * workers / (workers - 1))


def test_the_busiest_sibling_counts() -> None:
    loads = {A: _load(0.3, 0.3, 0.3), B: _load(0.1, 0.1, 0.1), C: _load(0.5, 0.5, 0.5)}
    room = capacity.predict([A], [B, C], loads, EVEN)
    assert (room.sibling, room.now) == (C, 0.5)
    assert room.then == pytest.approx(0.65)


def test_those_of_a_wave_are_out_together() -> None:
    room = capacity.predict([A, B], [C, D], _alike(4, 0.3), EVEN)
    assert room.then == pytest.approx(0.6)


def test_with_one_sibling_hashing_changes_nothing() -> None:
    assert capacity.share_max(Routing(hashed=True), 1) == 1.0


@pytest.mark.parametrize(("points", "siblings"), [(16, 2), (16, 3), (16, 7), (160, 3), (1600, 3)])
def test_the_share_of_a_hashed_inheritor_is_a_bound(points: int, siblings: int) -> None:
    """Of simulated rings, in at most 5 % (and a little chance) does anybody inherit more; and it isn't absurdly wide."""
    chance = random.Random(points + siblings)
    bound, above, rings, shares_max = capacity.share_max(Routing(hashed=True, points=points), siblings), 0, 400, []
    for _ in range(rings):
        ring = sorted((chance.random(), owner) for owner in range(siblings + 1) for _ in range(points))
        shares = [0.0] * siblings
        for index, (at, owner) in enumerate(ring):
            heir = owner
            step = index
            while heir == siblings:
                step += 1
                heir = ring[step % len(ring)][1]
            if owner == siblings:
                shares[heir] += (at - ring[index - 1][0]) % 1
        shares_max.append(max(shares) / sum(shares))
        above += shares_max[-1] > bound
    assert above / rings <= 0.08
    assert bound <= 1.2 * max(shares_max)


@pytest.mark.parametrize(
    ("written", "algorithm", "hashed"),
    [
        (None, "roundrobin", False),
        (None, "leastconn", False),
        (None, "hdr", True),
        (None, "uri", True),
        (None, "first", True),
        ("hash", "roundrobin", True),
        ("even", "hdr", True),
        ("even", "", False),
        ("hash", "", True),
        # Unknown is never taken for the better.
        (None, "", True),
    ],
)
def test_routing_is_the_worse_of_what_is_said(written: str | None, algorithm: str, hashed: bool) -> None:  # noqa: FBT001  (a table)
    entry = PoolEntry.model_validate({"backend": "b", "routing": written})
    assert capacity.routing_of(entry, PoolSighting(0, 0.0, algorithm=algorithm)).hashed is hashed


# ------------------------------------------------------------------------------------------------------------------ how sure it is


def test_windows_that_vary_widen_the_bound() -> None:
    steady = capacity.predict([A], [B], {A: _load(0.3, 0.3, 0.3), B: _load(0.3, 0.3, 0.3)}, EVEN)
    varying = capacity.predict([A], [B], {A: _load(0.2, 0.3, 0.4), B: _load(0.2, 0.3, 0.4)}, EVEN)
    assert steady.then_max == pytest.approx(0.6)
    # .4, .6, .8: mean .6, deviation .2, Student's 2.92 for two degrees of freedom.
    assert varying.then_max == pytest.approx(0.6 + 2.92 * 0.2 / math.sqrt(3))


def test_the_bound_holds_nineteen_times_in_twenty() -> None:
    chance = random.Random(4)
    below = 0
    for _ in range(2000):
        windows = [chance.gauss(0.25, 0.03) for _ in range(6)]
        room = capacity.predict([A], [B], {A: _load(*windows), B: _load(*(chance.gauss(0.25, 0.03) for _ in range(6)))}, EVEN)
        below += room.then_max >= 0.5
    assert 0.935 <= below / 2000 <= 0.965


def test_one_window_is_believed_by_its_requests() -> None:
    """Two thousand requests are known to 17 %, the load's own wandering; ten hardly say anything."""
    many, few = (capacity.predict([A], [B], {A: _load(0.3, requests=n), B: _load(0.3, requests=n)}, EVEN) for n in (1000, 5))
    assert 0.68 < many.then_max < 0.72
    assert few.then_max > 1.1


def test_what_was_measured_becomes_a_load() -> None:
    latency = [0.0] * (len(LATENCY_EDGES_S) + 1)
    latency[3], latency[5] = 90.0, 10.0  # up to 50 ms, and 75 to 100 ms
    tallies = [
        Tally(0.0, 2.0, requests=60, polls=40, latency=tuple(latency), cpu_s=0.5),
        Tally(2.0, 4.0, requests=40, polls=60, cpu_s=0.7),
        Tally(4.0, 4.0),
    ]
    load = capacity.load_of(tallies, "here")
    assert load is not None
    assert load.utilisation == (0.25, 0.35)
    assert load.requests == 200
    assert load.request_cpu_s == pytest.approx(0.006)
    assert load.p95_s == pytest.approx(0.0875)
    assert capacity.load_of([Tally(4.0, 4.0)], "here") is None


# ----------------------------------------------------------------------------------------------------------- refused, warned, unknown


TOO_SLOW = "(95th percentile), and 1.5 × is the most (capacity.p95_ratio_max)"


@pytest.mark.parametrize(
    ("room", "refused", "warned"),
    [
        (Headroom(B, 0.3, 0.6, 0.65, 1.2), "", ""),
        (Headroom(B, 0.3, 0.7, 0.74, 1.4), "", "while a is out, b may use up to 75 % of its core"),
        (
            Headroom(B, 0.3, 0.84, 0.86, 1.4),
            "while a is out, b would use up to 90 % of its core, and 85 % is the most (capacity.utilisation_max)",
            "while a is out, b may use up to 90 % of its core",
        ),
        (Headroom(B, 0.3, 0.6, 0.65, 1.6), f"while a is out, its siblings' requests would take up to 2 × as long {TOO_SLOW}", ""),
        (Headroom(B, 0.3, 0.6, 0.65, None), f"while a is out, its siblings' requests would take longer and longer {TOO_SLOW}", ""),
        (Headroom(unknown="nobody measured it"), "", ""),
    ],
)
def test_what_is_said_of_too_little_room(room: Headroom, refused: str, warned: str) -> None:
    assert capacity.refusal(A, room, LIMITS) == refused
    assert capacity.warning(A, room, LIMITS) == warned


def test_a_limit_that_is_not_set_refuses_nothing() -> None:
    assert capacity.refusal(A, Headroom(B, 0.6, 1.2, 1.3, None), replace(LIMITS, utilisation_max=9, p95_ratio_max=None)) == ""


def test_what_is_not_known_is_refused_where_the_playbook_asks_for_it() -> None:
    why = capacity.refusal(A, Headroom(unknown="nobody measured it"), replace(LIMITS, require=True))
    assert why == "a: what its siblings could carry is not known (nobody measured it; capacity.require)"


# ------------------------------------------------------------------------------------------------------------------------ in a plan

DRIVER = DriverSettings(driver="any")
POOL = PoolId("sync")
PLAYBOOK = Playbook(
    name="capacity",
    gates=(GateEntry(id=GateId("cpu"), metric=Metric.POLL_CPU, ratio_max=1.5),),
    liveness_only=(Role("event_persister"),),
)
INVENTORY = Inventory(
    homeserver="example.org",
    workers={
        **{worker: WorkerEntry(role=Role("sync"), pool=POOL, url="http://h", metrics="http://m") for worker in (A, B, C)},
        D: WorkerEntry(role=Role("event_persister"), url="http://h", metrics="http://m"),
    },
    pools={POOL: PoolEntry(backend="sync")},
    workers_driver=DRIVER,
    releases_driver=DRIVER,
    traffic_driver=DRIVER,
    ledger_driver=DRIVER,
)


def _seen(loads: dict[WorkerId, Load], algorithm: str = "leastconn") -> Observation:
    return Observation(
        1000.0,
        {worker: sighting(OLD, proxied=entry.pool is not None) for worker, entry in INVENTORY.workers.items()},
        releases={OLD.id: OLD, NEW.id: NEW},
        schema=SCHEMA,
        pools={POOL: PoolSighting(0, 0.0, algorithm=algorithm)},
        loads=loads,
    )


def test_a_plan_says_what_each_leaves_to_the_others() -> None:
    plan = make_plan(PLAYBOOK, INVENTORY, _seen(_alike(4, 0.3)), NEW)
    assert {worker: room.then for worker, room in plan.headroom.items()} == {
        **dict.fromkeys((A, B, C), pytest.approx(0.45)),
        D: pytest.approx(0.3),
    }
    assert plan.headroom[D].how == "nobody takes over: after 10 s of boot it takes about 4 s more to catch up"


def test_load_is_no_part_of_a_plans_digest() -> None:
    """The same homeserver at another hour: the same plan."""
    quiet, busy = (make_plan(PLAYBOOK, INVENTORY, replace(_seen(_alike(4, u)), taken_at_s=u * 1e6), NEW) for u in (0.1, 0.3))
    assert quiet.headroom != busy.headroom
    assert quiet.digest == busy.digest == digest_of_plan(busy)


def test_too_full_is_refused_with_all_reasons() -> None:
    with pytest.raises(RefusedError) as refused:
        make_plan(PLAYBOOK, INVENTORY, _seen(_alike(4, 0.6)), NEW)
    assert refused.value.why.count("would use up to 90 % of its core") == 3
    assert "roll when less comes in, add a worker to the pool" in refused.value.why


def test_only_who_goes_out_is_asked() -> None:
    """A full pool that is left alone forbids nothing."""
    assert make_plan(PLAYBOOK, INVENTORY, _seen(_alike(4, 0.6)), NEW, only=Role("event_persister")).phases


def test_hashing_asks_for_more_room() -> None:
    even = make_plan(PLAYBOOK, INVENTORY, _seen(_alike(4, 0.3)), NEW).headroom[A]
    hashed = make_plan(PLAYBOOK.model_copy(update={"capacity": Capacity(p95_ratio_max=9)}), INVENTORY, _seen(_alike(4, 0.3), "hdr"), NEW)
    assert hashed.headroom[A].then > even.then + 0.05
    assert hashed.headroom[A].how.startswith("hashed: one of 2 may inherit up to")


def test_a_way_back_is_never_refused() -> None:
    plan = make_plan(PLAYBOOK, INVENTORY, _seen(_alike(4, 0.6)), NEW, among=[A, B])
    assert plan.phases
    assert "while a is out, b would use up to 90 % of its core, and 85 % is the most (capacity.utilisation_max)" in plan.notes


def test_nothing_measured_refuses_nothing_unless_the_playbook_says_so() -> None:
    plan = make_plan(PLAYBOOK, INVENTORY, _seen({}), NEW)
    assert plan.headroom[A].unknown == "how busy they are has not been measured"
    some = make_plan(PLAYBOOK, INVENTORY, _seen({A: _load(0.3)}), NEW)
    assert some.headroom[A].unknown == "how busy b, c are has not been measured"
    with pytest.raises(RefusedError, match="rolled"):
        make_plan(PLAYBOOK.model_copy(update={"capacity": Capacity(require=True)}), INVENTORY, _seen({}), NEW)


def test_who_somebody_else_drained_inherits_nothing() -> None:
    seen = _seen(_alike(4, 0.3))
    seen.sightings[C] = sighting(OLD, drained_by="others")
    strategy = PLAYBOOK.strategy.model_copy(update={"max_unavailable": {POOL: 2}})
    playbook = PLAYBOOK.model_copy(update={"strategy": strategy, "capacity": Capacity(p95_ratio_max=9)})
    plan = make_plan(playbook, INVENTORY, seen, NEW)
    assert plan.headroom[A].sibling == B
    assert plan.headroom[A].then == pytest.approx(0.6)
    assert C not in plan.headroom
