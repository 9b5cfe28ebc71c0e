"""What holding has come to, at one proxy and at several."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from rollout.model.sighting import HoldSighting, PoolSighting


def both_holds(one: HoldSighting, other: HoldSighting) -> HoldSighting:
    """Add up what two say; *held_for_s* is that of the one that has held longest."""
    return HoldSighting(
        held_for_s=max((seconds for seconds in (one.held_for_s, other.held_for_s) if seconds is not None), default=None),
        waiting=one.waiting + other.waiting,
        waiting_max=one.waiting_max + other.waiting_max,
        shed=one.shed + other.shed,
        let_go_late=one.let_go_late + other.let_go_late,
    )


def hold_at_all(rows: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """
    Return the fields *held* and *hold* of a sighting, by what each proxy's nginx_hold.lua says of an upstream (None: nothing).

    It is held if every one of them holds it.
    """
    holds = [_hold_of(row) for row in rows]
    return {"held": all(one.held_for_s is not None for one in holds), "hold": reduce(both_holds, holds)}


def pool_at_all(rows: Sequence[Mapping[str, Any] | None], algorithm: str) -> PoolSighting:
    """Return what all proxies say of an upstream together; nobody counts where nothing passes through nginx_hold.lua."""
    known = [row for row in rows if row is not None]
    return PoolSighting(
        requests=sum(row["passed"] for row in known) if known else None,
        arrivals_per_s=float(sum(row["arrivals_per_s"] for row in known)) if known else None,
        can_hold=len(known) == len(rows),
        algorithm=algorithm,
        **hold_at_all(rows),
    )


def _hold_of(row: Mapping[str, Any] | None) -> HoldSighting:
    if row is None:
        return HoldSighting()
    return HoldSighting(row["held_for_s"], row["waiting"], row["waiting_max"], row["shed"], row["let_go_late"])
