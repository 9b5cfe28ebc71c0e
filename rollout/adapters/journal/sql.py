"""
The journal in a database: SQLite in the user's state directory by default, anything that SQLAlchemy knows by URL.

WAL lets others read while a rollout writes; `synchronous = FULL` makes every commit reach the disk before it returns, because what
follows from an event must never be more durable than the event.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from rollout.model.codec import dump_json, event_kind, load_event, load_plan
from rollout.model.errors import JournalTakenError, PermanentDriverError, TransientDriverError
from rollout.model.event import Command, DeployFinished, Event, Outcome
from rollout.model.ids import DeployId
from rollout.model.plan import Plan
from rollout.ports.journal import Baseline, DeployLine, Request

SCHEMA_VERSION = 2
# Longer than any writer holds the database: a commit takes milliseconds.
BUSY_TIMEOUT_S = 10

_METADATA = sa.MetaData()
_SCHEMA = sa.Table("schema", _METADATA, sa.Column("version", sa.Integer, primary_key=True))
_DEPLOYS = sa.Table(
    "deploys",
    _METADATA,
    sa.Column("deploy_id", sa.Text, primary_key=True),
    sa.Column("homeserver", sa.Text, nullable=False, index=True),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("from_versions", sa.Text, nullable=False),
    sa.Column("to_version", sa.Text, nullable=False),
    sa.Column("began_at_s", sa.Float, nullable=False),
)
_EVENTS = sa.Table(
    "events",
    _METADATA,
    sa.Column("deploy_id", sa.Text, sa.ForeignKey("deploys.deploy_id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
_REQUESTS = sa.Table(
    "requests",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("deploy_id", sa.Text, nullable=False),
    sa.Column("command", sa.Text, nullable=False),
    sa.Column("operator", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("worker", sa.Text),  # since 2
)
_BASELINES = sa.Table(
    "baselines",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("homeserver", sa.Text, nullable=False, index=True),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
_BASELINE = TypeAdapter(Baseline)


def default_place() -> Path:
    """Name the journal of this user."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(state) / "rollout" / "journal.db"


def open_journal(place: str | None) -> "SqlJournal":
    """
    Open a journal: a path, or a database URL; None is the user's own.

    Raises PermanentDriverError when it can't be written, is no journal, or is one of a newer rollout.
    """
    if place is None or "://" not in place:
        path = default_place() if place is None else Path(place)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PermanentDriverError("the journal's directory can't be made", where=str(path.parent), why=str(error)) from error
        place = f"sqlite:///{path}"
    remedy = "name a file, or a URL as SQLAlchemy knows them"
    try:
        engine = sa.create_engine(place, connect_args={"timeout": BUSY_TIMEOUT_S} if place.startswith("sqlite") else {})
    except (sa.exc.ArgumentError, ImportError) as error:
        raise PermanentDriverError("the journal's URL names no database that can be used", why=str(error), remedy=remedy) from error
    except ValueError:
        # What is wrong is quoted in the error, and it may be a password.
        raise PermanentDriverError("the journal's URL can't be read", remedy=remedy) from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _make_durable)
    return SqlJournal(engine)


def _make_durable(connection: Any, _record: object) -> None:  # noqa: ANN401  (the driver's own connection)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError:
        # If somebody else who opens the same new journal makes this change in this moment, it fails at once; a transaction waits.
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


