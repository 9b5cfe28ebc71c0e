"""The steps of one worker, on the way there and on the way back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rollout.model.gate import Gate, Recovery
from rollout.model.ids import GateId, ReleaseId, StepId, WorkerId
from rollout.model.plan import Ramp, Step, Verb, Worker
from rollout.model.playbook import Ramp as WrittenRamp
from rollout.model.playbook import Strategy

# Telling the proxy something either works at once or not at all: a third attempt only bridges a reload.
PROXY_ATTEMPTS_MAX = 3
# The proxy shows a weight within a second of being told; its own health check may take some more to see the worker up.
ADMIT_MARGIN_S = 60.0
# A worker without gates is watched for being alive; this is when that must have been settled.
LIVENESS_DEADLINE_S = 300.0
# How many times as long as at its quickest a ramp by utilisation may take before the worker counts as unable to carry its load.
UTILISATION_PATIENCE = 6

# Of a hold's time, what requests under way may take to end; the rest is for the boot.
HOLD_SHARE_TO_END = 0.3
# After its time a driver that warms is left alone; this is when it must have said what it did.
WARM_MARGIN_S = 30.0


class Way(StrEnum):
    """How a worker is taken out of traffic for its restart."""

    DRAINED = "drained"  # a sibling takes over
    HELD = "held"  # its requests wait in the proxy
    AS_IT_STANDS = "as_it_stands"  # what is under way is cut


_VERBS = {
    Way.DRAINED: (Verb.DRAIN, Verb.RESTART, Verb.AWAIT_HEALTHY, Verb.ADMIT, Verb.SOAK),
    Way.HELD: (Verb.HOLD, Verb.RESTART, Verb.AWAIT_HEALTHY, Verb.LET_GO, Verb.SOAK),
    Way.AS_IT_STANDS: (Verb.RESTART, Verb.AWAIT_HEALTHY, Verb.SOAK),
}
_UNDO = {
    Verb.DRAIN: Verb.ADMIT,
    Verb.ADMIT: Verb.DRAIN,
    Verb.HOLD: Verb.LET_GO,
    Verb.LET_GO: Verb.HOLD,
    Verb.RESTART: Verb.RESTART,
}


@dataclass(frozen=True, slots=True)
class Turn:
    """
    One worker's turn: to which *release* it goes and what that *change* is, which *gates* it must pass then, and why it is its turn.

    *inheritors* are the siblings to warm before it is drained; *warmed*: it is warmed itself before it is admitted. *condemns* is
    the release that it is taken back from. *recovery* is the load that it must come back to, if there is such a gate.
    """

    worker: Worker
    way: Way
    release: ReleaseId
    change: str
    gates: tuple[GateId, ...]
    why: str
    prefix: str = ""
    inheritors: tuple[WorkerId, ...] = ()
    warmed: bool = False
    condemns: ReleaseId | None = None
    recovery: Recovery | None = None


def worker_steps(turn: Turn, needs: tuple[StepId, ...], strategy: Strategy, gates: Mapping[GateId, Gate]) -> tuple[Step, ...]:
    """Chain the steps of one worker; the first needs *needs*."""
    steps: list[Step] = []
    for name, verb, warms in _named_verbs(turn):
        step = Step(
            id=StepId(f"{turn.worker.id}/{turn.prefix}{name}"),
            verb=verb,
            worker=turn.worker.id,
            release=turn.release,
            needs=(steps[-1].id,) if steps else needs,
            deadline_s=_deadline_s(verb, turn, strategy, gates),
            attempts_max=_attempts_max(verb, strategy),
            undo=_UNDO.get(verb),
            gates=turn.gates if verb is Verb.SOAK else (),
            why=_why(verb, turn, strategy, warms) if steps or warms else turn.why,
            warms=warms,
            condemns=turn.condemns,
        )
        steps.append(step)
    return tuple(steps)


def _named_verbs(turn: Turn) -> list[tuple[str, Verb, tuple[WorkerId, ...]]]:
    """List the verbs with the ends of their steps' names, and whom each warms."""
    rows: list[tuple[str, Verb, tuple[WorkerId, ...]]] = [(verb.value, verb, ()) for verb in _VERBS[turn.way]]
    if turn.warmed:
        rows.insert([verb for _, verb, _ in rows].index(Verb.ADMIT), ("warm", Verb.WARM, (turn.worker.id,)))
    if turn.inheritors:
        rows.insert(0, ("warm_inheritors", Verb.WARM, turn.inheritors))
    return rows


