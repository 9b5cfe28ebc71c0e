"""What a gate can't see, in one sentence, so that a plan may say so before anybody trusts it."""

import math

from rollout.gating.threshold import MARGIN_SE
from rollout.model.gate import Gate, Metric

_RATIOS = frozenset({Metric.ERRORS, Metric.CANARY_FAILURES})
_LEVELS = frozenset({Metric.WORK, Metric.BACKLOG})


def detectable(gate: Gate) -> str:
    """Say what passes unseen at the gate's own minimum of samples."""
    name, samples = gate.metric.value, gate.samples_min
    if gate.metric in _RATIOS:
        limit = gate.max if gate.max is not None else 0.0
        share = max(limit, 0.5 / samples)
        seen = min(1.0, limit + MARGIN_SE * math.sqrt(share * (1 - share) / samples))
        return f"{gate.id}: with {samples} samples a {name} below {seen * 100:.1f} % is not told from chance"
    if gate.metric in _LEVELS or gate.ratio_max is None:
        return f"{gate.id}: what stays within {name} of its limit is not seen"
    factor = gate.ratio_max * (1 + MARGIN_SE / math.sqrt(samples))
    return f"{gate.id}: with {samples} samples a {name} of less than {factor:.1f} times the baseline is not told from chance"
