"""What one part of a file says about another, and what a playbook says about an inventory. Nothing here needs to see the homeserver."""

import difflib
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter

from rollout.adapters.documents.problem import Problem
from rollout.homeservers.synapse.roles import ROLE_ORDER, evidence_of
from rollout.model.ids import Role, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.playbook import Playbook

_FULL_WEIGHT = 100  # percent


def of_inventory(inventory: Inventory) -> Iterator[Problem]:
    """Find workers whose role, pool, server or dependency isn't there."""
    servers: dict[tuple[str, str], WorkerId] = {}
    for worker_id, worker in inventory.workers.items():
        here = ("workers", worker_id)
        yield from _role((*here, "role"), worker.role)
        if worker.pool is not None and worker.pool not in inventory.pools:
            yield _unknown((*here, "pool"), "pool", worker.pool, inventory.pools)
        elif worker.pool is not None:
            server = (inventory.pools[worker.pool].backend, worker.server or worker_id)
            if server in servers:
                yield Problem(
                    here, f'"{worker_id}" and "{servers[server]}" are the same server {server[1]} in backend {server[0]}', at_key=True
                )
            servers[server] = worker_id
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


def _gates(playbook: Playbook) -> Iterator[Problem]:
    seen = set()
    for index, gate in enumerate(playbook.gates):
        here = ("gates", index)
        if gate.id in seen:
            yield Problem((*here, "id"), f'the gate "{gate.id}" appears twice')
        seen.add(gate.id)
        if gate.ratio_max is None and gate.max is None:
            yield Problem(here, f'the gate "{gate.id}" has no threshold', remedy="ratio_max (times the baseline) or max (absolute)")
        if gate.deadline_s <= gate.soak_s:
            yield Problem(
                (*here, "deadline_s"),
                f'the gate "{gate.id}" would give up after {gate.deadline_s:g} s, before its soak_s of {gate.soak_s:g} s',
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
    for pool in playbook.strategy.max_unavailable:
        if pool not in inventory.pools:
            yield _unknown(("strategy", "max_unavailable", pool), "pool", pool, inventory.pools, at_key=True)


def _role(path: tuple[str | int, ...], role: Role) -> Iterator[Problem]:
    if role not in ROLE_ORDER:
        yield _unknown(path, "role", role, ROLE_ORDER)


def _unknown(path: tuple[str | int, ...], kind: str, name: str, known: Collection[str], *, at_key: bool = False) -> Problem:
    close = difflib.get_close_matches(name, known, n=1)
    return Problem(path, f'there is no {kind} "{name}"', remedy=close[0] if close else f"one of {', '.join(known)}", at_key=at_key)
