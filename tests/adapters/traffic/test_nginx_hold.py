"""The hold that lives in nginx: what it bounds by itself, in which order it lets go, and what it says where it can't be had."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest

from rollout.adapters.traffic.nginx import Nginx as Driver
from rollout.agent import nginx_hold
from rollout.agent.fault import TRANSIENT, UNKNOWN, Fault
from rollout.agent.nginx import workers
from rollout.model.errors import PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.plan import HoldBound
from rollout.model.sighting import HoldSighting
from rollout.ports.traffic import Server
from tests.contracts.nginx import Nginx, nginx, say_that_it_is_read
from tests.contracts.proxy import Backend, until

MAIN = WorkerId("main")
SERVER = Server("sync", "main")
TIMEOUT_S = 2.0
LONG = HoldBound(hold_s=30.0, hold_max=100)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Nginx]:
    """One with a server, which has answered one request."""
    with nginx(tmp_path, ("main",), can_hold=True) as found:
        say_that_it_is_read(found.include)
        found.backends["main"].released.set()
        found.begin_request()
        assert found.answers() == [200]
        found.open.pop().close()
        yield found


def _driver(proxy: Nginx) -> Driver:
    return Driver(proxy.include, proxy.command, proxy.pid_file, proxy.page)


def _hold(proxy: Nginx) -> HoldSighting:
    return _driver(proxy).pools(["sync"], TIMEOUT_S)["sync"].hold


def _waits(proxy: Nginx, requests: int) -> bool:
    return _hold(proxy).waiting == requests


def _begin(proxy: Nginx, requests: int) -> None:
    """Begin some that are seen to wait, one after the other."""
    before = _hold(proxy).waiting
    for wanted in range(before + 1, before + requests + 1):
        proxy.begin_request()
        until(partial(_waits, proxy, wanted))


def _let_go_without_an_answer(proxy: Nginx, requests: int) -> Backend:
    """Hold some and let them go to a server that answers nobody yet; return it once the first have arrived."""
    backend = proxy.backends["main"]
    backend.released.clear()
    _driver(proxy).hold(SERVER, LONG, TIMEOUT_S)
    _begin(proxy, requests)
    backend.arrived.clear()
    _driver(proxy).let_go(SERVER, TIMEOUT_S)
    until(lambda: len(backend.arrived) >= 12)
    return backend


def test_what_comes_while_it_is_held_is_answered_when_it_is_let_go(proxy: Nginx) -> None:
    arrived = proxy.backends["main"].arrived
    arrived.clear()
    _driver(proxy).hold(SERVER, LONG, TIMEOUT_S)
    _begin(proxy, 5)
    time.sleep(0.5)
    assert arrived == []
    _driver(proxy).let_go(SERVER, TIMEOUT_S)
    assert proxy.answers() == [200] * 5
    assert _hold(proxy) == HoldSighting(None, 0, 5, 0, 0)
    pool = _driver(proxy).pools(["sync"], TIMEOUT_S)["sync"]
    assert (pool.requests, pool.can_hold) == (6, True)
    assert pool.arrivals_per_s is not None


def test_it_lets_go_by_itself_when_the_time_is_up(proxy: Nginx) -> None:
    """Whoever asked for the hold may be dead: nobody tells it."""
    began_s = time.monotonic()
    _driver(proxy).hold(SERVER, HoldBound(hold_s=3.0, hold_max=100), TIMEOUT_S)
    _begin(proxy, 3)
    assert proxy.answers() == [200] * 3
    assert time.monotonic() - began_s >= 2.9
    assert _hold(proxy) == HoldSighting(None, 0, 3, 0, 3), "and it is told that it was not us who did"
    proxy.hang_up()
    proxy.begin_request()
    assert proxy.answers() == [200], "and nobody waits any more"


def test_beyond_the_most_that_may_wait_others_are_sent_away_with_a_time_to_come_back(proxy: Nginx) -> None:
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
    assert _hold(proxy).shed == 3


def test_who_came_first_goes_on_first_and_not_all_at_once(proxy: Nginx) -> None:
    """A server that has just started gets them one after the other, whichever of nginx's processes has them."""
    _driver(proxy).hold(SERVER, LONG, TIMEOUT_S)
    _begin(proxy, 40)
    arrived = proxy.backends["main"].arrived
    arrived.clear()
    began_s = time.monotonic()
    _driver(proxy).let_go(SERVER, TIMEOUT_S)
    assert proxy.answers() == [200] * 40
    assert len(arrived) == 40
    # nginx asks upstream from a port of its own: who is who is told by a header.
    clients = [one.getsockname()[1] for one in proxy.open]
    order = [clients.index(client) for _, client in sorted(arrived)]
    pairs = list(combinations(order, 2))
    assert sum(first > second for first, second in pairs) < len(pairs) / 5, order
    assert max(arrived)[0] - began_s >= 40 / 250 / 2


def test_a_server_that_does_not_answer_yet_gets_few_at_a_time(proxy: Nginx) -> None:
    """It is cold, or the machine is slow: with all of them at once it would answer nobody."""
    backend = _let_go_without_an_answer(proxy, 60)
    time.sleep(1.0)
    # 12, and 10 more a second: long-polls, which are not answered for long, don't hold up the others.
    assert 15 <= len(backend.arrived) <= 32
    backend.released.set()
    assert proxy.answers() == [200] * 60


