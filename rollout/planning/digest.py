"""What makes two things the same: SHA-256 over canonical JSON, with everything volatile left out."""

import hashlib
import json
from collections.abc import Mapping

from rollout.model import codec
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook
from rollout.model.sighting import Observation, Sighting, started_since
from rollout.planning.evidence import deadline_of
from rollout.planning.standing import drained_by_others

# What may differ between two plans that do the same. The forecast rests on assumptions, the load is another one in a minute, and notes are
# only words.
_NOT_IN_PLAN_DIGEST = frozenset({"digest", "forecast", "headroom", "notes"})


def digest_of_playbook(playbook: Playbook) -> str:
    """Cover what the playbook says, not how it is written."""
    plain = playbook.model_dump(mode="json")
    for gate, entry in zip(plain["gates"], playbook.gates, strict=True):
        gate["deadline_s"] = deadline_of(entry)
    # A profile is another way to write its settings. Plans that were saved before there were windows or canary requests still hold.
    del plain["profile"]
    for name in ("windows", "canary_requests"):
        if plain[name] is None:
            del plain[name]
    return _digest(plain)


def digest_of_inventory(inventory: Inventory) -> str:
    """Cover all that the inventory says, the drivers' settings too."""
    plain = inventory.model_dump(mode="json")
    if inventory.history_driver is None:
        # Plans that were saved before there was one still hold.
        del plain["history_driver"]
    return _digest(plain)


def digest_of_text(text: str) -> str:
    """Cover a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_plan(plan: Plan) -> str:
    """Cover everything but the digest itself, the forecast, the headroom, the notes, and when it was made."""
    plain = {name: value for name, value in codec.to_plain(plan).items() if name not in _NOT_IN_PLAN_DIGEST}
    plain["basis"] = {name: value for name, value in plain["basis"].items() if name != "made_at_s"}
    del plain["profile"]
    for name in ("windows", "buying"):
        # Plans that were saved before there were any have none.
        if plain[name] is None:
            del plain[name]
    return _digest(plain)


def digest_of_observation(observation: Observation) -> str:
    """Cover what each worker runs and who drained it, and the database's schema; sessions, times and counters are left out."""
    schema = observation.schema
    return _digest(
        {
            "workers": {worker: _steady(sighting) for worker, sighting in observation.sightings.items()},
            "missing": sorted(observation.missing),
            "schema": None if schema is None else [schema.version, schema.compat_version, sorted(schema.deltas)],
        }
    )


def _steady(sighting: Sighting) -> dict[str, object]:
    process, proxy = sighting.process, sighting.proxy
    if drained_by_others(sighting):
        # It is left alone, whatever becomes of it.
        return {"foreign": True}
    return {
        "activated": None if process is None else process.activated,
        "running": None if process is None else process.running,
        "started_since": None if process is None else started_since(process),
        "healthy": sighting.healthy,
        "version": sighting.version,
        "up": None if proxy is None else proxy.up,
        "ours": sighting.drain is not None,
    }


def _digest(plain: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
