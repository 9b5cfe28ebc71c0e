"""
What stands between two releases, by the upgrade notes: what to know, or to do, before one is rolled to the other worker by worker.

A hazard belongs to the release that brought it, and is met by whoever crosses that one. Those that break replication are met on the way
back as well. What is written here says no more than the notes do, each under its heading; a release that came after the last notes that
were read has hazards that nobody knows here, and that is said.

Not here: what only concerns clients, modules' deprecated calls, and builds from source (Rust, Poetry); SQLite, which no worker can use.
Settings that Synapse itself refuses are found by PREPARE, which lets it read the configuration: they are here so that they are known
before.

Source: docs/upgrade.md of element-hq/synapse as of 1.157.1 (a58ad44eb0ce), https://element-hq.github.io/synapse/latest/upgrade.html.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rollout.model.ids import Role

NOTES = "https://element-hq.github.io/synapse/latest/upgrade.html"
# The last release whose notes were read for this table.
READ_UNTIL = "1.157"

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Hazard:
    """
    *id* is what a playbook accepts it by. *grave*: who doesn't accept it is refused; otherwise it is worth knowing.

    *back*: it is met by a downgrade too. *roles*: only a homeserver with such workers meets it; any, if empty. *heading* is the one in the
    upgrade notes of *version*.
    """

    id: str
    version: str
    sentence: str
    remedy: str
    heading: str
    grave: bool = False
    back: bool = False
    roles: tuple[Role, ...] = ()

    @property
    def source(self) -> str:
        """Say where it is written."""
        return f"{NOTES}#upgrading-to-v{self.version.replace('.', '')}, “{self.heading}”"


@dataclass(frozen=True, slots=True)
class Requirement:
    """From *version* on Synapse needs at least *least* of *what* (major versions; of Python with its minor one)."""

    what: str
    version: str
    least: tuple[int, ...]
    heading: str

    @property
    def source(self) -> str:
        """Say where it is written."""
        return f"{NOTES}#upgrading-to-v{self.version.replace('.', '')}, “{self.heading}”"


_ALL_AT_ONCE = (
    "stop all workers and start them together on the new release, or accept that these updates are late until the last one is done"
)

# Oldest first.
HAZARDS: tuple[Hazard, ...] = (
    Hazard(
        "appservice-transactions-1.57",
        "1.57.0",
        "a dedicated worker for application services must be stopped while the database is migrated, or transaction ids may be used twice",
        "stop that worker, migrate, and start it on the new release",
        "Changes to database schema for application services",
        grave=True,
        roles=(Role("appservice"),),
    ),
    Hazard(
        "unique-state-edges-1.60",
        "1.60.0",
        "a new unique index on state_group_edges can't be made where the table has rows twice",
        "look for such rows with the query in the notes, and remove them",
        "Adding a new unique index to `state_group_edges` could fail if your database is corrupted",
    ),
    Hazard(
        "replication-events-1.64",
        "1.64.0",
        "workers of 1.63 can't process events that those of 1.64 replicate, and the other way round",
        _ALL_AT_ONCE,
        "Changes to the event replication streams",
        grave=True,
        back=True,
    ),
    Hazard(
        "redis-1.67",
        "1.67.0",
        "workers hear of one another over Redis alone: direct TCP replication has gone",
        "add `redis` to the shared configuration, and remove the TCP listener and worker_replication_port",
        "Direct TCP replication is no longer supported: migrate to Redis",
        grave=True,
    ),
    Hazard(
        "replication-receipts-1.69",
        "1.69.0",
        "workers of 1.68 can't process receipts that those of 1.69 replicate, and the other way round",
        _ALL_AT_ONCE,
        "Changes to the receipts replication streams",
        grave=True,
        back=True,
    ),
    Hazard(
        "metric-names-1.73",
        "1.73.0",
        "the old names of metrics have gone, which dashboards and alerts may still use",
        "look for them in dashboards and alerts",
        "Legacy Prometheus metric names have now been removed",
    ),
    Hazard(
        "user-directory-1.74",
        "1.74.0",
        "a background update empties the user directory and fills it again: searches in it find less until it has ended",
        "choose a quiet hour",
        "User directory rebuild",
    ),
    Hazard(
        "replication-account-data-1.76",
        "1.76.0",
        "workers of 1.75 can't process account data and devices that those of 1.76 replicate, and the other way round",
        _ALL_AT_ONCE,
        "Changes to the account data replication streams",
        grave=True,
        back=True,
    ),
    Hazard(
        "worker-replication-settings-1.88",
        "1.88.0",
        "worker_replication_host, _http_port and _http_tls have gone: workers find main by the instance_map",
        "add `main` to instance_map in the shared configuration, in a rollout before this one",
        "Removal of `worker_replication_*` settings",
    ),
    Hazard(
        "appservice-query-token-1.90",
        "1.90.0",
        "application services get their token in the Authorization header alone",
        "use_appservice_legacy_authorization: true for those that read the query",
        "App service query parameter authorization is now a configuration option",
    ),
    Hazard(
        "media-endpoints-1.111",
        "1.111.0",
        "authenticated media has endpoints of its own, which media workers answer",
        "send ^/_matrix/client/v1/media/ and ^/_matrix/federation/v1/media/ to them at the proxy",
        "New worker endpoints for authenticated client and federation media",
        roles=(Role("media"),),
    ),
    Hazard(
        "authenticated-media-1.120",
        "1.120.0",
        "media is given only to those who are logged in, unless the configuration says otherwise",
        "enable_authenticated_media: false keeps it as it was",
        "Authenticated media is now enforced by default",
    ),
    Hazard(
        "room-list-1.126",
        "1.126.0",
        "nobody but an administrator may publish to the room list, unless the configuration says otherwise",
        "room_list_publication_rules that allow it",
        "Room list publication rules change",
    ),
    Hazard(
        "registration-callback-1.135",
        "1.135.0",
        "modules are told of a registration on whichever worker it happens, not on main alone",
        "ask whoever made them, if any of yours counts on main",
        "`on_user_registration` module API callback may now run on any worker",
    ),
    Hazard(
        "s3-storage-provider-1.140",
        "1.140.0",
        "with synapse-s3-storage-provider before 1.6.0 no media can be uploaded or downloaded",
        "1.6.0 or newer in the lock of the new release",
        "Users of `synapse-s3-storage-provider` must update the module to `v1.6.0`",
    ),
    Hazard(
        "journal-logging-1.150",
        "1.150.0",
        "the extra `systemd` has gone: a log configuration with systemd.journal.JournalHandler needs systemd-python by itself",
        "systemd-python in the lock of the new release, if the logs go to the journal so",
        "Removal of the `systemd` pip extra",
    ),
    Hazard(
        "quarantine-writers-1.152",
        "1.152.0",
        "workers that answer /quarantine_media must be writers of the stream quarantined_media_changes, or quarantining doesn't work",
        "send these requests to main at the proxy, or name the workers in stream_writers in a change of topology afterwards",
        "Workers which quarantine media must be stream writers",
        roles=(Role("media"), Role("client")),
    ),
    Hazard(
        "msc3861-1.157",
        "1.157.0",
        "experimental_features.msc3861 has gone in favour of matrix_authentication_service",
        "write matrix_authentication_service in the new configuration, if logins are delegated",
        "MSC3861 Auth Delegation must be migrated to stable Matrix Authentication Service integration",
    ),
)

POSTGRESQL, PYTHON = "PostgreSQL", "Python"
_OLD_VERSIONS = "Minimum supported Python version"
REQUIREMENTS: tuple[Requirement, ...] = (
    Requirement(POSTGRESQL, "1.72.0", (11,), "Dropping support for PostgreSQL 10"),
    Requirement(POSTGRESQL, "1.122.0", (13,), "Dropping support for PostgreSQL 11 and 12"),
    Requirement(POSTGRESQL, "1.143.0", (14,), "Dropping support for PostgreSQL 13"),
    Requirement(PYTHON, "1.88.0", (3, 8), _OLD_VERSIONS),
    Requirement(PYTHON, "1.119.0", (3, 9), _OLD_VERSIONS),
    Requirement(PYTHON, "1.142.0", (3, 10), "Python 3.10+ is now required"),
)

_NUMBERS = re.compile(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?")


def parse(version: str) -> Version | None:
    """Return the numbers that a version begins with (1.163.2+local and 1.76.0rc1 as well); None when it begins with none."""
    found = _NUMBERS.match(version)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3] or 0))


def crossed(old: str, new: str, roles: Collection[Role]) -> tuple[Hazard, ...] | None:
    """List the hazards between two versions, those of a downgrade too; None when one of the two can't be read."""
    here, there = parse(old), parse(new)
    if here is None or there is None:
        return None
    back = there < here
    low, high = sorted((here, there))
    return tuple(
        hazard
        for hazard in HAZARDS
        if low < _parsed(hazard.version) <= high
        and (hazard.back or not back)
        and (not hazard.roles or not set(hazard.roles).isdisjoint(roles))
    )


def requirement(what: str, version: str) -> Requirement | None:
    """Return what a version needs of *what*; None where the table has nothing for it."""
    here = parse(version)
    fits = [one for one in REQUIREMENTS if one.what == what and here is not None and _parsed(one.version) <= here]
    return max(fits, key=lambda one: _parsed(one.version), default=None)


def not_read(old: str, new: str) -> bool:
    """Tell whether the way leads over releases whose notes were not read for this table."""
    ends = [end for end in (parse(old), parse(new)) if end is not None]
    # A patch release brings no notes of its own that its minor release hasn't.
    return any(end[:2] > _parsed(READ_UNTIL)[:2] for end in ends) and len({end[:2] for end in ends}) > 1


def ids() -> Iterator[str]:
    """Name every hazard that can be accepted."""
    yield from (hazard.id for hazard in HAZARDS if hazard.grave)


def _parsed(version: str) -> Version:
    parsed = parse(version)
    if parsed is None:
        msg = f"{version} is no version"
        raise ValueError(msg)
    return parsed
