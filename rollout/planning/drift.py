"""
What changed since a plan was made, and whether it still holds.

Nomad and Terraform only say "stale". But most of what happens between a plan at noon and its roll-out at night changes nothing: a worker
was restarted on the same release, more comes in. A plan holds as long as each of its steps would still be planned as it stands; what
changed beyond that is said all the same. What breaks it is said with what it was before, so that nobody has to compare two plans by eye.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.load import Headroom
from rollout.model.plan import Plan, steps_of
from rollout.model.playbook import Playbook
from rollout.model.release import Release
from rollout.model.sighting import Observation
from rollout.planning import basis, capacity
from rollout.planning.digest import digest_of_inventory, digest_of_observation, digest_of_playbook
from rollout.planning.situation import Situation, look
from rollout.planning.standing import Standing

# Of a value so much is shown.
_VALUE_MAX = 60
# A sibling's load that grew by less than this share of a core is as it was.
_LOAD_CHANGE = 0.05
_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3_600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Drift:
    """What changed in *age_s* seconds, in sentences: what *breaks* the plan, and what it *bears*."""

    age_s: float
    breaks: tuple[str, ...] = ()
    bears: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Tell whether the plan may be rolled out as it is."""
        return not self.breaks

    @property
    def age(self) -> str:
        """Say how old the plan is."""
        for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
            if self.age_s >= 2 * unit_s:
                return f"{self.age_s / unit_s:.0f} {unit}"
        return f"{max(0.0, self.age_s):.0f} s"


@dataclass(frozen=True, slots=True)
class _Change:
    what: str
    bears: bool = False


def drift(plan: Plan, observation: Observation, inventory: Inventory, playbook: Playbook | None) -> Drift:
    """Compare a plan with what is seen and said now; *playbook* is None where none was named, and then the plan's own is believed."""
    own = Playbook.model_validate(plan.basis.playbook)
    situation = look(playbook or own, inventory, observation, plan.to_release)
    changes = [
        *_of_workers(plan, situation),
        *_of_releases(plan, observation),
        *_of_schema(plan, observation),
        *_of_files(plan, inventory, playbook),
        *_of_load(plan, situation),
    ]
    if not changes and digest_of_observation(observation) != plan.observation_digest:
        # Nothing that a plan rests on goes unsaid, though it has no sentence of its own.
        changes.append(_Change("what is seen of the homeserver is not what the plan was made from"))
    return Drift(
        observation.taken_at_s - plan.basis.made_at_s,
        tuple(dict.fromkeys(change.what for change in changes if not change.bears)),
        tuple(dict.fromkeys(change.what for change in changes if change.bears)),
    )


def _of_workers(plan: Plan, situation: Situation) -> Iterator[_Change]:
    known = {worker.id for worker in plan.workers}
    for worker in plan.workers:
        standing = situation.standings.get(worker.id)
        if standing is None:
            yield _Change(f"{worker.id} is no longer in the inventory")
        else:
            yield from _of_worker(plan, situation, worker.id, standing)
    yield from (_Change(f"{worker.id} is new") for worker in situation.workers if worker.id not in known)


def _of_worker(plan: Plan, situation: Situation, worker: WorkerId, now: Standing) -> Iterator[_Change]:
    yield from (_Change(blocker) for blocker in now.blockers)
    yield from _of_drains(plan, situation, worker, now)
    before = plan.from_releases.get(worker)
    if now.release is not None and now.release != before:
        yield _Change(f"{worker} runs {now.release} now, not {before or 'an unknown release'}")
        return
    sighting = situation.observation.sightings.get(worker)
    started_at_s = sighting.process.started_at_s if sighting is not None and sighting.process is not None else None
    if now.release is not None and started_at_s is not None and started_at_s > plan.basis.made_at_s:
        yield _Change(f"{worker} was restarted, on the same release {now.release}", bears=True)


def _of_drains(plan: Plan, situation: Situation, worker: WorkerId, now: Standing) -> Iterator[_Change]:
    rolled = {step.worker for step in steps_of(plan.phases)}
    if now.foreign and worker not in plan.foreign_drains:
        pool = next((one.pool for one in situation.workers if one.id == worker), None)
        if worker in rolled:
            yield _Change(f"{worker} was drained by somebody else, and the plan would restart it")
        elif pool is not None and situation.budget[pool] < 1:
            yield _Change(f"{worker} was drained by somebody else: nobody else of pool {pool} may be out beside it")
        else:
            yield _Change(f"{worker} was drained by somebody else; the plan leaves it alone, and it counts as out", bears=True)
    elif not now.foreign and worker in plan.foreign_drains:
        yield _Change(f"{worker} is no longer drained by somebody else; the plan leaves it on what it runs", bears=True)
    if now.ours and worker not in plan.basis.ours:
        if not _comes_first(plan, situation, worker):
            # Its siblings, which come before it, would wait for it for ever.
            yield _Change(f"{worker} is out since an earlier rollout of ours, and has to come first in its pool")
        else:
            yield _Change(
                f"{worker} is out since an earlier rollout of ours; it is the first of its pool, and comes back with its turn", bears=True
            )
    elif worker in plan.basis.ours and not now.ours and not now.foreign:
        yield _Change(f"{worker}, which an earlier rollout of ours had left out, is back", bears=True)


def _comes_first(plan: Plan, situation: Situation, worker: WorkerId) -> bool:
    pools = {one.id: one.pool for one in situation.workers}
    mates = [step.worker for step in steps_of(plan.phases) if step.worker is not None and pools.get(step.worker) == pools[worker]]
    return bool(mates) and mates[0] == worker


