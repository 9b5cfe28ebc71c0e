"""The lease, held by threads and processes in real time."""

import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rollout.adapters.clock.system import SystemClock
from rollout.adapters.lease.file import FileLease
from rollout.adapters.ledger.file import FileLedger
from rollout.engine import leasing
from rollout.engine.leasing import Tenure, acquire
from rollout.model.errors import LeaseHeldError, TakenOverError
from rollout.model.event import LeaseLost, LeaseRegained
from rollout.model.ids import DeployId
from rollout.ports.lease import Claim, Lease
from tests.adapters.processes import another, heard
from tests.contracts.proxy import until

TTL_S = 1.0
ALICE, BOB = Claim("alice", "deploy", DeployId("d-1")), Claim("bob", "resume", DeployId("d-1"))


def hold(place: Path, claim: Claim = ALICE, *, take_over: bool = False) -> Tenure:
    keeper, ledger = FileLease(place / "lease.json", "example.org", TTL_S), FileLedger(place / "ledger.json")
    return acquire(keeper, ledger, SystemClock(), claim, take_over=take_over)


def lease_in(place: Path) -> Lease:
    found = FileLease(place / "lease.json", "example.org", TTL_S).read(1.0)
    assert found is not None
    return found


def _hold(connection: Connection, place: Path) -> None:
    told: list[LeaseLost | LeaseRegained] = []
    with hold(place) as tenure:
        tenure.listen(told.append)
        connection.send(os.getpid())
        connection.recv()
        # The very first thing after waking.
        connection.send(tenure.holds())
        until(lambda: bool(told))
        connection.send(told)


def test_it_is_held_for_as_long_as_it_is_wanted_and_then_given_back(tmp_path: Path) -> None:
    with hold(tmp_path) as tenure:
        end_s = time.monotonic() + 3 * TTL_S
        while time.monotonic() < end_s:
            assert tenure.holds()
            with pytest.raises(LeaseHeldError):
                hold(tmp_path, BOB)
            time.sleep(0.1)
        assert FileLedger(tmp_path / "ledger.json").token() == tenure.lease.token == 1
    assert lease_in(tmp_path).free
    assert not lease_in(tmp_path).held


def test_who_is_taken_over_learns_it_and_gives_nothing_back(tmp_path: Path) -> None:
    told: list[LeaseLost | LeaseRegained] = []
    with hold(tmp_path) as tenure:
        second = hold(tmp_path, BOB, take_over=True)
        until(tenure.is_taken)
        # What was learnt before anybody listened is told too.
        tenure.listen(told.append)
        assert [type(event) for event in told] == [LeaseLost]
        assert isinstance(told[0], LeaseLost)
        assert told[0].taken_over
        assert "bob" in told[0].why
        assert not tenure.holds()
    assert (lease_in(tmp_path).holder, lease_in(tmp_path).token) == ("bob", second.lease.token)
    assert lease_in(tmp_path).held


def test_what_cannot_be_renewed_is_lost_in_time_and_may_be_held_again(tmp_path: Path) -> None:
    """Its directory is gone for a while: not before it has run out is it lost, and very soon after."""
    told: list[LeaseLost | LeaseRegained] = []
    with hold(tmp_path / "here") as tenure:
        tenure.listen(told.append)
        began_s = time.monotonic()
        (tmp_path / "here").rename(tmp_path / "there")
        (tmp_path / "here").write_text("in the way")
        until(lambda: bool(told))
        assert 0.5 * TTL_S < time.monotonic() - began_s < 3 * TTL_S
        assert not tenure.holds()
        assert isinstance(told[0], LeaseLost)
        assert not told[0].taken_over
        assert "could not be renewed for 1 s: the lease's directory can't be used" in told[0].why
        (tmp_path / "here").unlink()
        (tmp_path / "there").rename(tmp_path / "here")
        until(lambda: len(told) > 1)
        assert isinstance(told[1], LeaseRegained)
        assert tenure.holds()
    assert len(told) == 2


def test_a_process_that_was_stopped_holds_nothing_on_waking(tmp_path: Path) -> None:
    """Stopped for longer than the lease is valid; somebody takes it meanwhile, unasked, and is written down in the ledger."""
    with another(_hold, tmp_path) as (_, connection):
        pid = heard(connection)
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGSTOP)
        until(lambda: lease_in(tmp_path).free)
        second = hold(tmp_path, BOB)
        assert "alice" in second.lease.taken_from
        connection.send("woken")
        os.kill(pid, signal.SIGCONT)
        assert heard(connection) is False
        told = heard(connection)
        assert isinstance(told, list)
        assert [(type(event), event.taken_over) for event in told] == [(LeaseLost, True)]
    with pytest.raises(TakenOverError):
        FileLedger(tmp_path / "ledger.json").beat(1, 0.0)


def test_a_loop_that_hangs_lets_others_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has said that it lives, it has to go on saying so."""
    monkeypatch.setattr(leasing, "SILENT_S", 0.5)
    with hold(tmp_path) as tenure:
        tenure.lives()
        until(lambda: lease_in(tmp_path).free)
        assert not tenure.holds()
        assert hold(tmp_path, BOB).lease.token == 2


def test_a_driver_with_a_bug_is_a_lease_that_is_not_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[LeaseLost | LeaseRegained] = []
    with hold(tmp_path) as tenure:
        tenure.listen(told.append)
        monkeypatch.setattr(FileLease, "renew", _broken)
        until(lambda: bool(told))
    assert isinstance(told[0], LeaseLost)
    assert "ZeroDivisionError" in told[0].why


def _broken(*_: object) -> None:
    raise ZeroDivisionError


def test_a_ledger_that_knows_a_higher_token_wins(tmp_path: Path) -> None:
    """The lease was forgotten, by a failover or a person; the ledger was not."""
    FileLedger(tmp_path / "ledger.json").take(41, "carol")
    with hold(tmp_path) as tenure:
        assert tenure.lease.token == 42


def test_a_renewal_that_takes_its_time_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one thread's; what the lease is worth is known meanwhile."""
    going_on = threading.Event()
    usual: Callable[[FileLease, int, float], None] = FileLease.renew

    def slowly(self: FileLease, token: int, timeout_s: float) -> None:
        going_on.wait(10)
        usual(self, token, timeout_s)

    monkeypatch.setattr(FileLease, "renew", slowly)
    with hold(tmp_path) as tenure:
        until(lambda: not tenure.holds())
        going_on.set()
        until(tenure.holds)
