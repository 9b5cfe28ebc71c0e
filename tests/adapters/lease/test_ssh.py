"""The lease on a real host, over SSH: two people at two laptops."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from rollout.engine.drivers import lease_settings
from rollout.model.errors import LeaseHeldError, PermanentDriverError, TransientDriverError
from rollout.model.ids import DeployId, WorkerId
from rollout.model.inventory import DriverSettings
from rollout.ports.lease import Claim
from tests.hosts import units
from tests.hosts.agents import DIRECTORY, LEDGER, lease_on
from tests.hosts.bed import USER, Bed, hosts

ALICE, BOB = Claim("alice", "deploy 2.0.0", DeployId("d-1")), Claim("bob", "resume", DeployId("d-1"))
TIMEOUT_S = 15.0
LEASE = f"{DIRECTORY}/lease.json"


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with hosts(tmp_path_factory.mktemp("beds"), "a") as bed:
        bed.run("a", "install", "-d", "-m", "700", "-o", USER, DIRECTORY)
        yield bed


@pytest.fixture(autouse=True)
def nobody(bed: Bed) -> None:
    """Nobody has held it yet."""
    bed.run("a", "rm", "-f", LEASE)


def test_a_second_person_is_refused_with_who_holds_it_where_and_why(bed: Bed) -> None:
    with closing(lease_on(bed)) as alices, closing(lease_on(bed)) as bobs:
        lease = alices.acquire(ALICE, TIMEOUT_S, above=0, take_over=False)
        with pytest.raises(LeaseHeldError) as refused:
            bobs.acquire(BOB, TIMEOUT_S, above=0, take_over=False)
    assert refused.value.where == f"{LEASE} on {units.where(bed, 'a')}"
    assert refused.value.why.startswith(f"alice on {socket.gethostname()} (process {lease.pid}) since ")
    assert ": deploy 2.0.0\n" in refused.value.why


def test_whose_machine_is_lost_holds_it_until_it_runs_out(bed: Bed) -> None:
    """The host can't see whether a process on another machine is gone, whatever has its number there."""
    with closing(lease_on(bed, 60.0)) as alices:
        lease = alices.acquire(ALICE, TIMEOUT_S, above=0, take_over=False)
        text = bed.run("a", "cat", LEASE)
        gone = text.replace(f'"pid": {lease.pid},', '"pid": 4194303,').replace('"process": "', '"process": "elsewhere ')
        bed.write("a", LEASE, gone)
        found = alices.read(TIMEOUT_S)
    assert found is not None
    assert (found.pid, found.free) == (4194303, False)


def test_a_file_that_is_no_lease_or_is_kept_from_us_is_said_to_be_that(bed: Bed) -> None:
    with closing(lease_on(bed)) as keeper:
        bed.write("a", LEASE, '{"token": 7}')
        with pytest.raises(PermanentDriverError, match="is no lease"):
            keeper.read(TIMEOUT_S)
        bed.run("a", "rm", LEASE)
        keeper.acquire(ALICE, TIMEOUT_S, above=0, take_over=False)
        lock = LEASE.replace(".json", ".lock")
        bed.run("a", "systemd-run", "--quiet", "--unit=holder", f"--uid={USER}", "flock", lock, "sleep", "60")
        try:
            with pytest.raises(TransientDriverError, match="kept the lease's file to themselves"):
                keeper.renew(1, 2.0)
        finally:
            bed.run("a", "systemctl", "stop", "holder.service")
        keeper.renew(1, TIMEOUT_S)


def test_by_default_it_lies_beside_the_ledger() -> None:
    homes = units.inventory({WorkerId("sync1"): "a"})
    given = {"driver": "ssh", "host": "a", "path": LEDGER, "page": "file:/etc/rollout/page", "hosts": {"a": {"address": "a", "user": "u"}}}
    homes = homes.model_copy(update={"ledger_driver": DriverSettings.model_validate(given)})
    found = lease_settings(homes)
    assert (found.driver, found.settings()) == ("ssh", {"host": "a", "path": LEASE, "hosts": given["hosts"]})
