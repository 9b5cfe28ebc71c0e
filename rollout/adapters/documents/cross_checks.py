"""What one part of a file says about another, and what a playbook says about an inventory. Nothing here needs to see the homeserver."""

import difflib
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from rollout.adapters.problem import Problem
from rollout.adapters.wording import nearest, shortened
from rollout.gating import sequential
from rollout.gating.evidence import COUNTED
from rollout.gating.latency import GOOD_RATIO
from rollout.homeservers.synapse import hazards
from rollout.homeservers.synapse.roles import ROLE_ORDER, evidence_of
from rollout.model.gate import LATENCY_EDGES_S, Metric
from rollout.model.ids import PoolId, Role, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.playbook import GateEntry, Playbook
from rollout.planning.evidence import behind_proxies, deadline_of, gates_of, heeded, soak_of

_FULL_WEIGHT = 100  # percent
# Of these, nothing is ever above 1.
_FRACTIONS = COUNTED | {"connections_used", "files_used", "files_projected"}
_EXAMPLE_URL = "http://127.0.0.1:8008"


def of_inventory(inventory: Inventory) -> Iterator[Problem]:
    """Find workers whose role, pool, server, address, page or dependency isn't there, or isn't theirs alone."""
    servers: dict[tuple[str, str], WorkerId] = {}
    urls: dict[str, WorkerId] = {}
    for worker_id, worker in inventory.workers.items():
        here = ("workers", worker_id)
        yield from _role((*here, "role"), worker.role)
        if worker.pool is not None and worker.pool not in inventory.pools:
            yield _unknown((*here, "pool"), "pool", worker.pool, inventory.pools)
        elif worker.pool is not None:
            server = (inventory.pools[worker.pool].backend, worker.server or worker_id)
            yield from _same(here, f"the same server {server[1]} in backend {server[0]}", servers.setdefault(server, worker_id))
        yield from _address((*here, "url"), worker.url)
        yield from _address((*here, "metrics"), worker.metrics)
        yield from _same(here, f"the same process, at {shortened(worker.url)}", urls.setdefault(worker.url.rstrip("/"), worker_id))
        for index, needed in enumerate(worker.depends_on):
            if needed not in inventory.workers:
                yield _unknown((*here, "depends_on", index), "worker", needed, inventory.workers)
    yield from _shared(inventory)
    try:
        TopologicalSorter({worker_id: worker.depends_on for worker_id, worker in inventory.workers.items()}).prepare()
    except CycleError as error:
        cycle = list(reversed(error.args[1]))
        yield Problem(
            ("workers", cycle[0], "depends_on"),
            f"depends_on goes round in a circle: {' → '.join(cycle)}",
            remedy="remove one of them",
            at_key=True,
        )


def _shared(inventory: Inventory) -> Iterator[Problem]:
    """Find what only one can have: a metrics page, being main, a backend."""
    pages: dict[str, WorkerId] = {}
    for worker_id, worker in inventory.workers.items():
        if (first := pages.setdefault(worker.metrics.rstrip("/"), worker_id)) != worker_id:
            what = f'"{worker_id}" would be judged by the metrics page of "{first}", {shortened(worker.metrics)}'
            yield Problem(("workers", worker_id, "metrics"), what, remedy="its own: each process has one")
    mains = [worker_id for worker_id, worker in inventory.workers.items() if worker.role == "main"]
    for worker_id in mains[1:]:
        what = f'"{worker_id}" and "{mains[0]}" are both main, and a homeserver has one main process'
        yield Problem(("workers", worker_id, "role"), what, remedy="the role of what it does, such as client")
    backends: dict[str, PoolId] = {}
    for pool_id, pool in inventory.pools.items():
        if (other := backends.setdefault(pool.backend, pool_id)) != pool_id:
            what = f'"{pool_id}" and "{other}" are the same backend, {shortened(pool.backend)}: each would count its workers alone'
            yield Problem(("pools", pool_id, "backend"), what, remedy="one pool for all workers of a backend")


