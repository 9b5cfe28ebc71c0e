"""
The gate of roles of which nothing else is known: it says no more than that the worker answers, and says that it says no more.

Source: our own.
"""

from rollout.model.gate import Evidence, Ruling, Verdict
from rollout.model.ids import GateId

GATE = GateId("liveness")
# A process that dies of its first piece of work has usually done so by then.
WATCH_S = 10.0


def rule(*, healthy: bool | None, since_s: float, now_s: float) -> Verdict:
    """Rule on a worker that has answered (*healthy*, None when it was not seen lately) since *since_s*."""
    watched_s = now_s - since_s
    nothing = Evidence(0.0, None, None, None)
    if healthy is None:
        return Verdict(GATE, Ruling.UNMEASURABLE, "it has not been seen lately", nothing)
    if not healthy or watched_s < WATCH_S:
        return Verdict(GATE, Ruling.PENDING, f"it must answer for {WATCH_S:.0f} s", nothing)
    return Verdict(
        GATE, Ruling.PASS, f"it has answered for {WATCH_S:.0f} s, and nothing more is known of this role (liveness only)", nothing
    )
