"""What a plan was made from, kept with it, so that it can be said later what has changed since (drift.py)."""

from pydantic import JsonValue

from rollout.model.inventory import Inventory
from rollout.model.plan import Basis
from rollout.model.sighting import SchemaSighting
from rollout.planning.digest import digest_of_inventory, digest_of_text
from rollout.planning.situation import Situation

# Addresses may hold what a plan must not repeat; it is enough to see that they changed.
_ADDRESSES = ("url", "metrics")


def basis_of(situation: Situation) -> Basis:
    """Collect it."""
    return Basis(
        made_at_s=situation.observation.taken_at_s,
        playbook=situation.playbook.model_dump(mode="json"),
        inventory=of_inventory(situation.inventory),
        inventory_digest=digest_of_inventory(situation.inventory),
        schema=of_schema(situation.observation.schema),
        ours=tuple(worker.id for worker in situation.workers if worker.id in situation.ours),
    )


def of_inventory(inventory: Inventory) -> dict[str, JsonValue]:
    """Return workers and pools; addresses as digests."""
    plain: dict[str, JsonValue] = inventory.model_dump(mode="json", include={"workers", "pools"})
    workers = plain["workers"]
    if isinstance(workers, dict):
        for entry in workers.values():
            if isinstance(entry, dict):
                entry.update({name: digest_of_text(str(entry[name]))[:12] for name in _ADDRESSES})
    return plain


def of_schema(schema: SchemaSighting | None) -> tuple[int, int, str] | None:
    """Return version, compatibility floor, and a digest of the deltas."""
    return None if schema is None else (schema.version, schema.compat_version, digest_of_text("\n".join(sorted(schema.deltas))))