def test_who_comes_while_they_are_let_go_goes_behind_them(proxy: Nginx) -> None:
    backend = _let_go_without_an_answer(proxy, 40)
    for _ in range(3):
        proxy.begin_request()
    until(lambda: _hold(proxy).waiting >= 3)
    backend.released.set()
    assert proxy.answers() == [200] * 43
    last = [client for _, client in sorted(backend.arrived)][-10:]
    assert {one.getsockname()[1] for one in proxy.open[40:]} <= set(last)
    assert _hold(proxy) == HoldSighting(None, 0, 40, 0, 0), "they were not held"


def test_a_reload_forgets_nothing(proxy: Nginx) -> None:
    """The new processes hold on, what waits in the old ones goes on with the others, and nobody is cut."""
    _driver(proxy).hold(SERVER, LONG, TIMEOUT_S)
    _begin(proxy, 3)
    before = workers(str(proxy.pid_file))
    _driver(proxy).drain(SERVER, 5.0)
    _driver(proxy).admit(SERVER, 100, 5.0)
    assert not before.keys() & workers(str(proxy.pid_file)).keys()
    assert _driver(proxy).look({MAIN: SERVER}, TIMEOUT_S)[MAIN].held
    _begin(proxy, 2)
    _driver(proxy).let_go(SERVER, TIMEOUT_S)
    assert proxy.answers() == [200] * 5
    assert _hold(proxy) == HoldSighting(None, 0, 5, 0, 0)


def test_a_hold_that_cannot_work_lets_everybody_through(proxy: Nginx) -> None:
    """Whatever is wrong with it: users come first."""
    text = proxy.configuration.read_text()
    proxy.configuration.write_text(text.replace("lua_shared_dict rollout_hold 4m;", ""))
    _driver_without_hold(proxy).drain(SERVER, 5.0)
    _driver_without_hold(proxy).admit(SERVER, 100, 5.0)
    proxy.begin_request()
    assert proxy.answers() == [200]
    assert "rollout's hold of sync: " in (proxy.place / "error.log").read_text()
    with pytest.raises(TransientDriverError, match="the page of nginx's hold answers 500"):
        _hold(proxy)


def _driver_without_hold(proxy: Nginx) -> Driver:
    return Driver(proxy.include, proxy.command, proxy.pid_file)


def test_where_it_stands_elsewhere_or_nothing_passes_it_is_said(proxy: Nginx, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere = proxy.include.rename(tmp_path / "elsewhere/upstreams.conf")
    with pytest.raises(PermanentDriverError, match=r"hold.lua isn't beside the file of upstreams") as moved:
        Driver(elsewhere, proxy.command, proxy.pid_file, proxy.page).pools(["sync"], TIMEOUT_S)
    assert moved.value.remedy == f"move it to {tmp_path}/elsewhere"
    elsewhere.rename(proxy.include)
    with proxy.include.open("a") as file:
        file.write("upstream other {\n    server 127.0.0.1:1 weight=100; # other\n}\n")
    driver = _driver(proxy)
    assert not driver.pools(["other"], TIMEOUT_S)["other"].can_hold
    with pytest.raises(PermanentDriverError, match="nginx can't hold the requests of upstream other"):
        driver.hold(Server("other", "other"), LONG, TIMEOUT_S)
    assert not list(tmp_path.glob(".hold.*"))


def test_a_page_that_goes_once_nginx_was_told_leaves_it_in_doubt(proxy: Nginx, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nginx has read the file by then: to say that nothing happened would be wrong."""
    answers = iter([nginx_hold.see(proxy.page or "", str(proxy.include), TIMEOUT_S)])

    def see(url: str, *_: object) -> dict[str, dict[str, object]]:
        if (answer := next(answers, None)) is None:
            raise Fault(TRANSIENT, "the page of nginx's hold doesn't answer", where=url)
        return answer

    monkeypatch.setattr(nginx_hold, "see", see)
    act = {"kind": "nginx_hold", "include": str(proxy.include), "upstream": "sync", "page": proxy.page, "hold_s": 30.0, "hold_max": 9}
    with pytest.raises(Fault) as doubted:
        nginx_hold.tell({**act, "timeout_s": 0.3})
    assert doubted.value.kind == UNKNOWN
    monkeypatch.undo()
    assert _hold(proxy).held_for_s is not None


def test_without_a_page_it_is_refused_with_its_remedy(proxy: Nginx) -> None:
    driver = _driver_without_hold(proxy)
    assert not driver.pools(["sync"], TIMEOUT_S)["sync"].can_hold
    with pytest.raises(PermanentDriverError, match="can't hold") as refused:
        driver.hold(SERVER, LONG, TIMEOUT_S)
    assert "hold_page" in refused.value.remedy
    with pytest.raises(TransientDriverError, match="the page of nginx's hold doesn't answer"):
        Driver(proxy.include, proxy.command, proxy.pid_file, "http://127.0.0.1:1/").look({MAIN: SERVER}, TIMEOUT_S)
