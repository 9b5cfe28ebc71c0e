"""The ledger's file between processes, and when it can't be read or written."""

import threading
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rollout.adapters.ledger.file import FileLedger, build
from rollout.model.effect import Effect
from rollout.model.errors import InvalidFileError, PermanentDriverError, StaleEffectError, TransientDriverError
from rollout.model.ids import EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.plan import Verb
from rollout.simulation.rehearse import set_stage
from tests.adapters.processes import WAIT_S, another, heard, kill

SYNC1, SYNC2 = WorkerId("sync1"), WorkerId("sync2")
ROUNDS = 25


def _effect(number: int, verb: Verb = Verb.DRAIN, worker: WorkerId = SYNC1) -> Effect:
    return Effect(EffectNumber(number), StepId(f"{verb}:{worker}"), verb, worker, ReleaseId("2.0.0-0a1b2c3d"), 100.0, why="sync first")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is; nobody has written it yet."""
    return tmp_path / "rollout/ledger.json"


def _fence_again_and_again(connection: Connection, path: Path, worker: WorkerId) -> None:
    connection.send("ready")
    connection.recv()
    for number in range(1, ROUNDS + 1):
        with FileLedger(path).fence(_effect(number, worker=worker)):
            pass
    connection.send("done")


def _drain_and_stay(connection: Connection, path: Path) -> None:
    with FileLedger(path).fence(_effect(7)):
        connection.send("inside")
        connection.recv()


def test_a_mark_survives_who_set_it(path: Path) -> None:
    """Killed within a drain, it leaves the mark, and its number; nothing older is heard any more, and admission still works."""
    with another(_drain_and_stay, path) as (process, connection):
        heard(connection)
        kill(process)
    ledger = FileLedger(path)
    assert {worker: mark.number for worker, mark in ledger.marks().items()} == {SYNC1: 7}
    with pytest.raises(StaleEffectError, match="effect 6 comes too late: 7 was done already"), ledger.fence(_effect(6)):
        pass
    with ledger.fence(_effect(8, Verb.ADMIT)):
        pass
    assert ledger.marks() == {}


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    """Three of them, each on a worker of its own: every number and every mark is there at the end."""
    workers = [WorkerId(name) for name in ("sync1", "sync2", "client1")]
    with ExitStack() as stack:
        others = [stack.enter_context(another(_fence_again_and_again, path, worker))[1] for worker in workers]
        assert [heard(other) for other in others] == ["ready"] * 3
        for other in others:
            other.send("go")
        assert [heard(other) for other in others] == ["done"] * 3
    ledger = FileLedger(path)
    assert {worker: mark.number for worker, mark in ledger.marks().items()} == dict.fromkeys(workers, ROUNDS)
    for worker in workers:
        with pytest.raises(StaleEffectError), ledger.fence(_effect(ROUNDS - 1, worker=worker)):
            pass


def test_acts_on_one_worker_follow_each_other_and_hold_up_no_other(path: Path) -> None:
    """A restart that takes its time keeps only the next act on the same worker waiting."""
    ledger = FileLedger(path)
    done: list[str] = []

    def admit() -> None:
        with ledger.fence(_effect(2, Verb.ADMIT)):
            done.append("admitted")

    with ledger.fence(_effect(1, Verb.RESTART)):
        thread = threading.Thread(target=admit)
        thread.start()
        with ledger.fence(_effect(3, worker=SYNC2)):
            done.append("the other drained")
        thread.join(0.3)
        done.append("restarted")
    thread.join(WAIT_S)
    assert done == ["the other drained", "restarted", "admitted"]


@pytest.mark.parametrize(
    "content", ["", "\0" * 300, "null", "[]", "{}", '{"numbers": {"sync1": 7}}', "torn", '{"numbers": {}, "marks": {"sync1": 7}}']
)
def test_a_ledger_that_cannot_be_read_is_not_an_empty_one(path: Path, content: str) -> None:
    """An empty one would say that nothing is ours. It is an error for everybody, and left as it is for people to see."""
    ledger = FileLedger(path)
    with ledger.fence(_effect(7)):
        pass
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "torn" else content.encode())
    left = path.read_bytes()
    acted = False
    with pytest.raises(PermanentDriverError, match="the ledger is not one"):
        ledger.marks()
    with pytest.raises(PermanentDriverError, match="the ledger is not one"):
        ledger.last_number()
    with pytest.raises(PermanentDriverError, match="the ledger is not one"), ledger.fence(_effect(8)):
        acted = True
    assert not acted
    assert path.read_bytes() == left


def test_a_place_where_no_file_can_be_is_said_to_be_one(tmp_path: Path) -> None:
    """Before anything is done to a worker."""
    (tmp_path / "rollout").write_text("in the way")
    path = tmp_path / "rollout/ledger.json"
    ledger = FileLedger(path)
    with pytest.raises(PermanentDriverError) as failed, ledger.fence(_effect(1)):
        pytest.fail("it was done nevertheless")
    assert failed.value.where == str(path.parent)
    with pytest.raises(PermanentDriverError, match="can't be read"):
        ledger.marks()


def test_on_a_full_disk_nothing_is_done_and_nothing_is_lost(path: Path) -> None:
    """What can't be written down first is not done; it may be well again later."""
    ledger = FileLedger(path)
    with ledger.fence(_effect(1)):
        pass
    half = path.with_suffix(".half")
    half.symlink_to("/dev/full")
    with pytest.raises(TransientDriverError, match="No space left"), ledger.fence(_effect(2, worker=SYNC2)):
        pytest.fail("it was done nevertheless")
    assert set(ledger.marks()) == {SYNC1}
    half.unlink()
    with ledger.fence(_effect(2, worker=SYNC2)):
        pass
    assert set(ledger.marks()) == {SYNC1, SYNC2}


def test_settings_are_checked() -> None:
    """A key that is wrong is named, and what it may be."""
    with pytest.raises(InvalidFileError) as refused:
        build({"file": "ledger.json"}, set_stage({SYNC1: ("sync", "sync")}).inventory)
    assert (refused.value.what, refused.value.remedy) == ('unknown key "file"', "one of page, path, readmit_after_s")
