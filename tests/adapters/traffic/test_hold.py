"""The hold that lives in HAProxy: what it bounds by itself, in which order it lets go, and what it says where it can't be had."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest

from rollout.adapters.traffic.haproxy import Haproxy
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import WorkerId
from rollout.model.plan import HoldBound
from rollout.model.sighting import PoolSighting
from rollout.ports.traffic import Server
from tests.contracts.proxy import Backend, Proxy, ask, haproxy, until

MAIN = WorkerId("main")
SERVER = Server("sync", "main")
TIMEOUT_S = 2.0
LONG = HoldBound(hold_s=30.0, hold_max=100)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """One with a backend of one server, which has answered one request: the hold is known to be on its requests' way."""
    with haproxy(tmp_path, ("main",)) as found:
        until(partial(_is_up, found))
        _pass_one(found)
        yield found


def _pass_one(proxy: Proxy) -> None:
    proxy.backends["main"].released.set()
    proxy.begin_request()
    assert proxy.answers() == [200]
    proxy.open.pop().close()


def _driver(proxy: Proxy) -> Haproxy:
    return Haproxy((proxy.admin,), proxy.master, {"sync"})


def _pool(proxy: Proxy) -> PoolSighting:
    return _driver(proxy).pools(["sync"], TIMEOUT_S)["sync"]


def _begin(proxy: Proxy, requests: int) -> None:
    """Begin some that are seen to wait, one after the other."""
    before = _pool(proxy).hold.waiting
    for wanted in range(before + 1, before + requests + 1):
        proxy.begin_request()
        until(partial(_waits, proxy, wanted))


def _let_go_without_an_answer(proxy: Proxy, requests: int) -> Backend:
    """Hold some and let them go to a server that answers nobody yet; return it once the first have arrived."""
    backend = proxy.backends["main"]
    backend.released.clear()
    _driver(proxy).hold(SERVER, LONG, TIMEOUT_S)
    _begin(proxy, requests)
    backend.arrived.clear()
    _driver(proxy).let_go(SERVER, TIMEOUT_S)
    until(lambda: len(backend.arrived) >= 12)
    return backend


def _waits(proxy: Proxy, requests: int) -> bool:
    return _pool(proxy).hold.waiting == requests


def _is_up(proxy: Proxy) -> bool:
    return _driver(proxy).look({MAIN: SERVER}, TIMEOUT_S)[MAIN].up


def test_what_comes_while_the_server_restarts_is_answered_when_it_is_back(proxy: Proxy) -> None:
    """The server is gone in between; let go is only once the proxy sees it up."""
    backend = proxy.backends["main"]
    _driver(proxy).hold(SERVER, LONG, TIMEOUT_S)
    ask(proxy.admin, "set server sync/main health down")
    _begin(proxy, 5)
    backend.released.clear()
    ask(proxy.admin, "set server sync/main health up")
    assert _pool(proxy).hold.waiting == 5, "nobody goes on by itself"
    backend.released.set()
    _driver(proxy).let_go(SERVER, TIMEOUT_S)
    assert proxy.answers() == [200] * 5
    seen = _pool(proxy).hold
    assert (seen.waiting, seen.waiting_max, seen.shed, seen.let_go_late) == (0, 5, 0, 0)


def test_who_waits_for_a_server_whose_health_is_not_checked_goes_on(tmp_path: Path) -> None:
    """It counts as up: or they would wait until the hold's time has run out."""
    with haproxy(tmp_path, ("main",), checks=False) as proxy:
        _pass_one(proxy)
        _driver(proxy).hold(SERVER, LONG, TIMEOUT_S)
        _begin(proxy, 3)
        _driver(proxy).let_go(SERVER, TIMEOUT_S)
        assert proxy.answers() == [200] * 3


def test_the_proxy_lets_go_by_itself_when_the_time_is_up(proxy: Proxy) -> None:
    """Whoever asked for the hold may be dead: nobody tells it."""
    began_s = time.monotonic()
    _driver(proxy).hold(SERVER, HoldBound(hold_s=3.0, hold_max=100), TIMEOUT_S)
    _begin(proxy, 3)
    assert proxy.answers() == [200] * 3
    assert 2.9 <= time.monotonic() - began_s < 9
    until(lambda: not _pool(proxy).held)
    assert _pool(proxy).hold.let_go_late == 3, "and it is told that it was not us who did"


