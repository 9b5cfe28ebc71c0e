"""
What is still to be done, and who is concerned: it changes only when a step moves, while decisions are asked for at every look.

So it is kept from one decision to the next, and worked out anew when something that it was made of is no longer the same.
"""

from dataclasses import dataclass
from functools import cached_property

from rollout.deciding.index import PlanIndex, index_of
from rollout.deciding.state import DeployState, Direction, StepStatus, is_taken_back
from rollout.model.ids import StepId, WorkerId
from rollout.model.plan import Duty, Plan, Step, Verb

# What brings a worker back that was restarted on the way forward.
_RETURN = frozenset({Verb.RESTART, Verb.AWAIT_HEALTHY, Verb.WARM, Verb.ADMIT, Verb.LET_GO})
_OUT = frozenset({Verb.DRAIN, Verb.HOLD, Verb.RESTART, Verb.AWAIT_HEALTHY, Verb.ADMIT, Verb.LET_GO})
# Looked up so often that going through the class would count.
_DONE, _PENDING = StepStatus.DONE, StepStatus.PENDING
# As many rollouts as are under way at the same time in one process.
_KEPT = 32


@dataclass(frozen=True)  # without slots: what is seldom asked for is worked out when it is
class Agenda:
    """
    The steps of one state.

    *open* are those still to be done, in order, *ready* those of them whose needs are met, *passed* the SOAKs that are done on the way
    forward. *touched* are the workers that were restarted.
    """

    index: PlanIndex
    state: DeployState
    touched: list[WorkerId]
    open: tuple[Step, ...]
    ready: tuple[Step, ...]
    passed: tuple[tuple[Step, WorkerId], ...]

    def serves(self, state: DeployState, touched: list[WorkerId]) -> bool:
        """Tell whether nothing that this was made of has changed since."""
        mine = self.state
        return (
            mine.steps is state.steps
            and mine.direction is state.direction
            and mine.skipped is state.skipped
            and mine.blamed is state.blamed
            and self.touched == touched
        )

    @cached_property
    def watching(self) -> bool:
        """Tell whether the last watch is under way."""
        watch = self.index.watch
        forward = self.state.direction is Direction.FORWARD
        return forward and watch is not None and self.state.steps[watch.id].status is StepStatus.ACTIVE

    @cached_property
    def begun(self) -> list[Step]:
        """List those that are open and have begun."""
        steps = self.state.steps
        return [step for step in self.open if steps[step.id].status is not _PENDING]

    @cached_property
    def focus(self) -> frozenset[WorkerId]:
        """
        Name the workers that are worth measuring now: those under way or touched, and their pools; and the pool of whoever is next.

        All while surveying, and while one has its turn whose work the others ask for (it isn't replaceable): what fails then, fails with
        them.
        """
        index, steps = self.index, self.state.steps
        begun = {step.worker for step in index.way(self.state.direction).steps if steps[step.id].status is not _PENDING}
        turns = {step.worker for step in self.open if step.worker in begun}
        surveying = any(step.verb is Verb.SURVEY for step in self.begun)
        workers = index.plan.workers
        if surveying or any(worker.id in turns and worker.duty is not Duty.REPLACEABLE for worker in workers):
            return frozenset(worker.id for worker in workers)
        chosen = turns.union(self.touched)
        following = next((step.worker for step in self.open if step.worker is not None and step.worker not in begun), None)
        pools = {worker.pool for worker in workers if worker.id in {*chosen, following} and worker.pool is not None}
        return frozenset(worker.id for worker in workers if worker.id in chosen or worker.pool in pools)

    @cached_property
    def is_anybody_out(self) -> bool:
        """Tell whether a worker is out or coming back."""
        return any(step.verb in _OUT for step in self.begun)


# The agenda of each plan, with the state that it was last asked for.
_known: dict[int, tuple[DeployState, Agenda]] = {}


def agenda_of(plan: Plan, state: DeployState) -> Agenda:
    """Return what is still to be done."""
    kept = _known.get(id(plan))
    if kept is not None and kept[0] is state and kept[1].index.plan is plan:
        return kept[1]
    index = index_of(plan)
    if kept is not None and kept[1].index is index and kept[0].workers is state.workers:
        # Nobody has changed: most looks at a thousand workers show nothing else.
        touched = kept[1].touched
    else:
        touched = [worker for worker, known in state.workers.items() if known.touched]
    agenda = kept[1] if kept is not None and kept[1].index is index and kept[1].serves(state, touched) else _make(index, state, touched)
    if len(_known) >= _KEPT:
        _known.clear()
    _known[id(plan)] = (state, agenda)
    return agenda


def _make(index: PlanIndex, state: DeployState, touched: list[WorkerId]) -> Agenda:
    steps, way = state.steps, index.way(state.direction)
    there = way.steps
    forward = state.direction is Direction.FORWARD
    if forward and not state.skipped:
        # Everybody's steps are to be done: by far the commonest case.
        left = [step for step in there if steps[step.id].status is not _DONE]
        met = set(way.ids.difference([step.id for step in left]))
    else:
        concerned = (*_begun(index, state), *(step for step in there if _concerns(state, step)))
        left = [step for step in concerned if steps[step.id].status is not _DONE]
        met = _met(index, state)
    ready = tuple([step for step in left if met.issuperset(step.needs)])
    passed = tuple([pair for pair in index.soaks if steps[pair[0].id].status is _DONE]) if forward else ()
    return Agenda(index, state, touched, tuple(left), ready, passed)


def _begun(index: PlanIndex, state: DeployState) -> tuple[Step, ...]:
    """
    List, on the way back, the steps forward that bring back those who were being restarted when it began and aren't blamed.

    Who keeps the release comes back as it would have: with its ramp and its deadlines. Who misses them is blamed as well (see go_back).
    """
    if state.direction is Direction.FORWARD:
        return ()
    ways = index.forward.steps
    restarted = {step.worker for step in ways if step.verb is Verb.RESTART and state.steps[step.id].status is not _PENDING}
    keep = {worker for worker, known in state.workers.items() if known.touched and not is_taken_back(state, worker)} & restarted
    return tuple(step for step in ways if step.verb in _RETURN and step.worker in keep)


def _concerns(state: DeployState, step: Step) -> bool:
    """Tell whether a step is to be done at all: not one of a worker that a person skipped, or that isn't taken back."""
    if state.direction is Direction.FORWARD:
        return step.worker is None or step.worker not in state.skipped
    return step.worker is not None and is_taken_back(state, step.worker)


def _met(index: PlanIndex, state: DeployState) -> set[StepId]:
    """
    Name the steps that others needn't wait for: those that are done, and those that nobody takes.

    What a step that nobody takes needs comes first all the same: each names only the one before it.
    """
    met = {step for step, at in state.steps.items() if at.status is _DONE}
    for step in index.way(state.direction).steps:
        if not _concerns(state, step) and met.issuperset(step.needs):
            met.add(step.id)
    return met
