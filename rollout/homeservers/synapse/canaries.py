"""
Requests of our own that harm nobody and measure the worker, not a cache.

A /sync carries neither `since` nor a device (a /sync with both deletes that device's to-device messages) and sets no presence. Synapse
answers the same /sync from its response cache for two minutes, so the filter changes with every request.
"""

import json

from rollout.model.ids import Role


def canary_path(role: Role, nonce: int) -> str | None:
    """Return path and query (not yet percent-encoded) of the *nonce*-th canary; None for roles that serve no client."""
    match role:
        case "sync":
            wanted = {"room": {"timeline": {"limit": 1}, "rooms": [f"!canary{nonce}:none"]}}
            return f"/_matrix/client/v3/sync?timeout=0&set_presence=offline&filter={json.dumps(wanted, separators=(',', ':'))}"
        case "client" | "main":
            return f"/_matrix/client/v3/joined_rooms?canary={nonce}"
        case _:
            return None
