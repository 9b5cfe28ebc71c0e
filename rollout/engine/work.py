"""
What an effect does, for the ledger to do under its number: as data where the drivers can write it down, else in this process.

Whatever takes a worker out also says how it comes back, for the dead-man at the target.
"""

from rollout.engine.drivers import Drivers, servers
from rollout.model.effect import FULL_WEIGHT, Effect, drains_in_part
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan, Verb
from rollout.ports.acts import Acts, Addressed, ReleasesActs, ReplacesActs, SwitchActs, TrafficActs, WayBack, Work, WorkersActs
from rollout.ports.releases import Releases
from rollout.ports.traffic import HoldBound, Server
from rollout.ports.workers import Replaces

# A proxy answers in a millisecond; the rest of an effect's deadline belongs to what is waited for afterwards.
PROXY_TIMEOUT_S = 5.0


def work_of(effect: Effect, worker: WorkerId, plan: Plan, drivers: Drivers, inventory: Inventory, left_s: float) -> Work:
    """
    Say what *effect* does to *worker*, within *left_s*. Raises DriverError when it can be known already that it would fail, and ValueError
    for a verb that does nothing to a worker.
    """
    if effect.verb is Verb.RESTART:
        return _restart(effect, worker, drivers, left_s)
    server = servers(inventory)[worker]
    match effect.verb:
        case Verb.DRAIN if drains_in_part(effect):
            # On the way down it still takes some.
            work = admission(drivers, server, effect.weight)
            return Work(work.here, work.acts, way_back(worker, drivers, inventory))
        case Verb.DRAIN:
            return _drain(drivers, server, way_back(worker, drivers, inventory))
        case Verb.ADMIT:
            return admission(drivers, server, effect.weight)
        case Verb.HOLD:
            return _hold(drivers, server, plan.hold, way_back(worker, drivers, inventory, held=plan.hold))
        case Verb.LET_GO:
            return letting_go(drivers, server)
        case _:
            msg = f"{effect.verb} is not an effect"
            raise ValueError(msg)


def admission(drivers: Drivers, server: Server, weight: int = FULL_WEIGHT) -> Work:
    traffic = drivers.traffic
    acts = traffic.admit_acts(server, weight, PROXY_TIMEOUT_S) if isinstance(traffic, TrafficActs) else None
    return Work(lambda: traffic.admit(server, weight, PROXY_TIMEOUT_S), acts)


def letting_go(drivers: Drivers, server: Server) -> Work:
    traffic = drivers.traffic
    acts = traffic.let_go_acts(server, PROXY_TIMEOUT_S) if isinstance(traffic, TrafficActs) else None
    return Work(lambda: traffic.let_go(server, PROXY_TIMEOUT_S), acts)


def both(first: Work, second: Work) -> Work:
    """Do one after the other, under one number."""

    def here() -> None:
        first.here()
        second.here()

    acts = None if first.acts is None or second.acts is None else first.acts + second.acts
    return Work(here, acts)


def way_back(worker: WorkerId, drivers: Drivers, inventory: Inventory, *, held: HoldBound | None = None) -> WayBack | None:
    """Say how somebody else admits it; None where a driver can't write that down."""
    server = servers(inventory)[worker]
    acts = (admission(drivers, server) if held is None else letting_go(drivers, server)).acts
    health = drivers.probe.health_address(worker) if isinstance(drivers.probe, Addressed) else None
    if acts is None or health is None:
        return None
    link = drivers.releases.link_of(worker) if isinstance(drivers.releases, ReleasesActs) else None
    return WayBack(acts, health, link, 0.0 if held is None else held.hold_s)


def _drain(drivers: Drivers, server: Server, back: WayBack | None) -> Work:
    traffic = drivers.traffic
    acts = traffic.drain_acts(server, PROXY_TIMEOUT_S) if isinstance(traffic, TrafficActs) else None
    return Work(lambda: traffic.drain(server, PROXY_TIMEOUT_S), acts, back)


def _hold(drivers: Drivers, server: Server, bound: HoldBound, back: WayBack | None) -> Work:
    traffic = drivers.traffic
    acts = traffic.hold_acts(server, bound, PROXY_TIMEOUT_S) if isinstance(traffic, TrafficActs) else None
    return Work(lambda: traffic.hold(server, bound, PROXY_TIMEOUT_S), acts, back)


def _restart(effect: Effect, worker: WorkerId, drivers: Drivers, left_s: float) -> Work:
    """Stopped before it is switched: a process then always runs what its link named when it started. One that is replaced is told first."""
    workers, releases = drivers.workers, drivers.releases
    if isinstance(workers, Replaces):
        return _replacement(effect, worker, workers, releases, left_s)

    def here() -> None:
        workers.stop(worker, left_s)
        releases.activate(worker, effect.release)
        workers.start(worker, left_s)

    acts: Acts | None = None
    if isinstance(workers, WorkersActs) and isinstance(releases, ReleasesActs):
        switch = releases.activate_acts(worker, effect.release)
        acts = (*workers.stop_acts(worker, left_s), *switch, *workers.start_acts(worker, left_s))
    return Work(here, acts)


def _replacement(effect: Effect, worker: WorkerId, workers: Replaces, releases: Releases, left_s: float) -> Work:
    def here() -> None:
        releases.activate(worker, effect.release)
        workers.replace(worker, left_s)

    acts: Acts | None = None
    if isinstance(workers, ReplacesActs) and isinstance(releases, SwitchActs):
        acts = (*releases.activate_acts(worker, effect.release), *workers.replace_acts(worker, left_s))
    return Work(here, acts)
