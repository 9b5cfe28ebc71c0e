"""The lease's file between processes, and when it can't be read or written."""

import os
import signal
import socket
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rollout.adapters.lease.file import FileLease, build
from rollout.agent import holders
from rollout.agent.lease import alone
from rollout.model.errors import LeaseHeldError, PermanentDriverError, TransientDriverError
from rollout.model.ids import DeployId
from rollout.ports.lease import Claim, Lease
from rollout.simulation.rehearse import set_stage
from tests.adapters.processes import another, heard, kill

ALICE, BOB = Claim("alice", "deploy 2.0.0", DeployId("d-1")), Claim("bob", "resume", DeployId("d-1"))
TIMEOUT_S = 5.0
LONG_S = 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the lease is; nobody has written it yet."""
    return tmp_path / "rollout/lease.json"


def keeper(path: Path, ttl_s: float = LONG_S) -> FileLease:
    return FileLease(path, "example.org", ttl_s)


def take(path: Path, claim: Claim) -> Lease:
    return keeper(path).acquire(claim, TIMEOUT_S, above=0, take_over=False)


def _hold(connection: Connection, path: Path) -> None:
    lease = take(path, ALICE)
    connection.send((os.getpid(), lease.token))
    connection.recv()


def _said(connection: Connection) -> tuple[int, int]:
    said = heard(connection)
    assert isinstance(said, tuple)
    return int(said[0]), int(said[1])


def _compare_and_stay(connection: Connection, path: Path) -> None:
    # Between its look and its write.
    with alone(path, TIMEOUT_S):
        connection.send("inside")
        connection.recv()


def test_who_was_killed_holds_nothing_any_more(path: Path) -> None:
    """Valid for an hour, and taken at once when the process is seen to be gone; alive, also stopped, it keeps everybody out."""
    with another(_hold, path) as (process, connection):
        pid, token = _said(connection)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(LeaseHeldError) as refused:
            take(path, BOB)
        assert refused.value.why.startswith(f"alice on {socket.gethostname()} (process {pid}) since 20")
        assert ": deploy 2.0.0\n" in refused.value.why
        kill(process)
        found = keeper(path).read(TIMEOUT_S)
        assert found is not None
        assert found.free
        lease = take(path, BOB)
    assert (lease.token, lease.holder) == (token + 1, "bob")
    assert "alice" in lease.taken_from


def test_one_whose_parent_has_not_noticed_is_gone_too(path: Path) -> None:
    """What is left of it then still has its number."""
    pid = os.fork()
    if pid == 0:
        take(path, ALICE)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert take(path, BOB).taken_from
    os.waitpid(pid, 0)


def test_a_number_that_was_given_to_another_process_is_no_sign_of_life() -> None:
    me = holders.me()
    assert not holders.is_gone(os.getpid(), me)
    earlier = f"{me.rpartition(' ')[0]} {int(me.rpartition(' ')[2]) - 1}"
    assert holders.is_gone(os.getpid(), earlier)


@pytest.mark.parametrize("process", ["", "another-boot pid:[4026531836] 17", "torn"])
def test_of_a_process_elsewhere_nothing_is_known(process: str) -> None:
    """Another machine, another boot of this one, another container: its lease has to run out."""
    assert not holders.is_gone(2**22 + 1, process)


def test_one_who_was_stopped_in_the_middle_is_waited_for_within_bounds(path: Path) -> None:
    """Between its look and its write nobody else may do anything; they are told so, and nothing happened."""
    with another(_compare_and_stay, path) as (_, connection):
        assert heard(connection) == "inside"
        began_s = time.monotonic()
        with pytest.raises(TransientDriverError, match=r"kept the lease's file to themselves for 0\.3 s"):
            keeper(path).acquire(BOB, 0.3, above=0, take_over=True)
        assert 0.25 < time.monotonic() - began_s < 5
    assert take(path, BOB).token == 1


@pytest.mark.parametrize("content", ["", "null", "{}", '{"token": 7}', "torn"])
def test_a_file_that_is_no_lease_is_an_error_with_a_remedy(path: Path, content: str) -> None:
    """It is neither free nor held, and left as it is; once a person has removed it, the ledger's token is still above all before."""
    take(path, ALICE)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2] if content == "torn" else content)
    left = path.read_text()
    with pytest.raises(PermanentDriverError, match="is no lease") as failed:
        keeper(path).acquire(BOB, TIMEOUT_S, above=0, take_over=True)
    assert "remove the file" in failed.value.remedy
    assert failed.value.where == str(path)
    with pytest.raises(PermanentDriverError):
        keeper(path).read(TIMEOUT_S)
    assert path.read_text() == left
    path.unlink()
    assert keeper(path).acquire(BOB, TIMEOUT_S, above=1, take_over=False).token == 2


def test_a_file_that_was_removed_is_written_again_by_who_holds_it(path: Path) -> None:
    """Whatever went back in time or was lost: nobody has taken it meanwhile, so it is still theirs."""
    mine = keeper(path)
    token = mine.acquire(ALICE, TIMEOUT_S, above=6, take_over=False).token
    path.unlink()
    mine.renew(token, TIMEOUT_S)
    found = keeper(path).read(TIMEOUT_S)
    assert found is not None
    assert (found.token, found.holder, found.free) == (7, "alice", False)


def test_a_place_where_no_file_can_be_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "rollout").write_text("in the way")
    with pytest.raises(PermanentDriverError, match="directory can't be used"):
        take(tmp_path / "rollout/lease.json", ALICE)


def test_it_is_opened_by_its_settings(path: Path) -> None:
    inventory = set_stage({"sync1": ("sync", "sync")}).inventory
    assert build({"path": str(path)}, inventory).ttl_s == 30.0
    assert build({"path": str(path), "ttl_s": 5}, inventory).ttl_s == 5.0
