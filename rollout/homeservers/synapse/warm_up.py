"""
What is asked of a worker to fill its caches before its users come.

An initial sync as a client makes one, with timeout 0 and set_presence=offline. Never `since` and never a device id: a /sync with both
deletes that device's to-device messages, which may be keys. The filter differs each time, or Synapse would answer the same request from a
cache of whole answers, which says nothing and warms nothing.
"""

import json
from urllib.parse import quote

from rollout.model.ids import Role

# They serve users, and a sibling has them meanwhile.
WARMABLE: frozenset[Role] = frozenset({Role("sync"), Role("client")})


def warm_up_path(nonce: int) -> str:
    """Return path and query of the *nonce*-th request, percent-encoded; the user is the driver's to add."""
    wanted = {
        "presence": {"types": []},
        "room": {"timeline": {"limit": 10}, "state": {"lazy_load_members": True}, "not_rooms": [f"!warm{nonce}:invalid"]},
    }
    return f"/_matrix/client/v3/sync?timeout=0&set_presence=offline&filter={quote(json.dumps(wanted))}"
