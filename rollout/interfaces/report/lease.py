"""Who holds the homeserver's lease, as text and as plain values."""

from collections.abc import Mapping

from rollout.interfaces.report.words import duration, moment
from rollout.ports.lease import Lease

# How the reason of a process begins that goes on with the last watch of a rollout (`--watch detached`).
WATCHES_ON = "watching on over"


def lease_text(lease: Lease | None, now_s: float) -> str:
    """Say who holds it, why, since when, and whether anybody may take it."""
    if lease is None or not lease.held:
        return "nobody holds the lease"
    who = f"{lease.holder} on {lease.host} (process {lease.pid}) since {moment(lease.since_s)}: {lease.why}"
    if not lease.free:
        return (
            f"the lease is held by {who}\n  rollout {lease.deploy_id}, valid until {moment(lease.expires_at_s, '%H:%M:%S')} unless renewed"
        )
    if now_s >= lease.expires_at_s:
        why = f"ran out {duration(now_s - lease.expires_at_s)} ago and was not renewed"
    else:
        why = "is free, because that process is gone"
    return f"the lease {why}; it was held by {who}\n  whoever begins or resumes a rollout takes it"


def lease_values(lease: Lease | None) -> Mapping[str, object] | None:
    """Return the same for programs; None when nobody holds it. *expired*: whoever wants it gets it."""
    if lease is None or not lease.held:
        return None
    return {
        "holder": lease.holder,
        "host": lease.host,
        "pid": lease.pid,
        "why": lease.why,
        "rollout": lease.deploy_id,
        "token": lease.token,
        "since_s": lease.since_s,
        "renewed_at_s": lease.renewed_at_s,
        "expires_at_s": lease.expires_at_s,
        "expired": lease.free,
        "taken_from": lease.taken_from,
    }