class SqlJournal:
    """See ports.journal."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._where = engine.url.render_as_string(hide_password=True)
        with self._transaction() as connection:
            if engine.dialect.name == "sqlite" and not sa.inspect(connection).has_table(_SCHEMA.name):
                # Somebody else may open the same new journal in this moment: one makes all of it, the other finds it made.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            _METADATA.create_all(connection)
            version = connection.execute(sa.select(_SCHEMA.c.version)).scalar()
            if version is None:
                connection.execute(_SCHEMA.insert().values(version=SCHEMA_VERSION))
            elif version < SCHEMA_VERSION:
                connection.execute(sa.text("ALTER TABLE requests ADD COLUMN worker TEXT"))
                connection.execute(_SCHEMA.update().values(version=SCHEMA_VERSION))
            elif version > SCHEMA_VERSION:
                raise PermanentDriverError(
                    f"the journal has schema {version}, and this rollout knows {SCHEMA_VERSION}",
                    where=self._where,
                    remedy="use the release of rollout that wrote it, or another --journal",
                )

    def begin(self, deploy_id: DeployId, plan: Plan, began: Event) -> None:
        """See ports.journal."""
        versions = sorted({plan.releases[release].version for release in plan.from_releases.values()})
        with self._transaction() as connection:
            connection.execute(
                _DEPLOYS.insert().values(
                    deploy_id=deploy_id,
                    homeserver=plan.homeserver,
                    plan=dump_json(plan),
                    from_versions=" ".join(versions),
                    to_version=plan.to_release.version,
                    began_at_s=began.at_s,
                )
            )
            connection.execute(_EVENTS.insert(), _rows(deploy_id, 1, (began,)))

    def append(self, deploy_id: DeployId, events: Sequence[Event], *, after: int | None = None) -> None:
        """See ports.journal."""
        with self._transaction() as connection:
            last = connection.execute(sa.select(sa.func.max(_EVENTS.c.seq)).where(_EVENTS.c.deploy_id == deploy_id)).scalar()
            if last is None:
                raise PermanentDriverError(f"there is no rollout {deploy_id}", where=self._where)
            if after is not None and last != after:
                raise JournalTakenError(f"somebody else runs rollout {deploy_id} now", where=self._where)
            if events:
                try:
                    connection.execute(_EVENTS.insert(), _rows(deploy_id, last + 1, events))
                except sa.exc.IntegrityError as error:
                    # Somebody else has written between our look and our line.
                    raise JournalTakenError(f"somebody else runs rollout {deploy_id} now", where=self._where) from error

    def plan(self, deploy_id: DeployId) -> Plan:
        """See ports.journal."""
        with self._transaction() as connection:
            text = connection.execute(sa.select(_DEPLOYS.c.plan).where(_DEPLOYS.c.deploy_id == deploy_id)).scalar()
        if text is None:
            raise PermanentDriverError(f"there is no rollout {deploy_id}", where=self._where, remedy="`rollout history` lists them")
        return load_plan(text)

    def events(self, deploy_id: DeployId, after: int = 0) -> list[tuple[int, Event]]:
        """See ports.journal."""
        query = sa.select(_EVENTS.c.seq, _EVENTS.c.kind, _EVENTS.c.body).where(_EVENTS.c.deploy_id == deploy_id, _EVENTS.c.seq > after)
        with self._transaction() as connection:
            rows = connection.execute(query.order_by(_EVENTS.c.seq)).all()
        return [(row.seq, load_event(row.kind, row.body)) for row in rows]

    def deploys(self, homeserver: str, limit: int) -> list[DeployLine]:
        """See ports.journal."""
        last = sa.select(_EVENTS.c.deploy_id, sa.func.max(_EVENTS.c.seq).label("seq")).group_by(_EVENTS.c.deploy_id).subquery()
        query = (
            sa.select(_DEPLOYS, _EVENTS.c.kind, _EVENTS.c.body)
            .join(last, last.c.deploy_id == _DEPLOYS.c.deploy_id)
            .join(_EVENTS, (_EVENTS.c.deploy_id == last.c.deploy_id) & (_EVENTS.c.seq == last.c.seq))
            .where(_DEPLOYS.c.homeserver == homeserver)
            .order_by(_DEPLOYS.c.began_at_s.desc(), _DEPLOYS.c.deploy_id.desc())
            .limit(limit)
        )
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        return [_line(row) for row in rows]

    def keep_baseline(self, kept: Baseline) -> None:
        """See ports.journal."""
        with self._transaction() as connection:
            body = _BASELINE.dump_json(kept).decode()
            connection.execute(_BASELINES.insert().values(homeserver=kept.homeserver, at_s=kept.at_s, body=body))

    def baselines(self, homeserver: str, since_s: float) -> list[Baseline]:
        """See ports.journal."""
        query = sa.select(_BASELINES.c.body).where(_BASELINES.c.homeserver == homeserver, _BASELINES.c.at_s >= since_s)
        with self._transaction() as connection:
            rows = connection.execute(query.order_by(_BASELINES.c.at_s)).all()
        return [_BASELINE.validate_json(row.body) for row in rows]

    def ask(self, deploy_id: DeployId, request: Request) -> None:
        """See ports.journal."""
        with self._transaction() as connection:
            said = {"command": request.command.value, "operator": request.operator, "why": request.why, "worker": request.worker}
            connection.execute(_REQUESTS.insert().values(deploy_id=deploy_id, **said))

    def take_requests(self, deploy_id: DeployId) -> list[Request]:
        """See ports.journal."""
        query = sa.select(_REQUESTS).where(_REQUESTS.c.deploy_id == deploy_id).order_by(_REQUESTS.c.id)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
            if rows:
                connection.execute(_REQUESTS.delete().where(_REQUESTS.c.id.in_([row.id for row in rows])))
        return [Request(Command(row.command), row.operator, row.why, row.worker) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.IntegrityError as error:
            raise PermanentDriverError("the journal has this already", where=self._where, why=str(error.orig)) from error
        except sa.exc.OperationalError as error:
            # Locked, full, read-only, gone: nothing of it was kept, and it may be well again later.
            raise TransientDriverError("the journal can't be written or read", where=self._where, why=str(error.orig)) from error
        except sa.exc.DatabaseError as error:
            raise PermanentDriverError(
                "this is no journal", where=self._where, why=str(error.orig), remedy="name another with --journal"
            ) from error


def _rows(deploy_id: DeployId, first: int, events: Sequence[Event]) -> list[dict[str, object]]:
    return [
        {"deploy_id": deploy_id, "seq": seq, "at_s": event.at_s, "kind": event_kind(event), "body": dump_json(event)}
        for seq, event in enumerate(events, start=first)
    ]


def _line(row: Any) -> DeployLine:  # noqa: ANN401  (a row of the query above)
    end = load_event(row.kind, row.body) if row.kind == DeployFinished.__name__ else None
    finished_at_s: float | None = None
    outcome: Outcome | None = None
    if isinstance(end, DeployFinished):
        finished_at_s, outcome = end.at_s, end.outcome
    versions = tuple(row.from_versions.split())
    return DeployLine(DeployId(row.deploy_id), row.homeserver, versions, row.to_version, row.began_at_s, finished_at_s, outcome)