def test_beyond_the_most_that_may_wait_others_are_sent_away_with_a_time_to_come_back(proxy: Proxy) -> None:
    _driver(proxy).hold(SERVER, HoldBound(hold_s=30.0, hold_max=2), TIMEOUT_S)
    _begin(proxy, 2)
    for _ in range(3):
        proxy.begin_request()
    refused = [one.recv(65_536) for one in proxy.open[2:]]
    assert [int(answer.split()[1]) for answer in refused] == [503] * 3
    for answer in refused:
        waits_s = next(int(line.split(b":")[1]) for line in answer.splitlines() if line.lower().startswith(b"retry-after:"))
        assert 25 <= waits_s <= 30
    _driver(proxy).let_go(SERVER, TIMEOUT_S)
    assert [int(one.recv(65_536).split()[1]) for one in proxy.open[:2]] == [200] * 2
    assert _pool(proxy).hold.shed == 3
    _driver(proxy).hold(SERVER, LONG, TIMEOUT_S)
    assert _driver(proxy).look({MAIN: SERVER}, TIMEOUT_S)[MAIN].hold.shed == 3, "and the next hold counts on"


def test_who_came_first_goes_on_first_and_not_all_at_once(proxy: Proxy) -> None:
    """A server that has just started gets them one after the other."""
    _driver(proxy).hold(SERVER, LONG, TIMEOUT_S)
    _begin(proxy, 40)
    arrived = proxy.backends["main"].arrived
    arrived.clear()
    began_s = time.monotonic()
    _driver(proxy).let_go(SERVER, TIMEOUT_S)
    assert proxy.answers() == [200] * 40
    places = [proxy.open[number].getsockname()[1] for number in range(40)]
    order = [places.index(client) for _, client in sorted(arrived)]
    # A few milliseconds lie between two of them: those that became due while the machine stood still may be swapped. Of any order half are.
    pairs = list(combinations(order, 2))
    assert sum(first > second for first, second in pairs) < len(pairs) / 5, order
    assert max(arrived)[0] - began_s >= 40 / 250 / 2


def test_a_server_that_does_not_answer_yet_gets_few_at_a_time(proxy: Proxy) -> None:
    """It is cold, or the machine is slow: with all of them at once it would answer nobody, not even its health check."""
    backend = _let_go_without_an_answer(proxy, 60)
    time.sleep(1.0)
    # 12, and 10 more a second: long-polls, which are not answered for long, don't hold up the others.
    assert 15 <= len(backend.arrived) <= 30
    backend.released.set()
    assert proxy.answers() == [200] * 60


def test_who_comes_while_they_are_let_go_goes_behind_them(proxy: Proxy) -> None:
    """Otherwise a server that is still slow is kept busy by them, and who has waited for its whole boot waits on."""
    backend = _let_go_without_an_answer(proxy, 40)
    for _ in range(3):
        proxy.begin_request()
    until(lambda: _pool(proxy).hold.waiting >= 3 and not _pool(proxy).held)
    backend.released.set()
    assert proxy.answers() == [200] * 43
    last = [client for _, client in sorted(backend.arrived)][-10:]
    assert {one.getsockname()[1] for one in proxy.open[40:]} <= set(last)
    seen = _pool(proxy).hold
    assert (seen.waiting, seen.waiting_max, seen.shed, seen.let_go_late) == (0, 40, 0, 0), "they were not held"
    proxy.hang_up()
    proxy.begin_request()
    assert proxy.answers() == [200], "and afterwards nobody waits any more"


def test_nobody_is_let_go_to_a_server_that_is_down_within_the_holds_time(proxy: Proxy) -> None:
    """It fell over again, or the proxy took it for down, under the first of them: the others would be answered 503."""
    _driver(proxy).hold(SERVER, HoldBound(hold_s=4.0, hold_max=100), TIMEOUT_S)
    _begin(proxy, 5)
    ask(proxy.admin, "disable health sync/main")
    ask(proxy.admin, "set server sync/main health down")
    _driver(proxy).let_go(SERVER, TIMEOUT_S)
    time.sleep(0.5)
    assert _waits(proxy, 5)
    ask(proxy.admin, "set server sync/main health up")
    assert proxy.answers() == [200] * 5

    proxy.hang_up()
    began_s = time.monotonic()
    _driver(proxy).hold(SERVER, HoldBound(hold_s=2.0, hold_max=100), TIMEOUT_S)
    _begin(proxy, 2)
    ask(proxy.admin, "set server sync/main health down")
    _driver(proxy).let_go(SERVER, TIMEOUT_S)
    assert proxy.answers() == [503] * 2, "but nobody waits longer than was said"
    assert 1.9 <= time.monotonic() - began_s < 6


