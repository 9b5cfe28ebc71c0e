"""The steps of one worker, on the way there and on the way back."""

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.model.gate import Gate
from rollout.model.ids import GateId, ReleaseId, StepId
from rollout.model.plan import Step, Verb, Worker
from rollout.model.playbook import Strategy

# Telling the proxy something either works at once or not at all: a third attempt only bridges a reload.
PROXY_ATTEMPTS_MAX = 3
# The proxy shows a weight within a second of being told; its own health check may take some more to see the worker up.
ADMIT_MARGIN_S = 60.0
# A worker without gates is watched for being alive; this is when that must have been settled.
LIVENESS_DEADLINE_S = 300.0

_DRAINED = (Verb.DRAIN, Verb.RESTART, Verb.AWAIT_HEALTHY, Verb.ADMIT, Verb.SOAK)
_NOT_DRAINED = (Verb.RESTART, Verb.AWAIT_HEALTHY, Verb.SOAK)

_UNDO = {Verb.DRAIN: Verb.ADMIT, Verb.ADMIT: Verb.DRAIN, Verb.RESTART: Verb.RESTART}


@dataclass(frozen=True, slots=True)
class Turn:
    """
    One worker's turn: to which *release* it goes and what that *change* is, which *gates* it must pass then, and why it is its turn.

    *drained*: it is taken out of traffic for its restart, because a sibling can take over or because it is out already and must come back.
    """

    worker: Worker
    drained: bool
    release: ReleaseId
    change: str
    gates: tuple[GateId, ...]
    why: str
    prefix: str = ""


def worker_steps(turn: Turn, needs: tuple[StepId, ...], strategy: Strategy, gates: Mapping[GateId, Gate]) -> tuple[Step, ...]:
    """Chain the steps of one worker; the first needs *needs*."""
    steps: list[Step] = []
    for verb in _DRAINED if turn.drained else _NOT_DRAINED:
        step = Step(
            id=StepId(f"{turn.worker.id}/{turn.prefix}{verb}"),
            verb=verb,
            worker=turn.worker.id,
            release=turn.release,
            needs=(steps[-1].id,) if steps else needs,
            deadline_s=_deadline_s(verb, turn, strategy, gates),
            attempts_max=_attempts_max(verb, strategy),
            undo=_UNDO.get(verb),
            gates=turn.gates if verb is Verb.SOAK else (),
            why=turn.why if not steps else _why(verb, turn, strategy),
        )
        steps.append(step)
    return tuple(steps)


def ramp_s(strategy: Strategy) -> float:
    """Return how long a ramp takes: each weight but the last is held."""
    return (len(strategy.ramp.weights) - 1) * strategy.ramp.step_s


def _deadline_s(verb: Verb, turn: Turn, strategy: Strategy, gates: Mapping[GateId, Gate]) -> float:
    match verb:
        case Verb.DRAIN:
            return strategy.drain_timeout_s
        case Verb.ADMIT:
            return ramp_s(strategy) + ADMIT_MARGIN_S
        case Verb.SOAK:
            return max((gates[gate].deadline_s for gate in turn.gates), default=LIVENESS_DEADLINE_S)
        case _:
            return strategy.boot_timeout_s


def _attempts_max(verb: Verb, strategy: Strategy) -> int:
    match verb:
        case Verb.DRAIN | Verb.ADMIT:
            return PROXY_ATTEMPTS_MAX
        case Verb.RESTART:
            return strategy.restart_attempts_max
        case _:
            return 1


def _why(verb: Verb, turn: Turn, strategy: Strategy) -> str:
    match verb:
        case Verb.RESTART:
            return turn.change
        case Verb.AWAIT_HEALTHY:
            return (
                "no traffic before it answers and is seen to run the release"
                if turn.drained
                else "until it answers and is seen to run the release"
            )
        case Verb.ADMIT:
            weights = ", ".join(str(weight) for weight in strategy.ramp.weights)
            return (
                f"{weights} % of its weight, {strategy.ramp.step_s:g} s each"
                if len(strategy.ramp.weights) > 1
                else "with its full weight at once"
            )
        case Verb.SOAK if turn.gates:
            return f"must pass {', '.join(turn.gates)} before anybody else goes out"
        case _:
            return "liveness only: nothing more is known of this role, and the playbook accepts that"
