"""
The journal in a database: SQLite in the user's state directory by default, PostgreSQL by URL.

Every method is one transaction. One that is called again because the server went away in its midst looks first whether it was kept the
first time: in doubt is observed, never repeated.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from rollout.adapters.journal.database import Database
from rollout.adapters.journal.places import open_database
from rollout.adapters.journal.tables import BASELINES, DEPLOYS, EVENTS, METADATA, REQUESTS, SCHEMA, prepare
from rollout.model.codec import dump_json, event_kind, event_version, load_event, load_plan
from rollout.model.errors import InvalidFileError, JournalTakenError, PermanentDriverError
from rollout.model.event import Command, DeployFinished, Event, Outcome
from rollout.model.ids import DeployId
from rollout.model.plan import Plan
from rollout.ports.journal import Baseline, DeployLine, Keeping, Request

_BASELINE = TypeAdapter(Baseline)
# What a file gives back to the disk in one transaction, during which nobody else writes: a few milliseconds.
_PAGES_AT_ONCE = 1000
# A gigabyte of the smallest pages; whatever is left then is given back the next time.
_TIMES_MAX = 2000


def open_journal(place: str | None) -> "SqlJournal":
    """
    Open a journal: a path, a database URL, or a reference to one (`env:NAME`, `file:PATH`); None is the user's own.

    Raises DriverError when it can't be reached, is no journal, or is one of a newer rollout; InvalidFileError when the secret is not there.
    """
    database, path = open_database(place)
    try:
        return SqlJournal(database, None if path is None else str(path))
    except BaseException:
        database.close()
        raise


class SqlJournal:
    """See ports.journal."""

    def __init__(self, database: Database, file: str | None) -> None:
        self._database = database
        self._where = database.where
        self._file = file
        database.read(lambda connection: prepare(connection, self._where))
        if not database.is_file and database.read(lambda connection: _setting(connection, "synchronous_commit")) == "off":
            raise PermanentDriverError(
                "the journal's server would forget what it has just confirmed: synchronous_commit is off",
                where=self._where,
                remedy="leave `options` out of the URL",
            )

    def begin(self, deploy_id: DeployId, plan: Plan, began: Event) -> None:
        """See ports.journal."""
        versions = sorted({plan.releases[release].version for release in plan.from_releases.values()})
        row = {
            "deploy_id": deploy_id,
            "homeserver": plan.homeserver,
            "plan": dump_json(plan),
            "from_versions": " ".join(versions),
            "to_version": plan.to_release.version,
            "began_at_s": began.at_s,
        }
        tried = False

        def keep(connection: sa.Connection) -> None:
            nonlocal tried
            if tried and _kept(connection, deploy_id, 1, _rows(deploy_id, 1, (began,))):
                return
            tried = True
            connection.execute(DEPLOYS.insert().values(row))
            connection.execute(EVENTS.insert(), _rows(deploy_id, 1, (began,)))

        self._database.write(keep)

    def append(self, deploy_id: DeployId, events: Sequence[Event], *, after: int | None = None) -> None:
        """See ports.journal."""
        aimed: int | None = None

        def keep(connection: sa.Connection) -> None:
            nonlocal aimed
            # Whoever appends holds the rollout's row: numbers have no gap and no double, and an earlier try of ours that still lives on the
            # server has ended before we look.
            held = sa.select(DEPLOYS.c.deploy_id).where(DEPLOYS.c.deploy_id == deploy_id).with_for_update()
            if connection.execute(held).first() is None:
                raise PermanentDriverError(f"there is no rollout {deploy_id}", where=self._where)
            if not events or (aimed is not None and _kept(connection, deploy_id, aimed, _rows(deploy_id, aimed, events))):
                return
            last = connection.execute(sa.select(sa.func.max(EVENTS.c.seq)).where(EVENTS.c.deploy_id == deploy_id)).scalar() or 0
            if after is not None and last != after:
                raise JournalTakenError(f"somebody else runs rollout {deploy_id} now", where=self._where)
            aimed = last + 1
            connection.execute(EVENTS.insert(), _rows(deploy_id, aimed, events))

        self._database.write(keep)

    def plan(self, deploy_id: DeployId) -> Plan:
        """See ports.journal."""
        query = sa.select(DEPLOYS.c.plan).where(DEPLOYS.c.deploy_id == deploy_id)
        text = self._database.read(lambda connection: connection.execute(query).scalar())
        if text is None:
            raise PermanentDriverError(f"there is no rollout {deploy_id}", where=self._where, remedy="`rollout history` lists them")
        return load_plan(text)

    def events(self, deploy_id: DeployId, after: int = 0) -> list[tuple[int, Event]]:
        """See ports.journal."""
        columns = (EVENTS.c.seq, EVENTS.c.kind, EVENTS.c.body, EVENTS.c.version)
        query = sa.select(*columns).where(EVENTS.c.deploy_id == deploy_id, EVENTS.c.seq > after).order_by(EVENTS.c.seq)
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [(row.seq, self._event(deploy_id, row)) for row in rows]

    def deploys(self, homeserver: str, limit: int) -> list[DeployLine]:
        """See ports.journal."""
        every = EVENTS.alias()
        last = sa.select(sa.func.max(every.c.seq)).where(every.c.deploy_id == DEPLOYS.c.deploy_id).correlate(DEPLOYS).scalar_subquery()
        query = (
            sa.select(DEPLOYS, EVENTS.c.seq, EVENTS.c.kind, EVENTS.c.body, EVENTS.c.version)
            .select_from(DEPLOYS)
            .join(EVENTS, (EVENTS.c.deploy_id == DEPLOYS.c.deploy_id) & (EVENTS.c.seq == last))
            .where(DEPLOYS.c.homeserver == homeserver)
            .order_by(DEPLOYS.c.began_at_s.desc(), DEPLOYS.c.deploy_id.desc())
            .limit(limit)
        )
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [self._line(row) for row in rows]

    def keep_baseline(self, kept: Baseline) -> None:
        """See ports.journal."""
        row = {"homeserver": kept.homeserver, "at_s": kept.at_s, "body": _BASELINE.dump_json(kept).decode()}
        same = sa.select(BASELINES.c.id).where(*(BASELINES.c[name] == value for name, value in row.items()))
        tried = False

        def keep(connection: sa.Connection) -> None:
            nonlocal tried
            if tried and connection.execute(same).first() is not None:
                return
            tried = True
            connection.execute(BASELINES.insert().values(row))

        self._database.write(keep)

    def baselines(self, homeserver: str, since_s: float) -> list[Baseline]:
        """See ports.journal."""
        query = sa.select(BASELINES.c.body).where(BASELINES.c.homeserver == homeserver, BASELINES.c.at_s >= since_s)
        rows = self._database.read(lambda connection: connection.execute(query.order_by(BASELINES.c.at_s)).all())
        return [_BASELINE.validate_json(row.body) for row in rows]

    def ask(self, deploy_id: DeployId, request: Request) -> None:
        """See ports.journal."""
        said = {"command": request.command.value, "operator": request.operator, "why": request.why, "worker": request.worker}
        # It may have been heard and forgotten by the time we look: whether it was kept can't be known, and it isn't asked twice.
        self._database.write_once(lambda connection: connection.execute(REQUESTS.insert().values(deploy_id=deploy_id, **said)))

    def take_requests(self, deploy_id: DeployId) -> list[Request]:
        """See ports.journal."""
        query = sa.select(REQUESTS).where(REQUESTS.c.deploy_id == deploy_id).order_by(REQUESTS.c.id)
        taken: dict[int, Request] = {}

        def take(connection: sa.Connection) -> None:
            # What an earlier try has read is taken, whether it could still forget it or not.
            taken.update({row.id: Request(Command(row.command), row.operator, row.why, row.worker) for row in connection.execute(query)})
            connection.execute(REQUESTS.delete().where(REQUESTS.c.id.in_(taken)))

        # It is asked once a second, and nearly always for nothing: that need not keep writers out.
        if self._database.read(lambda connection: connection.execute(query.limit(1)).first()) is not None:
            self._database.write(take)
        return [taken[number] for number in sorted(taken)]

    def prove(self) -> None:
        """See ports.journal."""
        self._database.write(lambda connection: connection.execute(SCHEMA.update().values(version=SCHEMA.c.version)))

    def keeping(self) -> Keeping:
        """See ports.journal."""
        return Keeping(self._file, self._where, self._database.read(_size))

    def forget(self, homeserver: str, rollouts: Collection[DeployId], baselines_before_s: float) -> int:
        """See ports.journal."""
        for deploy_id in rollouts:
            # One at a time: a rollout that is under way waits for no more than one to be deleted.
            self._database.write(partial(_forget, homeserver=homeserver, deploy_id=deploy_id))
        ours = BASELINES.c.homeserver == homeserver
        newest = sa.select(sa.func.max(BASELINES.c.at_s)).where(ours).scalar_subquery()
        old = BASELINES.delete().where(ours, BASELINES.c.at_s < baselines_before_s, BASELINES.c.at_s < newest)
        count = self._database.write(lambda connection: connection.execute(old).rowcount)
        if self._database.is_file:
            for _ in range(_TIMES_MAX):
                if not self._database.write(_give_back):
                    break
        return count

    def close(self) -> None:
        """Close all connections; the next call opens another."""
        self._database.close()

    def _event(self, deploy_id: DeployId, row: Any) -> Event:  # noqa: ANN401  (a row of a query above)
        try:
            return load_event(row.kind, row.body, row.version)
        except InvalidFileError as error:
            where = f"{self._where}, line {row.seq} of rollout {deploy_id}"
            raise InvalidFileError(error.what, where=where, why=error.why, remedy=error.remedy) from error

    def _line(self, row: Any) -> DeployLine:  # noqa: ANN401  (a row of the query above)
        end = self._event(DeployId(row.deploy_id), row) if row.kind == DeployFinished.__name__ else None
        finished_at_s: float | None = None
        outcome: Outcome | None = None
        if isinstance(end, DeployFinished):
            finished_at_s, outcome = end.at_s, end.outcome
        versions = tuple(row.from_versions.split())
        return DeployLine(DeployId(row.deploy_id), row.homeserver, versions, row.to_version, row.began_at_s, finished_at_s, outcome)


def _rows(deploy_id: DeployId, first: int, events: Sequence[Event]) -> list[dict[str, object]]:
    return [
        {
            "deploy_id": deploy_id,
            "seq": seq,
            "at_s": event.at_s,
            "kind": event_kind(event),
            "body": dump_json(event),
            "version": event_version(event),
        }
        for seq, event in enumerate(events, start=first)
    ]


def _kept(connection: sa.Connection, deploy_id: DeployId, first: int, rows: Sequence[dict[str, object]]) -> bool:
    """Tell whether exactly these stand there."""
    query = sa.select(EVENTS).where(EVENTS.c.deploy_id == deploy_id, EVENTS.c.seq >= first).order_by(EVENTS.c.seq).limit(len(rows))
    return [dict(row) for row in connection.execute(query).mappings()] == list(rows)


def _forget(connection: sa.Connection, homeserver: str, deploy_id: DeployId) -> None:
    known = sa.select(DEPLOYS.c.deploy_id).where(DEPLOYS.c.deploy_id == deploy_id, DEPLOYS.c.homeserver == homeserver).with_for_update()
    if connection.execute(known).first() is not None:
        for table in (REQUESTS, EVENTS, DEPLOYS):
            connection.execute(table.delete().where(table.c.deploy_id == deploy_id))


def _give_back(connection: sa.Connection) -> bool:
    """Give pages to the disk that nothing is on; tell whether there may be more."""
    before = connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0
    # It works on for as long as its lines are fetched, which have no columns: SQLAlchemy would take them for none.
    connection.connection.cursor().execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
    after = connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0
    return 0 < after < before


def _size(connection: sa.Connection) -> int:
    """Return how many bytes the journal takes."""
    if connection.dialect.name == "sqlite":
        sizes = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0 for name in ("page_count", "page_size")]
        return int(sizes[0] * sizes[1])
    return sum(connection.execute(sa.select(sa.func.pg_total_relation_size(name))).scalar() or 0 for name in METADATA.tables)


def _setting(connection: sa.Connection, name: str) -> str:
    return str(connection.execute(sa.select(sa.func.current_setting(name))).scalar())
