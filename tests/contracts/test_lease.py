"""What every driver of the port `lease` promises: files here and on a host, a row in PostgreSQL, a cluster's, the simulated one."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from rollout.adapters.lease.file import FileLease
from rollout.adapters.lease.kubernetes import KubernetesLease, LeaseSettings
from rollout.adapters.lease.postgresql import PostgresqlLease
from rollout.model.errors import LeaseHeldError, TakenOverError
from rollout.model.ids import DeployId
from rollout.ports.lease import Claim, Lease, LeaseKeeper
from rollout.simulation.lease import LeasePlace, SimulatedLease
from rollout.simulation.virtual_clock import VirtualClock
from tests.contracts.database import Server, postgresql
from tests.hosts.agents import DIRECTORY, lease_on
from tests.hosts.bed import USER, Bed, hosts
from tests.kubernetes.bed import ControlPlane

TIMEOUT_S = 5.0
TTL_S = 1.0
LONG_S = 60.0
ALICE = Claim("alice@one", "deploy 2.0.0", DeployId("d-1"))
BOB = Claim("bob@two", "resume", DeployId("d-2"))
_NAMES = (f"hs{number}.example.org" for number in itertools.count())


@dataclass(frozen=True, slots=True)
class Place:
    """Where a lease is kept: *open* reaches it as another process would, *wait* lets seconds pass."""

    open: Callable[[float], LeaseKeeper]
    wait: Callable[[float], object]
    ttl_s: float = TTL_S


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with postgresql(tmp_path_factory.mktemp("postgres")) as found:
        with found.connected() as connection:
            connection.execute("CREATE ROLE rollout_lease LOGIN; CREATE SCHEMA rollout AUTHORIZATION rollout_lease")
        yield found


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with hosts(tmp_path_factory.mktemp("beds"), "a") as bed:
        yield bed


@pytest.fixture(params=["file", "ssh", "postgresql", "kubernetes", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Every driver in turn, of a homeserver that nobody has held yet."""
    with ExitStack() as opened:
        yield _place(request, tmp_path, next(_NAMES), opened)


def _place(request: pytest.FixtureRequest, tmp_path: Path, name: str, opened: ExitStack) -> Place:
    if request.param == "file":
        return Place(lambda ttl_s: FileLease(tmp_path / "rollout/lease.json", name, ttl_s), time.sleep)
    if request.param == "ssh":
        bed = request.getfixturevalue("bed")
        bed.run("a", "install", "-d", "-o", USER, DIRECTORY)
        bed.run("a", "rm", "-f", f"{DIRECTORY}/lease.json")
        # Each call takes a process there, on a machine that may be busy.
        return Place(lambda ttl_s: opened.enter_context(closing(lease_on(bed, ttl_s))), time.sleep, 5 * TTL_S)
    if request.param == "kubernetes":
        plane: ControlPlane = request.getfixturevalue("control_plane")

        def in_cluster(ttl_s: float) -> KubernetesLease:
            return KubernetesLease(LeaseSettings(namespace=plane.namespace, kubeconfig=plane.kubeconfig, ttl_s=ttl_s), name)

        # The server's clock is known to half a second.
        return Place(in_cluster, time.sleep)
    if request.param == "postgresql":
        dsn = request.getfixturevalue("server").dsn("rollout_lease")
        return Place(lambda ttl_s: opened.enter_context(closing(PostgresqlLease(dsn, name, ttl_s))), time.sleep)
    clock, kept = VirtualClock(), LeasePlace()

    def open_one(ttl_s: float) -> SimulatedLease:
        kept.ttl_s = ttl_s
        return SimulatedLease(kept, clock.now_s)

    return Place(open_one, lambda seconds: clock.advance_to(clock.now_s() + seconds))


def take(keeper: LeaseKeeper, claim: Claim, *, above: int = 0, take_over: bool = False) -> Lease:
    return keeper.acquire(claim, TIMEOUT_S, above=above, take_over=take_over)


def found(place: Place) -> Lease:
    lease = place.open(LONG_S).read(TIMEOUT_S)
    assert lease is not None
    return lease


def test_nobody_holds_it_at_first(place: Place) -> None:
    assert place.open(LONG_S).read(TIMEOUT_S) is None


def test_whoever_looks_finds_who_holds_it_why_and_until_when(place: Place) -> None:
    lease = take(place.open(LONG_S), ALICE)
    seen = found(place)
    assert (seen.holder, seen.why, seen.deploy_id, seen.token, seen.held, seen.free) == ("alice@one", "deploy 2.0.0", "d-1", 1, True, False)
    assert seen == lease
    assert seen.expires_at_s == pytest.approx(seen.renewed_at_s + LONG_S)
    assert seen.since_s == seen.renewed_at_s
    assert seen.host
    assert seen.pid > 0
    assert seen.taken_from == ""


