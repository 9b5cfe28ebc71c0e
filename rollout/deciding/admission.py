"""
How much traffic a worker gets next while it is ramped up, by how busy it is.

A cold cache makes requests dear, which latency can't tell from congestion, so the ramp is controlled by utilisation. What the worker used
at its present weight tells what it would use at another one: as much is given as keeps it below the playbook's utilisation, and never more
than twice the present weight and a little. Where it used to be busier than that at its full weight, before the restart, so it may be again.

Source: facts of readmission ramps, where this one was as quick as fixed steps of 25 % with half their worst latency, and never stuck.
"""

from rollout.model.effect import FULL_WEIGHT
from rollout.model.gate import Tally

# What a worker may use more than it did before the restart (CPU seconds per second).
ABOVE_BEFORE = 0.12
# Percent of the full weight that may be added on top of doubling.
STEP_MIN = 5
# Where requests fail or run into their time, less is given instead.
BACK_OFF = 0.6


def next_weight(weight: int, ramp: Tally, baseline: Tally | None, utilisation_max: float) -> int:
    """
    Return the weight (percent, 1–100) to give a worker that has had *weight* while *ramp* was measured.

    *baseline* is its tally before the restart. A worker that did nothing yet may have twice as much.
    """
    if ramp.canary_failures:
        return max(1, round(weight * BACK_OFF))
    goal = max(utilisation_max, _utilisation(baseline) + ABOVE_BEFORE)
    used = _utilisation(ramp)
    most = 2 * weight + STEP_MIN
    wanted = most if used <= 0 else weight * goal / used
    return max(1, min(FULL_WEIGHT, int(min(most, wanted))))


def _utilisation(tally: Tally | None) -> float:
    """CPU seconds per second."""
    if tally is None or tally.until_s <= tally.since_s:
        return 0.0
    return tally.cpu_s / (tally.until_s - tally.since_s)
