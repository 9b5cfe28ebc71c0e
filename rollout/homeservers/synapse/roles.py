"""
What each role is for, what happens while one of its workers is out, and what shows that it is well.

Sync workers are mostly asked for long-polls, whose duration says nothing (an idle one takes its whole timeout). What says something is what
each completed one cost, answers to requests of our own, and 5xx, which are errors however long they took.

Source: docs/workers.md and synapse/config/workers.py (WriterLocations) of 1.163.2, and metrics pages of 1.162.0 and 1.163.2.
"""

import difflib
from dataclasses import dataclass

from rollout.model.errors import InvalidFileError
from rollout.model.gate import Metric
from rollout.model.ids import Role
from rollout.model.plan import Duty


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """*why* says what its work is, and so why it is rolled as it is."""

    duty: Duty
    evidence: tuple[Metric, ...]
    why: str


_REQUESTS = (Metric.ERRORS, Metric.LATENCY_P95, Metric.REQUEST_CPU)
_CANARIES = (Metric.CANARY_P95, Metric.CANARY_FAILURES)
# Only of workers that stand behind a proxy (planning/evidence.py).
_AT_PROXY = (Metric.PROXY_FAILURES,)
_POLLS = (Metric.POLL_CPU, Metric.POLL_DB, Metric.POLL_SCHEDULING)

# In the order in which they are rolled: what a sibling can replace, then what pauses its share, then what pauses all of its work, and main
# last. Client readers are first, and so the canary unless the playbook says otherwise: they drain in seconds, hold no user, and of all they
# show soonest whether a release is bad.
ROLES: dict[Role, RoleFacts] = {
    Role("client"): RoleFacts(
        Duty.REPLACEABLE, (*_REQUESTS, *_POLLS, *_CANARIES, *_AT_PROXY), "client API, sliding sync; a sibling answers as well"
    ),
    Role("federation_reader"): RoleFacts(Duty.REPLACEABLE, (*_REQUESTS, *_AT_PROXY), "inbound federation; a sibling answers as well"),
    Role("media"): RoleFacts(Duty.REPLACEABLE, (*_REQUESTS, *_AT_PROXY), "media; a sibling on the same store answers as well"),
    Role("sync"): RoleFacts(
        Duty.REPLACEABLE,
        (*_POLLS, *_CANARIES, Metric.ERRORS, *_AT_PROXY),
        "/sync and sliding sync; a sibling takes its users over, with cold caches",
    ),
    # Its own 5xx are seen where they hurt, as those of the workers that ask it.
    Role("event_persister"): RoleFacts(Duty.SHARDED, (Metric.WORK, Metric.BACKLOG), "writes the events of its rooms, which wait meanwhile"),
    Role("federation_sender"): RoleFacts(Duty.SHARDED, (Metric.WORK, Metric.BACKLOG), "sends to its destinations, which wait meanwhile"),
    Role("pusher"): RoleFacts(Duty.SHARDED, (Metric.WORK, Metric.PUSH_FAILURES), "pushes to its users, who wait meanwhile"),
    # These streams may have several writers, but Synapse calls each of them by its name, and some of their work only the first one does.
    Role("receipts"): RoleFacts(Duty.SHARDED, _REQUESTS, "one of the writers of read receipts, called by name"),
    Role("device_lists"): RoleFacts(Duty.SHARDED, _REQUESTS, "one of the writers of device lists; the first one updates those of others"),
    Role("thread_subscriptions"): RoleFacts(Duty.SHARDED, _REQUESTS, "one of the writers of thread subscriptions, called by name"),
    Role("quarantined_media"): RoleFacts(Duty.SHARDED, _REQUESTS, "one of the writers of quarantined media, called by name"),
    # Synapse refuses a configuration that gives any of these streams to more than one.
    Role("typing"): RoleFacts(Duty.SINGLETON, _REQUESTS, "the only writer of typing notices, which it alone keeps in memory"),
    Role("to_device"): RoleFacts(Duty.SINGLETON, _REQUESTS, "the only writer of to-device messages, and so of keys"),
    Role("account_data"): RoleFacts(Duty.SINGLETON, _REQUESTS, "the only writer of account data and tags"),
    Role("presence"): RoleFacts(Duty.SINGLETON, _REQUESTS, "the only writer of presence, which it alone keeps in memory"),
    Role("push_rules"): RoleFacts(Duty.SINGLETON, _REQUESTS, "the only writer of push rules"),
    Role("stream_writer"): RoleFacts(Duty.SINGLETON, _REQUESTS, "writes several of these streams"),
    Role("user_dir"): RoleFacts(Duty.SINGLETON, _REQUESTS, "the only one to keep the user directory; it answers searches in it"),
    Role("appservice"): RoleFacts(Duty.SINGLETON, (Metric.WORK,), "the only one to notify application services"),
    # Its tasks run minutes or hours apart, so a counter that stands still says nothing.
    Role("background"): RoleFacts(Duty.SINGLETON, (), "periodic tasks; they run a little later"),
    Role("main"): RoleFacts(
        Duty.SINGLETON, (*_REQUESTS, *_CANARIES, *_AT_PROXY), "everything that no worker does, and all workers call it"
    ),
}

ROLE_ORDER: tuple[Role, ...] = tuple(ROLES)


def facts_of(role: Role) -> RoleFacts:
    """Look a role up. Raises InvalidFileError, with the nearest known ones, for one that Synapse doesn't have."""
    if role not in ROLES:
        near = difflib.get_close_matches(role, ROLES, n=2)
        raise InvalidFileError(
            f"there is no role {role!r}",
            why=f"roles are: {', '.join(ROLES)}",
            remedy=" or ".join(near) if near else "name it after what it does",
        )
    return ROLES[role]


def duty_of(role: Role) -> Duty:
    """Tell what happens to a worker's work while it is out. Raises InvalidFileError for an unknown role."""
    return facts_of(role).duty


def evidence_of(role: Role) -> tuple[Metric, ...]:
    """List the metrics that say whether a worker of this role is well; empty when nothing does. Raises InvalidFileError if unknown."""
    return facts_of(role).evidence
