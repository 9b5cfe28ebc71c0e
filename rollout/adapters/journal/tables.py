"""The journal's tables, how an older journal gets them, and what is no journal at all."""

import sqlalchemy as sa

from rollout.model.errors import PermanentDriverError

SCHEMA_VERSION = 3
# Any number that nobody else takes: two processes that open a new journal in PostgreSQL make its tables one after the other.
_MAKING = 0x726F6C6C

METADATA = sa.MetaData()
SCHEMA = sa.Table("schema", METADATA, sa.Column("version", sa.Integer, primary_key=True))
DEPLOYS = sa.Table(
    "deploys",
    METADATA,
    sa.Column("deploy_id", sa.Text, primary_key=True),
    sa.Column("homeserver", sa.Text, nullable=False, index=True),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("from_versions", sa.Text, nullable=False),
    sa.Column("to_version", sa.Text, nullable=False),
    sa.Column("began_at_s", sa.Float, nullable=False),
)
EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("deploy_id", sa.Text, sa.ForeignKey("deploys.deploy_id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False, server_default="1"),  # of the body (model/codec.py); since 3
)
REQUESTS = sa.Table(
    "requests",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("deploy_id", sa.Text, nullable=False),
    sa.Column("command", sa.Text, nullable=False),
    sa.Column("operator", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("worker", sa.Text),  # since 2
)
BASELINES = sa.Table(
    "baselines",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("homeserver", sa.Text, nullable=False, index=True),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
# What makes a journal of the version before one of this version.
_STEPS = {
    2: "ALTER TABLE requests ADD COLUMN worker TEXT",
    3: "ALTER TABLE events ADD COLUMN version INTEGER NOT NULL DEFAULT 1",
}


def prepare(connection: sa.Connection, where: str) -> None:
    """
    Make the tables of a new journal, or bring those of an older one up to date. One that is as it should be is only read.

    Raises PermanentDriverError for what is no journal, and for one of a newer rollout.
    """
    if _version(connection, where) == SCHEMA_VERSION:
        return
    _alone(connection)
    version = _version(connection, where)
    if version is None:
        METADATA.create_all(connection, checkfirst=False)
        connection.execute(SCHEMA.insert().values(version=SCHEMA_VERSION))
        return
    if version > SCHEMA_VERSION:
        raise PermanentDriverError(
            f"the journal has schema {version}, and this rollout knows {SCHEMA_VERSION}",
            where=where,
            remedy="use the release of rollout that wrote it, or another --journal",
        )
    for step in range(version + 1, SCHEMA_VERSION + 1):
        connection.exec_driver_sql(_STEPS[step])
    connection.execute(SCHEMA.update().values(version=SCHEMA_VERSION))


def _alone(connection: sa.Connection) -> None:
    """Let nobody else make or change tables until the end of this transaction."""
    if connection.dialect.name == "sqlite":
        # The transaction that has read so far can't become a writer if somebody else has written meanwhile: another begins.
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING)))


def _version(connection: sa.Connection, where: str) -> int | None:
    """Read the schema's version; None where a journal may be made. Raises PermanentDriverError when something else is there."""
    # Asked anew each time: an inspector remembers.
    found = set(sa.inspect(connection).get_table_names())
    ours = set(METADATA.tables)
    if ours <= found:
        version: int | None = connection.execute(sa.select(SCHEMA.c.version)).scalar()
        if version is not None:
            return version
        raise _no_journal(where, "its table `schema` is empty")
    # A file of ours holds nothing else; a database of a server may, if no name is taken. Synapse's own has a table `events`.
    if taken := sorted(found if connection.dialect.name == "sqlite" else found & ours):
        shown = ", ".join(taken[:5])
        raise _no_journal(where, f"it has tables that are not a journal's: {shown}" + (", …" if len(taken) > 5 else ""))  # noqa: PLR2004  (as above)
    return None


def _no_journal(where: str, why: str) -> PermanentDriverError:
    remedy = "name another with --journal; in PostgreSQL, a database of its own (createdb rollout)"
    return PermanentDriverError("this is no journal", where=where, why=why, remedy=remedy)