def of_playbook(playbook: Playbook, inventory: Inventory | None) -> Iterator[Problem]:
    """Find roles, gates, workers and pools that don't exist, and thresholds that could never be tested."""
    for index, entry in enumerate(playbook.strategy.role_order):
        here: tuple[str | int, ...] = ("strategy", "role_order", index)
        if isinstance(entry, tuple):
            for inner, role in enumerate(entry):
                yield from _role((*here, inner), role)
        else:
            yield from _role(here, entry)
    for index, role in enumerate(playbook.liveness_only):
        yield from _role(("liveness_only", index), role)
    for index, hazard in enumerate(playbook.accept_hazards):
        if hazard not in (known := tuple(hazards.ids())):
            yield _unknown(("accept_hazards", index), "hazard that can be accepted", hazard, known)
    yield from _gates(playbook)
    yield from _limits(playbook)
    yield from _guards(playbook)
    yield from _times(playbook)
    yield from _windows(playbook)
    if inventory is not None:
        yield from _against(playbook, inventory)


def of_evidence(playbook: Playbook, inventory: Inventory) -> Iterator[Problem]:
    """Find roles that no gate looks at: being alive proves little, and passes only if the playbook says so by name."""
    place = ("liveness_only",) if playbook.liveness_only else ("gates",)
    for role, proxied in behind_proxies(inventory.workers.values()).items():
        if role in playbook.liveness_only or heeded(role, playbook, proxied=proxied):
            continue
        metrics = evidence_of(role)
        why = "no gate looks at it" if metrics else "nothing can be measured of it"
        if silent := gates_of(role, playbook, proxied=proxied):
            why = f"{', '.join(silent)} {'looks' if len(silent) == 1 else 'look'} at it without acting (act: false)"
        remedy = f"liveness_only: [{', '.join((*playbook.liveness_only, role))}]"
        if metrics:
            remedy = f"a gate on {', '.join(metrics)}; or {remedy}"
        yield Problem(place, f"nothing would show that the role {role} is well: {why}", remedy, at_key=True)


def _sequential(here: tuple[str | int, ...], gate: GateEntry) -> Iterator[Problem]:
    if gate.metric not in sequential.METRICS:
        what = f"the gate \"{gate.id}\" can't be sequential: how {gate.metric} varies by chance isn't known"
        yield Problem((*here, "test"), what, remedy="threshold")
    if gate.slack:
        yield Problem((*here, "slack"), f'the gate "{gate.id}" is sequential and has no slack', remedy="leave it out, or test: threshold")
    needless = "max" if gate.metric not in sequential.SHARES and gate.max is not None else ""
    needless = needless or ("ratio_max" if gate.metric in sequential.SHARES and gate.ratio_max is not None else "")
    if needless:
        other = "max" if needless == "ratio_max" else "ratio_max"
        yield Problem(
            (*here, needless),
            f'the gate "{gate.id}" is sequential and tests {gate.metric} by {other}, not by {needless}',
            remedy=f"{other}, or another gate with test: threshold for a limit besides",
        )
    if gate.ratio_max is not None and gate.ratio_max <= GOOD_RATIO:
        what = f'the gate "{gate.id}" would call {gate.ratio_max:g} × bad, and up to {GOOD_RATIO:g} × is chance'
        yield Problem((*here, "ratio_max"), what, remedy=f"more than {GOOD_RATIO:g}")


def _threshold(here: tuple[str | int, ...], gate: GateEntry) -> Iterator[Problem]:
    if gate.ratio_max is None and gate.max is None:
        yield Problem(here, f'the gate "{gate.id}" has no threshold', remedy="ratio_max (times the baseline) or max (absolute)")
    if gate.metric is Metric.PUSH_FAILURES and gate.ratio_max is not None:
        what = f'the gate "{gate.id}" compares {gate.metric} with a past in which what is away was tried less often'
        yield Problem((*here, "ratio_max"), what, remedy="max")


def _gates(playbook: Playbook) -> Iterator[Problem]:
    seen = set()
    for index, gate in enumerate(playbook.gates):
        here = ("gates", index)
        if gate.id in seen:
            yield Problem((*here, "id"), f'the gate "{gate.id}" appears twice', remedy="another id")
        seen.add(gate.id)
        yield from _sequential(here, gate) if gate.test == "sequential" else _threshold(here, gate)
        if gate.metric in _FRACTIONS:
            yield from _fraction((*here, "max"), f'the gate "{gate.id}"', gate.metric, gate.max)
            yield from _fraction((*here, "slack"), f'the gate "{gate.id}"', gate.metric, gate.slack)
        if gate.fresh_s < playbook.baseline.sample_s:
            yield Problem(
                (*here, "fresh_s"),
                f'the gate "{gate.id}" would find no data fresh: fresh_s is {gate.fresh_s:g} s, and it is looked every '
                f"{playbook.baseline.sample_s:g} s (baseline.sample_s)",
                remedy=f"{playbook.baseline.sample_s:g} or more",
            )
        if (deadline_s := deadline_of(gate)) <= (soak_s := soak_of(gate)):
            until = f"its soak_s of {soak_s:g} s" if soak_s == gate.soak_s else f"{gate.metric} begins to count after {soak_s:g} s"
            what = f'the gate "{gate.id}" would give up after {deadline_s:g} s, before {until}'
            yield Problem((*here, "deadline_s"), what, remedy=f"more than {soak_s:g}")
        for inner, role in enumerate(gate.roles):
            yield from _role((*here, "roles", inner), role)
            if role in ROLE_ORDER and gate.metric not in evidence_of(role):
                remedy = " or ".join(evidence_of(role)) or f"liveness_only: [{role}]"
                yield Problem((*here, "metric"), f"{gate.metric} says nothing about the role {role}", remedy=remedy)