def test_one_at_a_time(place: Place) -> None:
    """The second is told by whom and for what it is held, until when, and what to do; nothing changes by asking."""
    lease = take(place.open(LONG_S), ALICE)
    for _ in range(2):
        with pytest.raises(LeaseHeldError) as refused:
            take(place.open(LONG_S), BOB)
        assert "alice@one" in refused.value.why
        assert "deploy 2.0.0" in refused.value.why
        assert f"(process {lease.pid}) since 20" in refused.value.why or f"(process {lease.pid}) since 19" in refused.value.why
        assert time.strftime("%H:%M:%S", time.localtime(lease.expires_at_s)) in refused.value.why
        assert "--take-over" in refused.value.remedy
    assert found(place) == lease


def test_what_was_given_back_may_be_taken_and_the_token_rises(place: Place) -> None:
    first = place.open(LONG_S)
    first.release(take(first, ALICE).token, TIMEOUT_S)
    assert found(place).free
    second = take(place.open(LONG_S), BOB)
    assert (second.token, second.holder, second.taken_from) == (2, "bob@two", "")


def test_only_ones_own_is_given_back(place: Place) -> None:
    first, second = place.open(LONG_S), place.open(LONG_S)
    token = take(first, ALICE).token
    take(second, BOB, take_over=True)
    first.release(token, TIMEOUT_S)
    assert (found(place).holder, found(place).free) == ("bob@two", False)


def test_what_has_run_out_may_be_taken_and_it_is_written_down_from_whom(place: Place) -> None:
    first, second = place.open(place.ttl_s), place.open(place.ttl_s)
    token = take(first, ALICE).token
    with pytest.raises(LeaseHeldError):
        take(second, BOB)
    place.wait(place.ttl_s + 0.1)
    assert found(place).free
    lease = take(second, BOB)
    assert (lease.token, lease.holder) == (token + 1, "bob@two")
    assert lease.taken_from.startswith("alice@one on ")
    with pytest.raises(TakenOverError) as lost:
        first.renew(token, TIMEOUT_S)
    assert "bob@two" in lost.value.why


def test_renewing_keeps_it(place: Place) -> None:
    """For three times as long as it is valid."""
    first, second = place.open(place.ttl_s), place.open(place.ttl_s)
    lease = take(first, ALICE)
    for _ in range(6):
        place.wait(place.ttl_s / 2)
        first.renew(lease.token, TIMEOUT_S)
        with pytest.raises(LeaseHeldError):
            take(second, BOB)
    seen = found(place)
    assert seen.token == lease.token
    assert seen.since_s == pytest.approx(lease.since_s)
    assert seen.renewed_at_s >= lease.since_s + 3 * place.ttl_s


def test_what_has_run_out_and_nobody_wanted_is_renewed_by_who_had_it(place: Place) -> None:
    """The database was away for longer than the lease is valid: that alone takes nothing from anybody."""
    first = place.open(place.ttl_s)
    token = take(first, ALICE).token
    place.wait(place.ttl_s + 0.1)
    first.renew(token, TIMEOUT_S)
    with pytest.raises(LeaseHeldError):
        take(place.open(place.ttl_s), BOB)


def test_taking_it_over_takes_it_at_once_and_says_from_whom(place: Place) -> None:
    first, second = place.open(LONG_S), place.open(LONG_S)
    token = take(first, ALICE).token
    lease = take(second, BOB, take_over=True)
    assert lease.token == token + 1
    assert "alice@one" in lease.taken_from
    assert "alice@one" in found(place).taken_from
    with pytest.raises(TakenOverError, match="lost"):
        first.renew(token, TIMEOUT_S)
    second.renew(lease.token, TIMEOUT_S)
    assert found(place).holder == "bob@two"


def test_taking_over_what_nobody_holds_takes_it_from_nobody(place: Place) -> None:
    lease = take(place.open(LONG_S), BOB, take_over=True)
    assert (lease.token, lease.taken_from) == (1, "")


def test_a_token_is_higher_than_what_the_ledger_knows(place: Place) -> None:
    """Where the lease is kept may have gone back in time; the ledger at the target has not."""
    first = place.open(LONG_S)
    assert take(first, ALICE, above=41).token == 42
    first.release(42, TIMEOUT_S)
    assert take(place.open(LONG_S), BOB, above=7).token == 43


def test_of_many_at_once_one_gets_it(place: Place) -> None:
    """Eight threads, each as a process of its own: one holds it, seven are refused."""
    keepers = [place.open(LONG_S) for _ in range(8)]

    def attempt(keeper: LeaseKeeper) -> Lease | None:
        try:
            return take(keeper, BOB)
        except LeaseHeldError:
            return None

    with ThreadPoolExecutor(8) as pool:
        got = [lease for lease in pool.map(attempt, keepers) if lease is not None]
    assert [lease.token for lease in got] == [1]


def test_nobody_renews_what_they_never_acquired(place: Place) -> None:
    take(place.open(LONG_S), ALICE)
    with pytest.raises(ValueError, match="never acquired"):
        place.open(LONG_S).renew(1, TIMEOUT_S)
