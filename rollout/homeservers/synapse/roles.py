"""
What each role is for, what happens while one of its workers is out, and what shows that it is well.

Sync workers are mostly asked for long-polls, whose duration says nothing (an idle one takes its whole timeout); what says something is
the work that each completed request costs, and answers to requests of our own. Source: Synapse's docs/workers.md, and the metrics pages
of 1.162.0 and 1.163.2.
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


_REQUESTS = (Metric.ERRORS, Metric.LATENCY_P95)
_CANARIES = (Metric.CANARY_P95, Metric.CANARY_FAILURES)
_POLLS = (Metric.POLL_CPU, Metric.POLL_DB, Metric.POLL_SCHEDULING, *_CANARIES, Metric.ERRORS)

# In the order in which they are rolled: what can be replaced, then what pauses its share, then what pauses everything, main last.
ROLES: dict[Role, RoleFacts] = {
    Role("client"): RoleFacts(Duty.REPLACEABLE, (*_REQUESTS, *_CANARIES), "client API without /sync; a sibling answers as well"),
    Role("sync"): RoleFacts(Duty.REPLACEABLE, _POLLS, "/sync and sliding sync; a sibling takes its users over, with a cold cache"),
    Role("federation_reader"): RoleFacts(Duty.REPLACEABLE, _REQUESTS, "inbound federation; a sibling answers as well"),
    Role("media"): RoleFacts(Duty.REPLACEABLE, _REQUESTS, "media; a sibling on the same store answers as well"),
    Role("event_persister"): RoleFacts(Duty.SHARDED, (Metric.WORK,), "writes the events of its rooms, which wait meanwhile"),
    Role("federation_sender"): RoleFacts(Duty.SHARDED, (Metric.WORK, Metric.BACKLOG), "sends to its destinations, which wait"),
    Role("pusher"): RoleFacts(Duty.SHARDED, (Metric.WORK,), "pushes to its users, who wait meanwhile"),
    Role("stream_writer"): RoleFacts(Duty.SINGLETON, _REQUESTS, "the one writer of a stream: typing, to-device, presence and such"),
    Role("user_directory"): RoleFacts(Duty.SINGLETON, _REQUESTS, "the only one to keep the user directory"),
    Role("appservice"): RoleFacts(Duty.SINGLETON, (Metric.WORK,), "the only one to notify application services"),
    Role("background"): RoleFacts(Duty.SINGLETON, (), "background tasks, which wait meanwhile"),
    Role("main"): RoleFacts(Duty.SINGLETON, _REQUESTS, "everything that no worker does; all workers call it"),
}

ROLE_ORDER: tuple[Role, ...] = tuple(ROLES)


def facts_of(role: Role) -> RoleFacts:
    """Look a role up. Raises InvalidFileError, with the nearest known ones, for one that Synapse doesn't have."""
    if role not in ROLES:
        near = difflib.get_close_matches(role, ROLES, n=2)
        raise InvalidFileError(
            f"unknown role {role!r}",
            why=f"roles are: {', '.join(ROLES)}",
            remedy=" or ".join(near) if near else "name it after what it does",
        )
    return ROLES[role]


def duty_of(role: Role) -> Duty:
    """Tell what happens to a worker's work while it is out. Raises InvalidFileError for an unknown role."""
    return facts_of(role).duty


def evidence_of(role: Role) -> tuple[Metric, ...]:
    """List what says whether a worker of this role is well; empty when nothing does. Raises InvalidFileError for an unknown role."""
    return facts_of(role).evidence
