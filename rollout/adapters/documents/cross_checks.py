"""What one part of a file says about another, and what a playbook says about an inventory. Nothing here needs to see the homeserver."""

from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from urllib.parse import urlsplit

from rollout.adapters.problem import Problem
from rollout.adapters.wording import nearest, shortened
from rollout.homeservers.synapse.roles import ROLE_ORDER, duty_of, evidence_of
from rollout.model.ids import PoolId, Role, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Duty
from rollout.model.playbook import Playbook
from rollout.planning.evidence import gates_of

_FULL_WEIGHT = 100  # percent
_EXAMPLE_URL = "http://127.0.0.1:8008"


def of_inventory(inventory: Inventory) -> Iterator[Problem]:
    """Find workers whose role, pool, server, address or dependency isn't there, or isn't theirs alone."""
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
    yield from _gates(playbook)
    yield from _limits(playbook)
    if inventory is not None:
        yield from _against(playbook, inventory)


def of_evidence(playbook: Playbook, inventory: Inventory) -> Iterator[Problem]:
    """Find roles that no gate looks at: being alive proves little, and passes only if the playbook says so by name."""
    place = ("liveness_only",) if playbook.liveness_only else ("gates",)
    for role in dict.fromkeys(worker.role for worker in inventory.workers.values()):
        if role in playbook.liveness_only or gates_of(role, playbook):
            continue
        metrics = evidence_of(role)
        why = "no gate looks at it" if metrics else "nothing can be measured of it"
        remedy = f"liveness_only: [{', '.join((*playbook.liveness_only, role))}]"
        if metrics:
            remedy = f"a gate on {', '.join(metrics)}; or {remedy}"
        yield Problem(place, f"nothing would show that the role {role} is well: {why}", remedy, at_key=True)


def _gates(playbook: Playbook) -> Iterator[Problem]:
    seen = set()
    for index, gate in enumerate(playbook.gates):
        here = ("gates", index)
        if gate.id in seen:
            yield Problem((*here, "id"), f'the gate "{gate.id}" appears twice', remedy="another id")
        seen.add(gate.id)
        if gate.ratio_max is None and gate.max is None:
            yield Problem(here, f'the gate "{gate.id}" has no threshold', remedy="ratio_max (times the baseline) or max (absolute)")
        if gate.deadline_s <= gate.soak_s:
            yield Problem(
                (*here, "deadline_s"),
                f'the gate "{gate.id}" would give up after {gate.deadline_s:g} s, before its soak_s of {gate.soak_s:g} s',
                remedy=f"more than {gate.soak_s:g}",
            )
        for inner, role in enumerate(gate.roles):
            yield from _role((*here, "roles", inner), role)
            if role in ROLE_ORDER and gate.metric not in evidence_of(role):
                remedy = " or ".join(evidence_of(role)) or f"liveness_only: [{role}]"
                yield Problem((*here, "metric"), f"{gate.metric} says nothing about the role {role}", remedy=remedy)


def _limits(playbook: Playbook) -> Iterator[Problem]:
    here: tuple[str | int, ...] = ("strategy", "ramp", "weights")
    weights = playbook.strategy.ramp.weights
    if list(weights) != sorted(set(weights)) or weights[0] < 1 or weights[-1] != _FULL_WEIGHT:
        yield Problem(here, "the weights of a ramp must rise, from 1 or more to 100", remedy="[25, 50, 100]")
    for pool, out_max in playbook.strategy.max_unavailable.items():
        if out_max < 1:
            yield Problem(
                ("strategy", "max_unavailable", pool), "max_unavailable must be 1 or more: with 0 nothing could be rolled", remedy="1"
            )


def _against(playbook: Playbook, inventory: Inventory) -> Iterator[Problem]:
    canary = playbook.strategy.canary
    if canary is not None and canary not in inventory.workers:
        yield _unknown(("strategy", "canary"), "worker", canary, inventory.workers)
    for pool, out_max in playbook.strategy.max_unavailable.items():
        if pool not in inventory.pools:
            yield _unknown(("strategy", "max_unavailable", pool), "pool", pool, inventory.pools, at_key=True)
        else:
            yield from _nobody_left(pool, out_max, inventory)


def _nobody_left(pool: PoolId, out_max: int, inventory: Inventory) -> Iterator[Problem]:
    """A sibling is to take over from a replaceable worker, so one must be left, unless requests can wait for it."""
    roles = [worker.role for worker in inventory.workers.values() if worker.pool == pool]
    replaceable = any(duty_of(role) is Duty.REPLACEABLE for role in roles)
    if not replaceable or out_max < len(roles) or (len(roles) == 1 and inventory.pools[pool].hold):
        return
    yield Problem(
        ("strategy", "max_unavailable", pool),
        f"{len(roles)} of {len(roles)} in pool {pool} may be out: its users would get errors",
        remedy=str(len(roles) - 1) if len(roles) > 1 else f"`hold: true` for pool {pool} in the inventory, or another worker in it",
    )


def _same(path: tuple[str, WorkerId], what: str, first: WorkerId) -> Iterator[Problem]:
    if first != path[1]:
        yield Problem(
            path, f'"{path[1]}" and "{first}" are {what}', remedy="remove one of them: a worker is in one pool, once", at_key=True
        )


def _address(path: tuple[str | int, ...], url: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        yield Problem(path, f"{path[-1]} is no address that begins with http:// or https://", remedy=_EXAMPLE_URL)


def _role(path: tuple[str | int, ...], role: Role) -> Iterator[Problem]:
    if role not in ROLE_ORDER:
        yield _unknown(path, "role", role, ROLE_ORDER)


def _unknown(path: tuple[str | int, ...], kind: str, name: str, known: Collection[str], *, at_key: bool = False) -> Problem:
    remedy = nearest(name, known) if known else f"{kind}s: …, there are none yet"
    return Problem(path, f'there is no {kind} "{shortened(name)}"', remedy=remedy, at_key=at_key)
