"""The homeservers and the playbook that simulated rollouts use."""

from rollout.model.playbook import Playbook
from rollout.simulation.faults import Fault
from rollout.simulation.rehearse import Stage, set_stage

SEVEN = {
    "main": ("main", "main"),
    "event_persister1": ("event_persister", None),
    "sync1": ("sync", "sync"),
    "sync2": ("sync", "sync"),
    "client1": ("client", "client"),
    "client2": ("client", "client"),
    "fedsender1": ("federation_sender", None),
}

# What a driver reports, truly, of an act that went wrong.
PLAIN_FAULTS = (Fault.FAILS, Fault.UNKNOWN_DONE, Fault.UNKNOWN_NOT_DONE)

PLAYBOOK = Playbook.model_validate(
    {
        "name": "simulated",
        "strategy": {"ramp": {"weights": [50, 100], "step_s": 3}, "drain_timeout_s": 60, "boot_timeout_s": 30, "progress_deadline_s": 400},
        "baseline": {"baseline_s": 20, "sample_s": 2},
        "gates": [
            {"id": "errors", "metric": "error_ratio", "max": 0.02, "samples_min": 50, "soak_s": 10, "deadline_s": 120},
            {
                "id": "latency",
                "metric": "latency_p95_s",
                "ratio_max": 1.5,
                "slack": 0.05,
                "samples_min": 50,
                "soak_s": 10,
                "deadline_s": 120,
            },
        ],
        "liveness_only": ["event_persister", "federation_sender", "sync"],
        "watch": {"watch_s": 20, "window_s": 8},
    }
)


def seven_workers(held: str | None = None) -> Stage:
    """The lab's topology; pool *held* can be held at the proxy."""
    return set_stage(SEVEN, held)
