"""How long it takes, from assumptions that are printed with it."""

from collections.abc import Mapping, Sequence

from rollout.model.gate import Gate
from rollout.model.ids import GateId, WorkerId
from rollout.model.plan import Forecast, Phase, Step, Verb
from rollout.model.playbook import Strategy
from rollout.planning.worker_steps import ramp_down_s, ramp_s

# Idle long-polls last 30 s and set the tail of a drain (measured: 10 to 15 s with 40 users).
DRAIN_S = 30.0
# Measured: 0.7 to 1.1 s from start to /health on an idle machine, 7.4 s on a busy one.
BOOT_S = 10.0
# Measured: 20 s for a virtual environment from a local index, 1.3 s for a migration of a small database.
PREPARE_S = 60.0
# A role that is watched for being alive only is watched for so long (gating/liveness.py).
LIVENESS_S = 10.0
MIGRATE_S = 5.0
# What can't be measured so long after the end of the watch is unmeasurable.
WATCH_MARGIN_S = 120.0


def forecast(phases: Sequence[Phase], strategy: Strategy, baseline_s: float, gates: Mapping[GateId, Gate]) -> Forecast:
    """Add up the waves; workers of one wave count as the slowest of them."""
    duration_s = 0.0
    evidence_s: dict[WorkerId, float] = {}
    for wave in (wave for phase in phases for wave in phase.waves):
        spent_s: dict[WorkerId | None, float] = {}
        for step in wave.steps:
            step_s = _step_s(step, strategy, baseline_s, gates)
            spent_s[step.worker] = spent_s.get(step.worker, 0.0) + step_s
            if step.worker is not None and step.verb in {Verb.ADMIT, Verb.SOAK}:
                evidence_s[step.worker] = evidence_s.get(step.worker, 0.0) + step_s
        duration_s += max(spent_s.values())
    basis = f"assuming {DRAIN_S:g} s to drain, {BOOT_S:g} s to boot, enough traffic for every gate, and no waiting for guards"
    return Forecast(duration_s=duration_s, evidence_s=evidence_s, basis=basis)


def _step_s(step: Step, strategy: Strategy, baseline_s: float, gates: Mapping[GateId, Gate]) -> float:
    match step.verb:
        case Verb.PREPARE:
            return PREPARE_S
        case Verb.MIGRATE:
            return MIGRATE_S
        case Verb.SURVEY:
            return baseline_s
        case Verb.WATCH:
            return step.deadline_s - WATCH_MARGIN_S
        case Verb.WARM:
            return (strategy.warm.seconds if strategy.warm is not None else 0.0) * len(step.warms)
        case Verb.DRAIN:
            return DRAIN_S + ramp_down_s(strategy)
        case Verb.HOLD | Verb.LET_GO:
            return 0.0  # milliseconds
        case Verb.RESTART:
            return 0.0  # counted as the boot
        case Verb.AWAIT_HEALTHY:
            return BOOT_S
        case Verb.ADMIT:
            return ramp_s(strategy)
        case Verb.SOAK:
            return max((gates[gate].soak_s for gate in step.gates), default=LIVENESS_S)
