"""
The figures of a simulated homeserver, fitted from the journals of real rollouts.

A *record* is what one journal says about one rollout: how long acts, boots, drains and holds took, how many requests a worker had and what
they cost. A figure is drawn from what was seen, evenly between neighbouring values (the empirical distribution): with a handful of values
no formula would be better founded. A role with too few of its own is drawn from all roles together.

A boot is timed by the first look that saw the worker answer, so each is too long by up to one pause between looks.
The records of lab rollouts lie in lab_timings/; they are written by `python -m rollout.simulation.fitting JOURNAL...`.
"""

import json
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rollout.adapters.journal.sql import open_journal
from rollout.deciding.timings import Times, times_of
from rollout.model.effect import Effect
from rollout.model.event import EffectIntended, EffectSucceeded, Event, Observed, Outcome, SamplesTaken, StepFinished
from rollout.model.ids import DeployId, Role, StepId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan, Verb, steps_of
from rollout.ports.journal import Journal
from rollout.simulation.performer import Durations
from rollout.simulation.world import World

LAB = Path(__file__).parent / "lab_timings"
LAB_HOMESERVER = "lab.localhost"
# With fewer values of its own a role is drawn from all roles together.
ENOUGH = 4
# A hundred times apart from role to role: another role's says nothing.
_OF_ITS_ROLE = frozenset({"requests_per_s", "request_cpu_s"})
ROLLOUTS_MAX = 20
# Journals don't say what the proxy may have: enough for what waits for main at its busiest (a hundred requests a second, doubled, 20 s).
_CONNECTIONS_MAX = 20_000
# What has to be there before a journal replaces the lab's: a rollout that restarted nobody says nothing.
NEEDED = frozenset({"boot_s", "restart_s"})
# Of no role: the whole homeserver's.
WHOLE = ""
_ACTS = {Verb.PREPARE: "prepare_s", Verb.MIGRATE: "migrate_s", Verb.WARM: "warm_s", Verb.RESTART: "restart_s"}
# Those whose length is the homeserver's doing; the others' is the playbook's.
_COMPARED = frozenset({Verb.PREPARE, Verb.MIGRATE, Verb.DRAIN, Verb.HOLD, Verb.RESTART, Verb.AWAIT_HEALTHY})

Values = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Record:
    """
    One rollout: *figures* by name and role, in seconds (or a second), and *steps* by verb and role, in seconds, as timings.py has them.

    Figures are what is fitted, steps what a simulated rollout is compared by.
    """

    deploy_id: str
    outcome: str
    figures: Values = field(default_factory=dict)
    steps: Values = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Sorted values by name and role (WHOLE: of all together), and in words which rollouts they are from."""

    values: dict[str, dict[str, tuple[float, ...]]]
    source: str

    def draw(self, name: str, role: str, rng: random.Random) -> float | None:
        """Draw a figure; None when nothing is known of it."""
        known = self.values.get(name, {})
        ordered = known.get(role) or known.get(WHOLE) or ()
        if not ordered:
            return None
        place = rng.random() * (len(ordered) - 1)
        below = min(int(place), len(ordered) - 1)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def record_of(deploy_id: str, plan: Plan, events: Sequence[Event]) -> Record:
    """Read the record off a journal. Raises ValueError when it holds no event at all."""
    times = times_of(plan, events)
    roles = {worker.id: worker.role for worker in plan.workers}
    record = Record(deploy_id, times.outcome.value if times.outcome is not None else "unfinished")
    _enter_steps(record, times, roles)
    # The proxy's check comes last, of those that it knows; what it says of a worker that just went down may be of before.
    proxied = {worker.id for worker in plan.workers if worker.pool is not None}
    awaits = {step.id: step.worker for step in steps_of(plan.phases) if step.verb is Verb.AWAIT_HEALTHY and step.worker in proxied}
    _enter_effects(record, events, roles, awaits)
    _enter_load(record, events, roles)
    return record


def read_records(journal: Journal, homeserver: str) -> list[Record]:
    """Read the newest finished rollouts of a homeserver. Raises DriverError when the journal can't be read."""
    lines = [line for line in journal.deploys(homeserver, 2 * ROLLOUTS_MAX) if line.outcome in {Outcome.DEPLOYED, Outcome.ROLLED_BACK}]
    return [_read(journal, line.deploy_id) for line in lines[:ROLLOUTS_MAX]]