def ramp_s(ramp: Ramp | WrittenRamp) -> float:
    """Return how long a ramp takes at least: each weight but the last is held."""
    if ramp.utilisation_max is None:
        return (len(ramp.weights) - 1) * ramp.step_s
    # It doubles at most.
    return max(1, math.ceil(math.log2(100 / ramp.weights[0]))) * ramp.step_s


def ramp_down_s(ramp: Ramp | WrittenRamp) -> float:
    """Return how long the way down takes."""
    return len(ramp.down) * ramp.step_s


def _deadline_s(verb: Verb, turn: Turn, strategy: Strategy, gates: Mapping[GateId, Gate]) -> float:
    match verb:
        case Verb.WARM:
            return (strategy.warm.seconds if strategy.warm is not None else 0.0) * max(1, len(turn.inheritors)) + WARM_MARGIN_S
        case Verb.DRAIN:
            return strategy.drain_timeout_s
        case Verb.HOLD:
            return min(strategy.drain_timeout_s, HOLD_SHARE_TO_END * strategy.hold.hold_s)
        case Verb.ADMIT:
            # One that is busy takes its traffic back more slowly than the forecast says.
            return ramp_s(strategy.ramp) * (1 if strategy.ramp.utilisation_max is None else UTILISATION_PATIENCE) + ADMIT_MARGIN_S
        case Verb.LET_GO:
            return ADMIT_MARGIN_S
        case Verb.SOAK:
            deadlines_s = [gates[gate].deadline_s for gate in turn.gates] or [LIVENESS_DEADLINE_S]
            return max(*deadlines_s, turn.recovery.deadline_s if turn.recovery is not None else 0.0)
        case _:
            return strategy.boot_timeout_s


def _attempts_max(verb: Verb, strategy: Strategy) -> int:
    match verb:
        case Verb.DRAIN | Verb.ADMIT | Verb.HOLD | Verb.LET_GO:
            return PROXY_ATTEMPTS_MAX
        case Verb.RESTART:
            return strategy.restart_attempts_max
        case _:
            return 1


def _why(verb: Verb, turn: Turn, strategy: Strategy, warms: tuple[WorkerId, ...] = ()) -> str:
    match verb:
        case Verb.WARM if turn.worker.id in warms:
            return "its caches first, then its users"
        case Verb.WARM:
            return f"its users go to {', '.join(warms)} first, whose caches don't know them"
        case Verb.DRAIN:
            return turn.why
        case Verb.LET_GO:
            return "what has waited goes on, once the proxy itself sees it up"
        case Verb.RESTART:
            return turn.change
        case Verb.AWAIT_HEALTHY:
            return (
                "no traffic before it answers and is seen to run the release"
                if turn.way is not Way.AS_IT_STANDS
                else "until it answers and is seen to run the release"
            )
        case Verb.ADMIT if strategy.ramp.utilisation_max is not None:
            start, most = strategy.ramp.weights[0], strategy.ramp.utilisation_max
            return f"from {start} %, every {strategy.ramp.step_s:g} s as much more as keeps it below {most:.0%} of a core"
        case Verb.ADMIT:
            weights = ", ".join(str(weight) for weight in strategy.ramp.weights)
            return (
                f"{weights} % of its weight, {strategy.ramp.step_s:g} s each"
                if len(strategy.ramp.weights) > 1
                else "with its full weight at once"
            )
        case Verb.SOAK if turn.gates:
            names = (*turn.gates, *(("recovery",) if turn.recovery is not None else ()))
            return f"must pass {', '.join(names)} before anybody else goes out"
        case _:
            return "liveness only: nothing more is known of this role, and the playbook accepts that"