def _limits(playbook: Playbook) -> Iterator[Problem]:
    here: tuple[str | int, ...] = ("strategy", "ramp", "weights")
    weights = playbook.strategy.ramp.weights
    if list(weights) != sorted(set(weights)) or weights[-1] != _FULL_WEIGHT:
        yield Problem(here, "the weights of a ramp must rise, from 1 or more to 100", remedy="[25, 50, 100]")
    down = playbook.strategy.ramp.down
    if list(down) != sorted(set(down), reverse=True):
        yield Problem(
            ("strategy", "ramp", "down"), "the weights on the way down must fall, from 99 or less to 1 or more", remedy="[50, 25]"
        )


def _guards(playbook: Playbook) -> Iterator[Problem]:
    seen = set()
    for index, guard in enumerate(playbook.guards):
        if guard.guard in seen:
            yield Problem(("guards", index, "guard"), f"the guard {guard.guard} appears twice", remedy="remove one of them")
        seen.add(guard.guard)
        if guard.guard in _FRACTIONS:
            yield from _fraction(("guards", index, "max"), "the guard", guard.guard, guard.max)
        if guard.guard == "latency_p95_s" and guard.max >= LATENCY_EDGES_S[-1]:
            what = f"the guard could never fail: {guard.guard} is told up to {LATENCY_EDGES_S[-1]:g} s, and max is {guard.max:g}"
            yield Problem(("guards", index, "max"), what, remedy=f"less than {LATENCY_EDGES_S[-1]:g}")


def _fraction(path: tuple[str | int, ...], who: str, name: str, value: float | None) -> Iterator[Problem]:
    """What is written in percent would switch a gate or a guard off: nothing is ever above it."""
    if value is not None and value > 1:
        remedy = f"{value / _FULL_WEIGHT:g}" if value <= _FULL_WEIGHT else "1 or less"
        yield Problem(path, f"{who} could never fail: {name} is a fraction, and {path[-1]} is {value:g}", remedy=remedy)


def _times(playbook: Playbook) -> Iterator[Problem]:
    """Find times of which one makes another meaningless."""
    strategy, baseline, watch, recovery = playbook.strategy, playbook.baseline, playbook.watch, playbook.recovery
    waits = {index: deadline_of(gate) for index, gate in enumerate(playbook.gates)}
    longest = max(waits, key=lambda index: waits[index], default=None)
    if longest is not None and strategy.progress_deadline_s < waits[longest]:
        yield Problem(
            ("gates", longest, "deadline_s"),
            f'the gate "{playbook.gates[longest].id}" may wait {waits[longest]:g} s, and after {strategy.progress_deadline_s:g} s without '
            "progress the rollout pauses (strategy.progress_deadline_s)",
            remedy=f"{strategy.progress_deadline_s:g} or less, or progress_deadline_s: {waits[longest]:g}",
        )
    if 0 < baseline.baseline_s < baseline.sample_s:
        yield Problem(
            ("baseline", "sample_s"),
            f"a baseline of {baseline.baseline_s:g} s would have no two looks: sample_s is {baseline.sample_s:g} s",
            remedy=f"{baseline.baseline_s:g} or less",
        )
    if 0 < watch.watch_s < watch.window_s:
        yield Problem(
            ("watch", "window_s"),
            f"a watch of {watch.watch_s:g} s would have no window: window_s is {watch.window_s:g} s",
            remedy=f"{watch.watch_s:g} or less",
        )
    if recovery is not None and recovery.recovery_s > recovery.deadline_s:
        yield Problem(
            ("recovery", "recovery_s"),
            f"recovery_s is {recovery.recovery_s:g} s, and deadline_s, which ends the wait for it, {recovery.deadline_s:g} s",
            remedy=f"{recovery.deadline_s:g} or less, or deadline_s: {recovery.recovery_s:g}",
        )


