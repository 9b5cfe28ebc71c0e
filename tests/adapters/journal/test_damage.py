"""A journal's file after a power cut, on a full disk, where it can't be written, and where it isn't one: what was promised is there."""

import itertools
import os
import random
import resource
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rollout.adapters.journal.sql import open_journal
from rollout.adapters.journal.tables import SCHEMA_VERSION
from rollout.model.errors import DriverError, PermanentDriverError, TransientDriverError
from rollout.model.event import Command, DeployBegan, WaitBegan
from rollout.ports.journal import Request
from tests.adapters.journal.rollouts import ONE, began, some_plan, wait
from tests.adapters.processes import another, heard

APPENDS = 12
BYTES_EACH = 900
# Besides every edge of a frame of the log, and the byte before and after it.
CUTS_BY_CHANCE = 60
NOBODY = 65_534
FILE_BYTES_MAX = 400_000


def _whole(number: int) -> list[tuple[int, DeployBegan | WaitBegan]]:
    """What stands there after so many appends of three."""
    return list(enumerate([began(), *(wait(at, BYTES_EACH) for at in range(3 * number))], start=1))


def test_a_log_that_is_torn_at_any_byte_has_every_append_that_is_whole_in_it(tmp_path: Path) -> None:
    """
    A power cut leaves the beginning of what was being written.

    Each append is there with all its events or with none, in order; every one whose bytes had all reached the disk is there.
    """
    path, log = tmp_path / "journal.db", tmp_path / "journal.db-wal"
    journal = open_journal(str(path))
    journal.begin(ONE, some_plan(), began())
    # What is in the file by now stays; what follows is in the log alone.
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    promised = [0]
    for number in range(APPENDS):
        journal.append(ONE, [wait(3 * number + at, BYTES_EACH) for at in range(3)])
        promised.append(log.stat().st_size)
    file_bytes, log_bytes = path.read_bytes(), log.read_bytes()
    assert promised[-1] == len(log_bytes) > promised[1] > 0
    frame = 24 + 4096
    edges = {32 + frame * number + off for number in range(len(log_bytes) // frame + 1) for off in (-1, 0, 1)}
    chance = random.Random(7)
    cuts = {0, 1, 31, *edges, *(chance.randrange(len(log_bytes)) for _ in range(CUTS_BY_CHANCE))}
    seen = set()
    for cut in sorted(cut for cut in cuts if 0 <= cut <= len(log_bytes)):
        torn = tmp_path / f"torn{cut}"
        torn.mkdir()
        (torn / "journal.db").write_bytes(file_bytes)
        (torn / "journal.db-wal").write_bytes(log_bytes[:cut])
        again = open_journal(str(torn / "journal.db"))
        events = again.events(ONE)
        whole = (len(events) - 1) // 3
        assert events == _whole(whole)
        assert whole >= max(number for number, size in enumerate(promised) if size <= cut)
        # And it goes on from there.
        again.append(ONE, [wait(3 * whole + at, BYTES_EACH) for at in range(3)])
        assert again.events(ONE) == _whole(whole + 1)
        again.close()
        seen.add(whole)
        shutil.rmtree(torn)
    assert seen == set(range(APPENDS + 1))
    journal.close()


def _at_rest(place: Path) -> bytes:
    """Return the bytes of a journal that nobody has open, with no log beside it."""
    journal = open_journal(str(place))
    journal.begin(ONE, some_plan(), began())
    journal.append(ONE, [wait(at, BYTES_EACH) for at in range(30)])
    journal.close()
    with closing(sqlite3.connect(place)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = place.read_bytes()
    for beside in place.parent.glob(f"{place.name}-*"):
        beside.unlink()
    return content


@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.1, 0.01])
def test_a_file_that_has_lost_its_end_is_said_to_be_damaged(tmp_path: Path, share: float) -> None:
    """When it is opened, not in mid-rollout; how much is missing, and what to do. It is not written to."""
    content = _at_rest(tmp_path / "whole.db")
    path = tmp_path / "journal.db"
    path.write_bytes(content[: int(len(content) * share)])
    before = path.read_bytes()
    with pytest.raises(PermanentDriverError, match="the journal is damaged: its end is missing") as refused:
        open_journal(str(path))
    assert f"{len(before)} bytes of {len(content)}" in refused.value.why
    assert "keep both files" in refused.value.remedy
    assert path.read_bytes() == before


def test_an_empty_file_beside_a_log_is_no_new_journal(tmp_path: Path) -> None:
    """SQLite would throw the log away."""
    path = tmp_path / "journal.db"
    journal = open_journal(str(path))
    journal.begin(ONE, some_plan(), began())
    log = (tmp_path / "journal.db-wal").read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for content in (b"", None):
        if content is not None:
            (elsewhere / "journal.db").write_bytes(content)
        (elsewhere / "journal.db-wal").write_bytes(log)
        with pytest.raises(PermanentDriverError, match="its file is empty, and the log beside it is not"):
            open_journal(str(elsewhere / "journal.db"))
        assert (elsewhere / "journal.db-wal").read_bytes() == log
        (elsewhere / "journal.db").unlink(missing_ok=True)
    journal.close()


def test_what_rots_in_the_middle_is_never_read_as_something_else(tmp_path: Path) -> None:
    """Pages that were written over: an error says so, or what stands there is read as it was; never less, never other."""
    content = _at_rest(tmp_path / "whole.db")
    chance = random.Random(3)
    errors: list[str] = []
    for number in range(40):
        path = tmp_path / f"rotten{number}.db"
        at = 4096 * chance.randrange(1, len(content) // 4096)
        path.write_bytes(content[:at] + bytes(chance.randrange(256) for _ in range(4096)) + content[at + 4096 :])
        try:
            journal = open_journal(str(path))
            read = journal.events(ONE), journal.plan(ONE)
        except DriverError as error:
            errors.append(error.where)
        else:
            assert read == (_whole(10), some_plan())
    assert len(errors) > 20
    assert all(str(tmp_path) in where for where in errors)


def test_another_program_s_file_is_left_alone(tmp_path: Path) -> None:
    """It may be SQLite's as well."""
    path = tmp_path / "places.sqlite"
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(PermanentDriverError, match="this is no journal") as refused:
        open_journal(str(path))
    assert "bookmarks" in refused.value.why
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    assert len(path.read_bytes()) == len(before)


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_journal_of_an_older_rollout_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    """With all that stands in it; what it did not have yet is as it was then."""
    path = tmp_path / "journal.db"
    journal = open_journal(str(path))
    journal.begin(ONE, some_plan(), began())
    journal.append(ONE, [wait(0, BYTES_EACH)])
    journal.ask(ONE, Request(Command.ABORT, "bob", "dinner"))
    journal.close()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("ALTER TABLE events DROP COLUMN version")
        if version < 2:
            other.execute("ALTER TABLE requests DROP COLUMN worker")
        other.execute("UPDATE schema SET version = ?", (version,))
    again = open_journal(str(path))
    assert again.events(ONE) == [(1, began()), (2, wait(0, BYTES_EACH))]
    assert again.take_requests(ONE) == [Request(Command.ABORT, "bob", "dinner")]
    again.append(ONE, [wait(1, BYTES_EACH)])
    assert open_journal(str(path)).events(ONE)[-1] == (3, wait(1, BYTES_EACH))


def test_a_full_disk_keeps_what_was_kept_and_nothing_by_halves(tmp_path: Path) -> None:
    """As SQLite tells it; once there is room again, it goes on where it was."""
    path = tmp_path / "journal.db"
    journal = open_journal(str(path))
    journal.begin(ONE, some_plan(), began())
    with journal._database._engine.connect() as connection:  # noqa: SLF001  (the limit is the connection's own)
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar() or 0
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 12}")
    kept = 0

    def fill() -> None:
        nonlocal kept
        while True:
            journal.append(ONE, [wait(3 * kept + at, BYTES_EACH) for at in range(3)])
            kept += 1

    with pytest.raises(TransientDriverError, match="its disk is full") as full:
        fill()
    assert "free some space" in full.value.remedy
    assert kept > 0
    assert journal.events(ONE) == _whole(kept)
    with journal._database._engine.connect() as connection:  # noqa: SLF001  (as above)
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    journal.append(ONE, [wait(3 * kept + at, BYTES_EACH) for at in range(3)])
    assert journal.events(ONE) == _whole(kept + 1)


def _append_until_there_is_no_room(connection: Connection, place: str) -> None:
    journal = open_journal(place)
    journal.begin(ONE, some_plan(), began())
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))
    for number in itertools.count():
        try:
            journal.append(ONE, [wait(3 * number + at, BYTES_EACH) for at in range(3)])
        except TransientDriverError as error:
            connection.send((number, error.where, error.why))
            return


