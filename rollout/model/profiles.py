"""
Profiles: a word in a playbook in place of many settings. What the playbook says itself wins.

small    For a homeserver with a request every few seconds. Users alone show nothing there: thirty requests to one worker take many
         minutes, and a gate that waits for them ends without a ruling. So one canary request a second is bought from each worker that can
         be asked (client, sync, main), the baseline is as long as it takes to have some hundred of them, and everybody is watched for a
         quarter of an hour together. What can't be asked does too little there to tell anything, and may pass on being alive. While
         requests of all workers together take long, or fail, by any measure, nobody is taken out.

Mappings are merged, and a list or a number that the playbook has is taken as it stands: whoever writes gates writes all of them.
"""

from collections.abc import Mapping
from typing import Any

# Of 150 requests nine of ten good workers show that they are good (docs/gates.md); a cold cache takes up to a quarter of an hour.
_GATE = {"test": "sequential", "samples_min": 150, "soak_s": 120, "deadline_s": 1200}

SMALL: Mapping[str, Any] = {
    "canary_requests": {"per_s": 1.0, "requests_max": 20_000, "cpu_max": 0.5},
    "baseline": {"baseline_s": 300, "sample_s": 5},
    "gates": [
        {"id": "latency", "metric": "latency_p95_s", "roles": ["client", "main"], **_GATE},
        {"id": "canary-latency", "metric": "canary_p95_s", "roles": ["sync"], **_GATE},
        {"id": "errors", "metric": "error_ratio", "roles": ["client", "sync", "main"], **_GATE},
        {"id": "canary-failures", "metric": "canary_failure_ratio", "roles": ["client", "sync", "main"], **_GATE},
    ],
    # Who has no peers is compared with its own past alone; these see what is bad by any measure. A family's homeserver on a small machine
    # needs a second for what others do in a tenth.
    "guards": [
        {"guard": "latency_p95_s", "max": 5},
        {"guard": "error_ratio", "max": 0.1},
    ],
    "liveness_only": [
        "federation_reader",
        "media",
        "event_persister",
        "federation_sender",
        "pusher",
        "receipts",
        "device_lists",
        "thread_subscriptions",
        "quarantined_media",
        "typing",
        "to_device",
        "account_data",
        "presence",
        "push_rules",
        "stream_writer",
        "user_dir",
        "appservice",
        "background",
    ],
    "watch": {"watch_s": 900, "window_s": 120},
}

PROFILES: Mapping[str, Mapping[str, Any]] = {"small": SMALL}


def completed(written: Any) -> Any:  # noqa: ANN401  (whatever stood in the file)
    """Lay what a playbook's file says over its profile; what isn't a playbook, or names no profile that there is, comes back as it was."""
    name = written.get("profile") if isinstance(written, Mapping) else None
    return _over(PROFILES[name], written) if isinstance(name, str) and name in PROFILES else written


def _over(defaults: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **written}
    for key, value in written.items():
        below = defaults.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _over(below, value)
    return merged