def _windows(playbook: Playbook) -> Iterator[Problem]:
    """Find a time zone that this machine doesn't know: the hours would be somebody else's."""
    if playbook.windows is None:
        return
    name = playbook.windows.timezone
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = available_timezones()
        what = f'there is no time zone "{shortened(name)}"'
        close = difflib.get_close_matches(name, known, n=1)
        remedy = (
            close[0]
            if close
            else "a name such as Europe/Berlin, or UTC"
            if known
            else "the package tzdata: this machine knows no time zones"
        )
        yield Problem(("windows", "timezone"), what, remedy=remedy)


def _against(playbook: Playbook, inventory: Inventory) -> Iterator[Problem]:
    canary = playbook.strategy.canary
    if canary is not None and canary not in inventory.workers:
        yield _unknown(("strategy", "canary"), "worker", canary, inventory.workers)
    if playbook.strategy.warm is not None and inventory.warming_driver is None:
        what = "warm needs a warming_driver, which the inventory doesn't have"
        yield Problem(("strategy", "warm"), what, remedy="warming_driver in the inventory, or no warm", at_key=True)
    if playbook.canary_requests is not None and (lacking := _not_asked_with(inventory)):
        what = f"canary requests are made as an application service, and the inventory's probe_driver has no {lacking}"
        remedy = "as_token and user in probe_driver, or canary_requests: null"
        yield Problem(("profile" if playbook.profile else "canary_requests",), what, remedy=remedy, at_key=True)
    for pool, out_max in playbook.strategy.max_unavailable.items():
        if pool not in inventory.pools:
            yield _unknown(("strategy", "max_unavailable", pool), "pool", pool, inventory.pools, at_key=True)
        else:
            yield from _nobody_left(pool, out_max, inventory)


def _not_asked_with(inventory: Inventory) -> str:
    """Name what the driver that ships with us needs to ask as somebody, and doesn't have; others know by themselves what they need."""
    settings = inventory.probe_driver.settings()
    needed = ("as_token", "user") if inventory.probe_driver.driver == "http" else ()
    return " and no ".join(name for name in needed if settings.get(name) is None)


def _nobody_left(pool: PoolId, out_max: int, inventory: Inventory) -> Iterator[Problem]:
    """One worker must be left to answer, whatever its role, unless requests can wait for the only one."""
    count = sum(worker.pool == pool for worker in inventory.workers.values())
    if count == 0 or out_max < count or (count == 1 and inventory.pools[pool].hold):
        return
    yield Problem(
        ("strategy", "max_unavailable", pool),
        f"{count} of {count} in pool {pool} may be out: its users would get errors",
        remedy=str(count - 1) if count > 1 else f"`hold: true` for pool {pool} in the inventory, or another worker in it",
    )


def _same(path: tuple[str, WorkerId], what: str, first: WorkerId) -> Iterator[Problem]:
    if first != path[1]:
        yield Problem(
            path, f'"{path[1]}" and "{first}" are {what}', remedy="remove one of them: a worker is in one pool, once", at_key=True
        )


def _address(path: tuple[str | int, ...], url: str) -> Iterator[Problem]:
    if any(map(str.isspace, url)):
        yield Problem(path, f"{path[-1]} has a space in it", remedy=shortened("".join(url.split())))
        return
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        yield Problem(path, f"{path[-1]} is no address that begins with http:// or https://", remedy=_EXAMPLE_URL)
    elif not _port_is_good(parts):
        port = parts.netloc.rpartition(":")[2]
        yield Problem(path, f"{path[-1]} has a port that there is not: {shortened(port)}", remedy="a port from 1 to 65535")


def _port_is_good(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _role(path: tuple[str | int, ...], role: Role) -> Iterator[Problem]:
    if role not in ROLE_ORDER:
        yield _unknown(path, "role", role, ROLE_ORDER)


def _unknown(path: tuple[str | int, ...], kind: str, name: str, known: Collection[str], *, at_key: bool = False) -> Problem:
    remedy = nearest(name, known) if known else f"{kind}s: …, there are none yet"
    return Problem(path, f'there is no {kind} "{shortened(name)}"', remedy=remedy, at_key=at_key)