def _of_releases(plan: Plan, observation: Observation) -> Iterator[_Change]:
    for release in plan.releases.values():
        now = observation.releases.get(release.id)
        if now is None:
            # What the workers run is asked of each of them; the new one is prepared by the plan, if it isn't there.
            if release.schema_version is not None and release.id == plan.to_release.id:
                yield _Change(f"{release.id} is no longer prepared at the target; the plan prepares it again", bears=True)
            continue
        if differences := [
            name for name in ("version", "artefact_lock", "config_digest", "modules", "topology") if _differs(release, now, name)
        ]:
            yield _Change(f"{release.id} at the target was prepared differently: {', '.join(differences)}")
        elif release.schema_version is None and now.schema_version is not None:
            yield _Change(f"{release.id} was prepared meanwhile", bears=True)
        elif _differs(release, now, "schema_version") or _differs(release, now, "schema_compat_version"):
            yield _Change(
                f"{release.id} at the target was prepared differently: schema {now.schema_version}, compatible back to "
                f"{now.schema_compat_version}, not {release.schema_version} and {release.schema_compat_version}"
            )


def _differs(one: Release, other: Release, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


def _of_schema(plan: Plan, observation: Observation) -> Iterator[_Change]:
    before, now = plan.basis.schema, basis.of_schema(observation.schema)
    if before == now:
        return
    if before is None or now is None:
        yield _Change(f"the database's schema can{'not' if now is None else ''} be seen now, unlike when this was planned")
    elif before[:2] != now[:2]:
        yield _Change(f"the database's schema changed: {now[0]}, compatible back to {now[1]}, not {before[0]} and {before[1]}")
    else:
        yield _Change("the database's schema changed: other deltas were applied to it")


def _of_files(plan: Plan, inventory: Inventory, playbook: Playbook | None) -> Iterator[_Change]:
    if playbook is not None and digest_of_playbook(playbook) != plan.playbook_digest:
        was, now = plan.basis.playbook, playbook.model_dump(mode="json")
        for key, old, new in _differences(was, now):
            # What a playbook is called is nowhere in the plan.
            yield _Change(f"playbook: {key} is {_shown(new)}, not {_shown(old)}", bears=key == "name")
    if digest_of_inventory(inventory) != plan.basis.inventory_digest:
        found = list(_differences(plan.basis.inventory, basis.of_inventory(inventory)))
        for key, old, new in found:
            if key.count(".") > 1:  # whole workers are said to be new or missing already
                value = "another one" if key.endswith((".url", ".metrics")) else f"{_shown(new)}, not {_shown(old)}"
                yield _Change(f"inventory: {key} is {value}")
            elif key.startswith("pools."):
                yield _Change(f"inventory: {key} is {'gone' if new is None else 'new'}")
        if not found:
            yield _Change("inventory: settings of drivers changed; what is reached through them was seen anew", bears=True)


def _differences(old: JsonValue, new: JsonValue, path: str = "") -> Iterator[tuple[str, JsonValue, JsonValue]]:
    """Find what differs: path, old and new; entries of a list that have an `id` (gates) or a `guard` go by that."""
    old, new = _by_name(old), _by_name(new)
    if [] in (old, new):
        # None of what the other side has by name.
        old, new = ({} if value == [] and isinstance(other, dict) else value for value, other in ((old, new), (new, old)))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif old != new:
        yield path, old, new


def _by_name(value: JsonValue) -> JsonValue:
    if not isinstance(value, list) or not value:
        return value
    named: dict[str, JsonValue] = {}
    for entry in value:
        name = (entry.get("id") or entry.get("guard")) if isinstance(entry, dict) else None
        if not isinstance(name, str):
            return value
        named[name] = entry
    return named


def _shown(value: JsonValue) -> str:
    match value:
        case None:
            return "absent"
        case float():
            text = f"{value:g}"
        case list():
            text = f"[{', '.join(_shown(one) for one in value)}]"
        case dict():
            text = f"{{{', '.join(f'{key}: {_shown(one)}' for key, one in value.items() if one is not None)}}}"
        case _:
            text = str(value)
    return text if len(text) <= _VALUE_MAX else f"{text[: _VALUE_MAX - 1]}…"


def _of_load(plan: Plan, situation: Situation) -> Iterator[_Change]:
    """Ask again whether the others can do without each, with the load of now and the plan's own limits."""
    for worker, room in rooms_now(plan, situation).items():
        if why := capacity.refusal(worker, room, plan.capacity):
            yield _Change(why)
            continue
        before = plan.headroom.get(worker)
        if before is None or before.unknown or room.unknown or room.sibling is None:
            continue
        if room.then - before.then >= _LOAD_CHANGE:
            more = f"{room.sibling} would carry {100 * room.then:.0f} % of a core while {worker} is out, not {100 * before.then:.0f} %"
            yield _Change(f"there is more to do: {more}; that is within the playbook's capacity", bears=True)


def rooms_now(plan: Plan, situation: Situation) -> dict[WorkerId, Headroom]:
    """Predict, for every worker that the plan takes out, from the load of now."""
    workers = {worker.id: worker for worker in situation.workers}
    rows = [
        tuple(workers[worker] for worker in wave.workers if worker in workers)
        for phase in plan.phases
        for wave in phase.waves
        if wave.workers
    ]
    return {worker: room for row in rows for worker, room in capacity.of_row(row, situation).items()}
