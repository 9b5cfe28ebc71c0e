"""
What can be read off a plan once, instead of being looked up at every decision: a rollout asks the same few questions a thousand times.

A plan never changes, so its index is kept by the plan itself (by identity; a plan that was read from its file again has another one). Those
of a few plans are kept: a process rolls one out, and a campaign of rehearsals many, but one after the other.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from rollout.deciding.state import Direction
from rollout.gating import sequential
from rollout.gating.excuse import Passed
from rollout.gating.sequential import Odds, Seen
from rollout.gating.threshold import Compared
from rollout.gating.windows import BURSTS, Window
from rollout.model.gate import Gate, Tally, Verdict
from rollout.model.ids import GateId, PoolId, Role, StepId, WorkerId
from rollout.model.plan import Plan, Step, Verb, Worker, steps_of

# More plans than are rolled out at the same time by one process.
_KEPT = 32


@dataclass(frozen=True, slots=True)
class Way:
    """
    One direction. *out* is the step (DRAIN or HOLD) that takes a worker out; those in *returned* have one that brings them back (ADMIT or
    LET_GO).
    """

    steps: tuple[Step, ...]
    ids: frozenset[StepId]
    by_worker: dict[WorkerId, tuple[Step, ...]]
    out: dict[WorkerId, Step]
    returned: frozenset[WorkerId]


@dataclass(frozen=True, slots=True)
class Kept:
    """
    What the windows of one SOAK's worker were ruled to be, and from what: whether the *newest* fails, by the gate, and what *failed*.

    It is asked for by identity: *watched* and *baseline* are what they were, or all is ruled again.
    """

    watched: dict[GateId, tuple[Window, ...]]
    baseline: Tally | None
    newest: dict[GateId, tuple[Window, bool]]
    failed: tuple[tuple[Gate, Verdict], ...]


class Weighed(NamedTuple):
    """
    What a sequential gate found of one worker, and from what; *kept* is what it goes on from. Unless *in_full* the odds only tell whether
    it fails.
    """

    seen: Seen
    odds: Odds | None
    kept: sequential.Kept | None
    in_full: bool = True


@dataclass(frozen=True, slots=True)
class PlanIndex:
    """
    One plan, by what is asked of it.

    *soaks* are the SOAKs of the way forward, *watched_gates* those of their gates that go on ruling until the last watch has ended, and
    *surveys* and *watch* the steps of those verbs. *weighed_gates* are the sequential ones, and *shadow_gates* those that don't act
    (shadowing.py). Those *already_on_it* ran the release before: they show nothing of how it was without it. *rulings* (watching.py), what
    was *compared* (soaking.py), what was *weighed*, who was *excused* by whom and what is *calm* of a role (weighing.py) are kept by
    the way, and so are the *pasts* of pools (seeing.py).
    """

    plan: Plan
    forward: Way
    back: Way
    steps: dict[StepId, Step]
    workers: dict[WorkerId, Worker]
    pools: dict[WorkerId, PoolId | None]
    surveys: tuple[Step, ...]
    watch: Step | None
    soaks: tuple[tuple[Step, WorkerId], ...]
    watched_gates: dict[WorkerId, tuple[Gate, ...]]
    weighed_gates: dict[WorkerId, tuple[Gate, ...]]
    shadow_gates: dict[WorkerId, tuple[Gate, ...]]
    already_on_it: frozenset[WorkerId]
    rulings: dict[WorkerId, Kept] = field(default_factory=dict)
    compared: dict[tuple[WorkerId, GateId], Compared] = field(default_factory=dict)
    weighed: dict[tuple[WorkerId, GateId], Weighed] = field(default_factory=dict)
    excused: dict[tuple[WorkerId, GateId], tuple[Weighed, tuple[Passed, ...], Weighed]] = field(default_factory=dict)
    pasts: dict[WorkerId, tuple[list[Tally], Tally | None]] = field(default_factory=dict)
    calm: dict[tuple[Role, GateId], tuple[list[Passed], list[Passed], list[Passed]]] = field(default_factory=dict)

    def windowed(self, worker: WorkerId) -> tuple[Gate, ...]:
        """List the gates of a worker that look at windows, those that don't act among them."""
        shadows = self.shadow_gates.get(worker, ()) if self.shadow_gates else ()
        return (*self.watched_gates.get(worker, ()), *(gate for gate in shadows if gate.odds is None and gate.metric not in BURSTS))

    def compares_on(self, worker: WorkerId) -> bool:
        """Tell whether a worker that has passed is still compared with its pool as a whole, by a threshold that doesn't act."""
        return bool(self.shadow_gates) and any(gate.odds is None for gate in self.shadow_gates.get(worker, ()))

    def way(self, direction: Direction) -> Way:
        """Return the one that is followed."""
        return self.forward if direction is Direction.FORWARD else self.back


_known: dict[int, PlanIndex] = {}


def index_of(plan: Plan) -> PlanIndex:
    """Return the index of *plan*, which is made the first time."""
    index = _known.get(id(plan))
    # While an index is kept so is its plan, and no other can have the same identity.
    if index is None or index.plan is not plan:
        index = _make(plan)
        if len(_known) >= _KEPT:
            _known.clear()
        _known[id(plan)] = index
    return index


def _make(plan: Plan) -> PlanIndex:
    forward, back = _way(steps_of(plan.phases)), _way(steps_of(plan.rollback))
    soaks = tuple((step, step.worker) for step in forward.steps if step.verb is Verb.SOAK and step.worker is not None)
    return PlanIndex(
        plan=plan,
        forward=forward,
        back=back,
        steps={step.id: step for step in (*back.steps, *forward.steps)},
        workers={worker.id: worker for worker in plan.workers},
        pools={worker.id: worker.pool for worker in plan.workers},
        surveys=tuple(step for step in forward.steps if step.verb is Verb.SURVEY),
        watch=next((step for step in forward.steps if step.verb is Verb.WATCH), None),
        soaks=soaks,
        watched_gates={worker: _watched(plan, step) for step, worker in soaks},
        weighed_gates={worker: gates for step, worker in soaks if (gates := _weighed(plan, step))},
        shadow_gates={worker: gates for step, worker in soaks if (gates := _shadows(plan, step))},
        already_on_it=frozenset(worker for worker, release in plan.from_releases.items() if release == plan.to_release.id),
    )


def _watched(plan: Plan, soak: Step) -> tuple[Gate, ...]:
    return tuple(gate for name in soak.gates if (gate := plan.gates[name]).metric not in BURSTS and gate.odds is None and gate.acts)


def _weighed(plan: Plan, soak: Step) -> tuple[Gate, ...]:
    return tuple(gate for name in soak.gates if (gate := plan.gates[name]).odds is not None)


def _shadows(plan: Plan, soak: Step) -> tuple[Gate, ...]:
    return tuple(gate for name in soak.gates if not (gate := plan.gates[name]).acts)


def _way(steps: tuple[Step, ...]) -> Way:
    by_worker: dict[WorkerId, tuple[Step, ...]] = {}
    out: dict[WorkerId, Step] = {}
    for step in steps:
        if step.worker is not None:
            by_worker[step.worker] = (*by_worker.get(step.worker, ()), step)
            if step.verb in {Verb.DRAIN, Verb.HOLD}:
                out.setdefault(step.worker, step)
    returned = frozenset(step.worker for step in steps if step.worker is not None and step.verb in {Verb.ADMIT, Verb.LET_GO})
    return Way(steps, frozenset(step.id for step in steps), by_worker, out, returned)