def lab_records() -> list[Record]:
    """Read the records of the lab's rollouts, by their names."""
    return [Record(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(LAB.glob("*.json"))]


def fit(records: Iterable[Record], whose: str) -> Fitted:
    """Put records together."""
    everything = list(records)
    values: dict[str, dict[str, tuple[float, ...]]] = {}
    for name in sorted({name for record in everything for name in record.figures}):
        by_role: dict[str, list[float]] = {}
        for record in everything:
            for role, seen in record.figures.get(name, {}).items():
                by_role.setdefault(role, []).extend(seen)
        if name in _OF_ITS_ROLE:
            values[name] = {role: tuple(sorted(seen)) for role, seen in by_role.items()}
            continue
        together = tuple(sorted(value for seen in by_role.values() for value in seen))
        values[name] = {role: tuple(sorted(seen)) for role, seen in by_role.items() if len(seen) >= ENOUGH} | {WHOLE: together}
    dates = sorted(record.deploy_id[:8] for record in everything)
    when = f", {dates[0]} to {dates[-1]}" if dates else ""
    return Fitted(values, f"{len(everything)} rollouts of {whose}{when}")


def choose(journal: Journal | None, homeserver: str) -> Fitted:
    """Fit the homeserver's own rollouts; where there are none that restarted anybody, the lab's."""
    records = [] if journal is None else read_records(journal, homeserver)
    own = fit(records, homeserver)
    return own if own.values.keys() >= NEEDED else fit(lab_records(), "the lab")


@dataclass(frozen=True, slots=True)
class Drawn:
    """
    The figures of one rehearsal.

    Each is drawn by the seed, what it is of, and how often before: the order in which they are asked for doesn't matter.
    """

    fitted: Fitted
    seed: int
    roles: Mapping[WorkerId, Role]
    _before: dict[tuple[str, str], int] = field(default_factory=dict)

    def next(self, name: str, worker: WorkerId | None) -> float | None:
        """Draw the next *name* of a worker, or of the whole homeserver."""
        whose = worker or WHOLE
        count = self._before[name, whose] = self._before.get((name, whose), 0) + 1
        rng = random.Random(f"{self.seed}/{name}/{whose}/{count}")  # noqa: S311  (to be played again, not to be secret)
        return self.fitted.draw(name, WHOLE if worker is None else self.roles[worker], rng)


@dataclass(frozen=True, slots=True)
class DrawnDurations(Durations):
    """Durations of effects that are drawn; what is not known takes as long as by default."""

    drawn: Drawn | None = None

    def of(self, effect: Effect) -> float:
        """See Durations."""
        usual_s = Durations.of(self, effect)
        seconds = None if self.drawn is None else self.drawn.next(_ACTS.get(effect.verb, "proxy_s"), effect.worker)
        return usual_s if seconds is None else seconds


def settle_in(world: World, inventory: Inventory, fitted: Fitted, seed: int) -> Durations:
    """Give a simulated homeserver its fitted figures, and return how long effects take there."""
    drawn = Drawn(fitted, seed, {worker: entry.role for worker, entry in inventory.workers.items()})
    world.draw, world.connections_max = drawn.next, _CONNECTIONS_MAX
    world.check_s = _or(drawn.next("check_s", None), world.check_s)
    world.held_ends_s = _or(drawn.next("held_ends_s", None), world.held_ends_s)
    for worker, it in world.workers.items():
        it.requests_per_s = _or(drawn.next("requests_per_s", worker), it.requests_per_s)
        it.request_cpu_s = drawn.next("request_cpu_s", worker)
    return DrawnDurations(drawn=drawn)


def _or(drawn: float | None, usual: float) -> float:
    return usual if drawn is None else drawn


def _read(journal: Journal, deploy_id: DeployId) -> Record:
    return record_of(deploy_id, journal.plan(deploy_id), [event for _, event in journal.events(deploy_id)])


def _put(values: Values, name: str, role: str, value: float) -> None:
    values.setdefault(name, {}).setdefault(role, []).append(round(value, 4))


def _enter_steps(record: Record, times: Times, roles: Mapping[WorkerId, Role]) -> None:
    for one in times.steps.values():
        if one.disturbed or one.step.verb not in _COMPARED:
            continue
        role = WHOLE if one.step.worker is None else roles[one.step.worker]
        _put(record.steps, one.step.verb, role, one.seconds)
        if one.step.verb is Verb.DRAIN and one.sessions:
            # Half a session counts as none, as in the simulated world.
            _put(record.figures, "session_life_s", role, one.seconds / (1 - 0.5 / one.sessions))
        if one.step.verb is Verb.HOLD:
            _put(record.figures, "held_ends_s", role, one.seconds)


def _enter_effects(
    record: Record, events: Sequence[Event], roles: Mapping[WorkerId, Role], awaits: Mapping[StepId, WorkerId | None]
) -> None:
    """Enter how long acts took, how long after its restart a worker answered, and how long after that the proxy saw it."""
    intended: dict[int, EffectIntended] = {}
    restarted: dict[WorkerId, float] = {}
    answered: dict[WorkerId, float] = {}
    for event in events:
        match event:
            case EffectIntended():
                intended[event.effect.number] = event
            case EffectSucceeded() if (intent := intended.get(event.number)) is not None:
                worker = intent.effect.worker
                role = WHOLE if worker is None else roles[worker]
                _put(record.figures, _ACTS.get(intent.effect.verb, "proxy_s"), role, event.at_s - intent.at_s)
                if intent.effect.verb is Verb.RESTART and worker is not None:
                    restarted[worker] = event.at_s
                    answered.pop(worker, None)
            case Observed():
                for worker, sighting in event.observation.sightings.items():
                    if sighting.healthy and worker in restarted:
                        answered[worker] = event.at_s
                        _put(record.figures, "boot_s", roles[worker], event.at_s - restarted.pop(worker))
            case StepFinished() if (awaited := awaits.get(event.step_id)) is not None and awaited in answered:
                _put(record.figures, "check_s", roles[awaited], event.at_s - answered.pop(awaited))
            case _:
                pass


def _enter_load(record: Record, events: Sequence[Event], roles: Mapping[WorkerId, Role]) -> None:
    """Enter each worker's requests a second, and what one cost, over all that was measured of it."""
    sums: dict[WorkerId, tuple[float, float, float]] = {}
    for event in events:
        if isinstance(event, SamplesTaken):
            for worker, tally in event.measured.tallies.items():
                seconds, requests, cpu_s = sums.get(worker, (0.0, 0.0, 0.0))
                sums[worker] = (seconds + tally.until_s - tally.since_s, requests + tally.requests + tally.polls, cpu_s + tally.cpu_s)
    for worker, (seconds, requests, cpu_s) in sums.items():
        if seconds > 0 and requests > 0:
            _put(record.figures, "requests_per_s", roles[worker], requests / seconds)
            if cpu_s > 0:
                _put(record.figures, "request_cpu_s", roles[worker], cpu_s / requests)


def write_records(journals: Sequence[str], folder: Path = LAB, homeserver: str = LAB_HOMESERVER) -> list[Path]:
    """Write a record of each finished rollout in the journals, one file each; one that is there already is written anew."""
    paths = []
    for place in journals:
        for record in read_records(open_journal(place), homeserver):
            path = folder / f"{record.deploy_id}.json"
            path.write_text(json.dumps(asdict(record), indent=1, sort_keys=True) + "\n", encoding="utf-8")
            paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write_records(sys.argv[1:]):
        sys.stdout.write(f"{written}\n")