def test_a_file_that_the_system_lets_grow_no_more_keeps_what_was_kept(tmp_path: Path) -> None:
    """A real limit, in the midst of a write: half of it stands in the log, and counts for nothing."""
    place = str(tmp_path / "journal.db")
    with another(_append_until_there_is_no_room, place) as (_, connection):
        told = heard(connection)
    assert isinstance(told, tuple)
    kept, where, why = told
    assert kept > 3
    assert (where, why) == (place, "disk I/O error")
    assert open_journal(place).events(ONE) == _whole(kept)


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Root may write everywhere; for a while we are somebody who may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that everybody can reach, which a test's own is not."""
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        place.chmod(0o755)
        yield place


@pytest.mark.parametrize("what", ["file", "directory"])
def test_where_nothing_can_be_written_it_is_said_so(open_place: Path, what: str) -> None:
    """A read-only file can be read; in a directory that is read-only there may be no journal at all. Neither is changed."""
    place = open_place / "state"
    place.mkdir()
    path = place / "journal.db"
    content = _at_rest(path)
    path.chmod(0o444)
    place.chmod(0o555 if what == "directory" else 0o777)
    with _as_nobody():
        if what == "file":
            journal = open_journal(str(path))
            assert journal.events(ONE) == _whole(10)
            with pytest.raises(PermanentDriverError, match="read-only") as refused:
                journal.append(ONE, [wait(0, BYTES_EACH)])
            journal.close()
        else:
            with pytest.raises(PermanentDriverError, match=r"can't be (opened|written)") as refused:
                open_journal(str(path))
            with pytest.raises(PermanentDriverError, match="can't be opened"):
                open_journal(str(place / "other.db"))
    assert str(path) in refused.value.where
    assert refused.value.remedy
    place.chmod(stat.S_IRWXU)
    assert path.read_bytes() == content
