"""
Requests of our own that harm nobody, and that measure the worker rather than a cache.

A /sync carries neither `since` nor a device (one with both deletes that device's to-device messages, and with them keys), and sets nobody
online. Synapse answers a /sync that it has just answered from its response cache for two minutes, in 3 ms whatever the worker's state; what
it compares includes the filter's text, so each canary has another filter. One event of each room is asked for: the work of an initial sync
without its size.

A client worker is asked for the user's rooms: the token is checked and the database or its cache is read, as for most requests. Hardly a
client asks for that, so these requests can be told from users' (metrics.py leaves them out of the worker's traffic).

Requests that buy evidence are to be counted with users' requests, so they are other reads: of the database (notifications, devices) and
of caches (push rules, who am I), in turn. Profiles would be limited in their rate, messages may be fetched from other homeservers, and
whatever names a room would need one. A sync worker is asked for the same as above.

The user and the token are the driver's own: an application service acts for its user with its token and `user_id=`.
"""

import json
from urllib.parse import quote

from rollout.model.gate import Metric
from rollout.model.ids import Role

CLIENT_CANARY_SERVLET = "JoinedRoomsRestServlet"


# Answered by any worker whose listener serves clients, and nothing that is changed by being read. The limit differs from one to the next.
_BOUGHT = ("notifications?limit={limit}", "devices", "pushrules/", "account/whoami")
_LIMITS = 20
_ANY = frozenset({Metric.ERRORS, Metric.CANARY_P95, Metric.CANARY_FAILURES})


def bought_path(role: Role, nonce: int) -> str | None:
    """Return path and query of the *nonce*-th request that buys evidence, percent-encoded; None for roles that serve no client."""
    if role == "sync":
        return _sync_path(f"bought{nonce}")
    if canary_path(role, nonce) is None:
        return None
    return f"/_matrix/client/v3/{_BOUGHT[nonce % len(_BOUGHT)].format(limit=1 + nonce % _LIMITS)}"


def bought_metrics(role: Role) -> frozenset[Metric]:
    """Return which figures of a worker those requests count in: a sync worker's are syncs, like what it answers most."""
    if role == "sync":
        return _ANY | {Metric.POLL_CPU, Metric.POLL_DB, Metric.POLL_SCHEDULING}
    return _ANY | {Metric.LATENCY_P95, Metric.REQUEST_CPU}


def canary_path(role: Role, nonce: int) -> str | None:
    """Return path and query of the *nonce*-th canary, percent-encoded; None for roles that serve no client."""
    match role:
        case "sync":
            return _sync_path(f"canary{nonce}")
        case "client" | "main":
            return "/_matrix/client/v3/joined_rooms"
        case _:
            return None


def _sync_path(name: str) -> str:
    sync_filter = {"room": {"timeline": {"limit": 1}, "not_rooms": [f"!{name}:invalid"]}}
    return f"/_matrix/client/v3/sync?timeout=0&set_presence=offline&filter={quote(json.dumps(sync_filter))}"