def test_who_hangs_up_while_waiting_leaves_nothing_behind_when_the_hold_is_over(proxy: Proxy) -> None:
    """Until then HAProxy doesn't notice, and counts them: who plans a hold has to reckon with those who try again."""
    _driver(proxy).hold(SERVER, LONG, TIMEOUT_S)
    _begin(proxy, 3)
    proxy.hang_up()
    _driver(proxy).let_go(SERVER, TIMEOUT_S)
    until(lambda: _pool(proxy).hold.waiting == 0)
    proxy.begin_request()
    assert proxy.answers() == [200]


def test_who_comes_just_as_a_hold_expires_is_not_counted_for_ever(proxy: Proxy) -> None:
    """Its time is over, it is about to be swept away, and nobody waits: who comes then goes on at once."""
    for _ in range(20):
        _driver(proxy).hold(SERVER, HoldBound(hold_s=0.02, hold_max=100), TIMEOUT_S)
        time.sleep(0.03)
        proxy.begin_request()
    assert set(proxy.answers()) == {200}
    until(lambda: not _pool(proxy).held)
    time.sleep(0.3)
    assert _pool(proxy).hold.waiting == 0


def test_a_reload_forgets_the_hold_and_that_is_seen(proxy: Proxy) -> None:
    """The new process lets everything through: whoever planned on the hold must know."""
    driver = _driver(proxy)
    driver.hold(SERVER, LONG, TIMEOUT_S)
    assert driver.look({MAIN: SERVER}, TIMEOUT_S)[MAIN].held
    proxy.reload()
    until(partial(_is_up, proxy))
    assert not driver.look({MAIN: SERVER}, TIMEOUT_S)[MAIN].held


def test_where_no_hold_is_loaded_it_is_refused_with_its_remedy(tmp_path: Path) -> None:
    with haproxy(tmp_path, ("main",), can_hold=False) as proxy:
        driver = _driver(proxy)
        until(partial(_is_up, proxy))
        assert not _pool(proxy).can_hold
        with pytest.raises(PermanentDriverError, match="lua-load") as refused:
            driver.hold(SERVER, LONG, TIMEOUT_S)
    assert refused.value.where == str(proxy.admin)


def test_of_two_proxies_both_hold_and_what_waits_adds_up(tmp_path: Path) -> None:
    """One that can't hold makes the pool one that can't: half a hold cuts the other half."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    with (
        haproxy(tmp_path / "a", ("main",)) as one,
        haproxy(tmp_path / "b", ("main",)) as other,
        haproxy(tmp_path / "c", ("main",), can_hold=False) as unable,
    ):
        for proxy in (one, other, unable):
            until(partial(_is_up, proxy))
            proxy.backends["main"].released.set()
            proxy.begin_request()
            assert proxy.answers() == [200]
            proxy.open.pop().close()
        both = Haproxy((one.admin, other.admin), None, {"sync"})
        both.hold(SERVER, LONG, TIMEOUT_S)
        _begin(one, 2)
        _begin(other, 1)
        assert both.pools(["sync"], TIMEOUT_S)["sync"].hold.waiting == 3
        both.let_go(SERVER, TIMEOUT_S)
        assert one.answers() + other.answers() == [200] * 3
        _driver(one).hold(SERVER, LONG, TIMEOUT_S)
        half = both.look({MAIN: SERVER}, TIMEOUT_S)[MAIN]
        assert not half.held, "the other sends it requests"
        assert half.holding, "and there is something to let go"
        assert not both.pools(["sync"], TIMEOUT_S)["sync"].held
        both.let_go(SERVER, TIMEOUT_S)
        assert not both.look({MAIN: SERVER}, TIMEOUT_S)[MAIN].holding
        assert not Haproxy((one.admin, unable.admin), None, {"sync"}).pools(["sync"], TIMEOUT_S)["sync"].can_hold
        with pytest.raises(PermanentDriverError):
            Haproxy((one.admin, unable.admin), None, {"sync"}).hold(SERVER, LONG, TIMEOUT_S)
        assert not _pool(one).held, "all are asked before the first is held"


@pytest.mark.parametrize(
    "command", ["rollout-hold", "rollout-hold sync", "rollout-hold sync a b", "rollout-hold nobody 1 1", "rollout-let-go"]
)
def test_the_proxy_refuses_half_a_command(proxy: Proxy, command: str) -> None:
    """Typed by hand, at night."""
    assert ask(proxy.admin, command).strip()
    assert not _pool(proxy).held
