"""What is particular to nginx: nothing is true until it has reloaded, and what it won't take is never left behind."""

import errno
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.adapters.traffic.nginx import Nginx
from rollout.agent import nginx as agent
from rollout.agent import nginx_state
from rollout.agent.fault import Fault
from rollout.agent.nginx_state import open_connections
from rollout.interfaces.report.advice import by_hand
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import DriverSettings
from rollout.model.plan import HoldBound
from rollout.model.sighting import ProxySighting
from rollout.ports.traffic import Server
from rollout.simulation.rehearse import set_stage
from tests.contracts.nginx import Nginx as Proxy
from tests.contracts.nginx import nginx, say_that_it_is_read
from tests.contracts.proxy import until

SYNC1, SYNC2 = WorkerId("sync1"), WorkerId("sync2")
SERVERS = {SYNC1: Server("sync", "sync1"), SYNC2: Server("sync", "sync2")}
TIMEOUT_S = 5.0


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with nginx(tmp_path) as found:
        say_that_it_is_read(found.include)
        yield found


def _driver(proxy: Proxy) -> Nginx:
    return Nginx(proxy.include, proxy.command, proxy.pid_file)


def _is_read(proxy: Proxy) -> bool:
    return agent.is_read(proxy.include, proxy.include.read_text(), agent.workers(str(proxy.pid_file)))


def _look(proxy: Proxy) -> dict[WorkerId, ProxySighting]:
    return _driver(proxy).look(SERVERS, TIMEOUT_S)


def test_only_weight_and_down_are_changed_and_the_text_before_is_kept(proxy: Proxy) -> None:
    before = f"# Ours.\n\n{proxy.include.read_text()}\n  # the end"
    proxy.include.write_text(before)
    say_that_it_is_read(proxy.include)
    _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)
    assert proxy.include.read_text() == before.replace(" weight=100; # sync1", " weight=100 down; # sync1")
    assert agent.beside(proxy.include, agent.BEFORE).read_text() == before
    _driver(proxy).admit(SERVERS[SYNC1], 25, TIMEOUT_S)
    assert proxy.include.read_text() == before.replace(" weight=100; # sync1", " weight=25; # sync1")
    _driver(proxy).admit(SERVERS[SYNC1], 100, TIMEOUT_S)
    assert proxy.include.read_text() == before


def test_what_a_person_types_to_bring_a_worker_back_does_so(proxy: Proxy) -> None:
    """It is printed where a rollout has left somebody out, and nothing of ours is needed for it."""
    settings = {"driver": "nginx", "include": str(proxy.include), "nginx": list(proxy.command), "pid_file": str(proxy.pid_file)}
    inventory = set_stage(dict.fromkeys(SERVERS, ("sync", "sync"))).inventory
    inventory = inventory.model_copy(update={"traffic_driver": DriverSettings.model_validate(settings)})
    (command,) = by_hand(inventory, SYNC1)
    before = proxy.include.read_text()
    _driver(proxy).admit(SERVERS[SYNC2], 50, TIMEOUT_S)
    _driver(proxy).admit(SERVERS[SYNC1], 50, TIMEOUT_S)
    _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)
    subprocess.run(["sh", "-c", command], check=True, timeout=TIMEOUT_S)
    assert proxy.include.read_text() == before.replace(" weight=100; # sync2", " weight=50; # sync2")
    until(lambda: _is_read(proxy))
    assert (_look(proxy)[SYNC1].admitted, _look(proxy)[SYNC1].weight) == (True, 100)


def test_other_parameters_of_a_server_stay() -> None:
    text = "upstream a {\n  least_conn;\n\tserver 10.0.0.1:80 max_fails=0 weight=100 fail_timeout=5s;  # one\n}\n"
    down = agent.with_server(text, "file", "a", "one", None)
    assert down == text.replace("max_fails=0 weight=100 fail_timeout=5s", "weight=100 max_fails=0 fail_timeout=5s down")
    assert agent.with_server(down, "file", "a", "one", 7) == text.replace("max_fails=0 weight=100", "weight=7 max_fails=0")


def test_what_nginx_will_not_take_is_put_back_and_nothing_is_reloaded(proxy: Proxy) -> None:
    """Somebody has broken another part of the configuration; whoever drains learns of it in nginx's own words."""
    workers, text = agent.workers(str(proxy.pid_file)), proxy.include.read_text()
    configuration = proxy.configuration.read_text()
    proxy.configuration.write_text(configuration.replace("access_log off;", "access_lgo off;"))
    with pytest.raises(PermanentDriverError, match="nothing was reloaded") as refused:
        _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)
    assert 'unknown directive "access_lgo"' in refused.value.why
    assert proxy.include.read_text() == text
    assert agent.workers(str(proxy.pid_file)).keys() == workers.keys()

    proxy.configuration.write_text(configuration)
    _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)
    assert [_look(proxy)[worker].admitted for worker in (SYNC1, SYNC2)] == [False, True]


def test_what_was_written_and_not_yet_read_is_not_believed(proxy: Proxy) -> None:
    """A tool that dies between the two leaves a file that says what isn't so. The next act has nginx read it."""
    _driver(proxy).admit(SERVERS[SYNC2], 50, TIMEOUT_S)
    proxy.include.write_text(agent.with_server(proxy.include.read_text(), "file", "sync", "sync1", None))
    with pytest.raises(TransientDriverError, match="may not have read its file"):
        _look(proxy)
    workers = agent.workers(str(proxy.pid_file))
    _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)
    assert not _look(proxy)[SYNC1].admitted
    assert not agent.workers(str(proxy.pid_file)).keys() & workers.keys()


def test_a_file_that_is_younger_than_nginx_is_not_believed(tmp_path: Path) -> None:
    """Before our first act nothing but the two ages tells."""
    with nginx(tmp_path) as proxy:
        with pytest.raises(TransientDriverError, match="may not have read its file") as unknown:
            _look(proxy)
        time.sleep(agent.SURELY_S + 0.3)
        subprocess.run(["sh", "-c", unknown.value.remedy], check=True, timeout=TIMEOUT_S)
        until(lambda: _is_read(proxy))
        assert _look(proxy)[SYNC1].admitted


def test_a_file_that_nginx_does_not_include_is_refused(proxy: Proxy) -> None:
    """A drain would be done, and traffic go on. Nothing is reloaded, and what was written is taken back."""
    text, workers = proxy.include.read_text(), agent.workers(str(proxy.pid_file)).keys()
    elsewhere = proxy.place / "elsewhere.conf"
    elsewhere.write_text(text)
    configuration = proxy.configuration.read_text()
    proxy.configuration.write_text(configuration.replace(f"include {proxy.include}", f"include {elsewhere}"))
    for does in (lambda: _look(proxy), lambda: _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)):
        with pytest.raises(PermanentDriverError, match="nginx does not include this file") as refused:
            does()
        assert refused.value.where == str(proxy.include)
        assert refused.value.remedy == f"`include {proxy.include};` in http {{ … }} of nginx.conf"
    assert proxy.include.read_text() == text
    assert agent.workers(str(proxy.pid_file)).keys() == workers
    # However it is included.
    proxy.configuration.write_text(configuration.replace(f"include {proxy.include}", "include upstr*.conf"))
    assert _look(proxy)[SYNC1].admitted
    _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)
    assert not _look(proxy)[SYNC1].admitted


def test_an_upstream_that_nothing_leads_to_is_refused(proxy: Proxy) -> None:
    """Its requests go past it, to an address that is written down elsewhere."""
    port = proxy.backends["sync1"].server_port
    configuration = proxy.configuration.read_text()
    proxy.configuration.write_text(configuration.replace("proxy_pass http://sync;", f"proxy_pass http://127.0.0.1:{port}; # not sync\n"))
    for does in (lambda: _look(proxy), lambda: _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)):
        with pytest.raises(PermanentDriverError, match="nginx leads nobody to upstream sync") as refused:
            does()
        assert refused.value.remedy == "`proxy_pass http://sync;` where its requests come in"
    assert "down" not in proxy.include.read_text()


def test_what_nginx_includes_is_asked_once_for_each_generation(proxy: Proxy) -> None:
    """A look every second must not have it read all of its configuration each time."""
    driver = _driver(proxy)
    driver.look(SERVERS, TIMEOUT_S)
    configuration = proxy.configuration.read_text()
    proxy.configuration.write_text(configuration.replace("access_log off;", "access_lgo off;"))
    assert driver.look(SERVERS, TIMEOUT_S)[SYNC1].admitted
    with pytest.raises(PermanentDriverError, match="would not take its configuration as it stands"):
        _look(proxy)
    proxy.configuration.write_text(configuration)


def test_repeating_an_act_reloads_nothing(proxy: Proxy) -> None:
    _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)
    workers = agent.workers(str(proxy.pid_file)).keys()
    _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)
    assert agent.workers(str(proxy.pid_file)).keys() == workers


def test_what_old_workers_still_carry_is_counted_after_several_reloads(proxy: Proxy) -> None:
    for _ in range(4):
        proxy.begin_request()
    until(lambda: sum(_look(proxy)[worker].sessions or 0 for worker in SERVERS) == 4)
    before = _look(proxy)[SYNC1].sessions
    assert before
    _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)
    for weight in (10, 50, 100):
        _driver(proxy).admit(SERVERS[SYNC2], weight, TIMEOUT_S)
    assert _look(proxy)[SYNC1].sessions == before
    proxy.backends["sync1"].released.set()
    until(lambda: _look(proxy)[SYNC1].sessions == 0)
    proxy.backends["sync2"].released.set()
    assert proxy.answers() == [200] * 4


def test_two_who_change_different_servers_at_once_both_do(proxy: Proxy) -> None:
    threads = [threading.Thread(target=_driver(proxy).admit, args=(SERVERS[worker], 40, 20.0)) for worker in SERVERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert {worker: seen.weight for worker, seen in _look(proxy).items()} == {SYNC1: 40, SYNC2: 40}


def test_a_reload_that_nobody_sees_is_in_doubt(proxy: Proxy) -> None:
    master = int(proxy.pid_file.read_text())
    os.kill(master, signal.SIGSTOP)
    try:
        with pytest.raises(OutcomeUnknownError, match="did not say whether it has taken the change over"):
            _driver(proxy).drain(SERVERS[SYNC1], 1.0)
        with pytest.raises(TransientDriverError, match="may not have read"):
            _look(proxy)
    finally:
        os.kill(master, signal.SIGCONT)
    # It comes late, and is seen without being asked for again.
    until(lambda: _is_read(proxy))
    assert not _look(proxy)[SYNC1].admitted


def test_what_came_late_is_not_taken_for_what_was_there_before(proxy: Proxy) -> None:
    """The file is as it was before the drain, which came late; nginx is not. Neither a look nor an act may say that all is well."""
    before = proxy.include.read_text()
    master = int(proxy.pid_file.read_text())
    os.kill(master, signal.SIGSTOP)
    with pytest.raises(OutcomeUnknownError):
        _driver(proxy).drain(SERVERS[SYNC1], 1.0)
    os.kill(master, signal.SIGCONT)
    until(lambda: _is_read(proxy))
    os.kill(master, signal.SIGSTOP)
    try:
        with pytest.raises(OutcomeUnknownError):
            _driver(proxy).admit(SERVERS[SYNC1], 100, 1.0)
        assert proxy.include.read_text() == before
        with pytest.raises(TransientDriverError, match="may not have read"):
            _look(proxy)
        with pytest.raises(OutcomeUnknownError):
            _driver(proxy).admit(SERVERS[SYNC1], 100, 1.0)
    finally:
        os.kill(master, signal.SIGCONT)
    until(lambda: _is_read(proxy))
    assert _look(proxy)[SYNC1].admitted


def test_an_nginx_that_is_gone_is_told(tmp_path: Path) -> None:
    with nginx(tmp_path) as proxy:
        pass
    for does in (lambda: _look(proxy), lambda: _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)):
        with pytest.raises(TransientDriverError, match="nginx doesn't run"):
            does()
    assert "down" not in proxy.include.read_text()


def test_what_can_not_be_seen_is_not_said_to_be_gone(proxy: Proxy) -> None:
    pid = proxy.pid_file.read_text()
    proxy.pid_file.write_text("somebody")
    for does in (lambda: _look(proxy), lambda: _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S), lambda: _driver(proxy).limits(TIMEOUT_S)):
        with pytest.raises(TransientDriverError, match="whether nginx runs can't be seen"):
            does()
    proxy.pid_file.write_text(pid)
    assert _look(proxy)[SYNC1].admitted


@pytest.mark.parametrize("written", [0, 1, 2, 3])
def test_a_full_disk_leaves_everything_as_it_was(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """Whichever of the files it was that could not be written: the drain did not happen, and nobody is blind because of it."""
    before, left = proxy.include.read_text(), [written]
    genuine = os.fsync

    def sync(handle: int) -> None:
        # Room for so many, and for one more that was there before.
        left[0] -= 1
        if left[0] == -1:
            raise OSError(errno.ENOSPC, "No space left on device")
        genuine(handle)

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(PermanentDriverError, match="can't be written"):
        _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)
    assert proxy.include.read_text() == before
    assert _look(proxy)[SYNC1].admitted
    _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)
    assert not _look(proxy)[SYNC1].admitted


def test_a_change_that_can_not_be_taken_back_is_in_doubt(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken over whenever somebody reloads."""
    proxy.configuration.write_text(proxy.configuration.read_text().replace("access_log off;", "access_lgo off;"))
    genuine, left = os.fsync, [4]

    def sync(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        genuine(handle)

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OutcomeUnknownError, match="it can't be taken back"):
        _driver(proxy).drain(SERVERS[SYNC1], TIMEOUT_S)
    with pytest.raises(TransientDriverError, match="may not have read"):
        _look(proxy)


def test_main_can_not_be_held_and_is_let_through_already(proxy: Proxy) -> None:
    with pytest.raises(PermanentDriverError, match="can't hold the requests of upstream sync") as refused:
        _driver(proxy).hold(SERVERS[SYNC1], HoldBound(hold_s=5.0, hold_max=10), TIMEOUT_S)
    assert "what a restart cuts" in refused.value.remedy
    _driver(proxy).let_go(SERVERS[SYNC1], TIMEOUT_S)
    assert not _driver(proxy).pools(["sync"], TIMEOUT_S)["sync"].can_hold


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("upstream a {\n  server one weight=100; server two;\n}\n", "line 2: this server can't be read"),
        ("server one weight=100;\n", "line 1: this server can't be read"),
        ("upstream a {\n  server one; # x\n  server two; # x\n}\n", "upstream a has x twice"),
        ("upstream a {\n  server one weight=1O0;\n}\n", "line 2: this weight is no number"),
    ],
)
def test_a_file_that_makes_no_sense_is_named_by_its_line(text: str, what: str) -> None:
    with pytest.raises(Fault, match=what):
        agent.servers(text, "file")


def test_a_server_without_a_weight_is_refused(proxy: Proxy) -> None:
    proxy.include.write_text(proxy.include.read_text().replace(" weight=100; # sync2", "; # sync2"))
    say_that_it_is_read(proxy.include)
    with pytest.raises(PermanentDriverError, match="sync2 has no weight"):
        _look(proxy)


def test_a_server_by_its_address_alone() -> None:
    assert set(agent.servers("upstream a {\n    server 10.0.0.1:8081 weight=100;\n}\n", "file")) == {("a", "10.0.0.1:8081")}


@pytest.mark.parametrize(
    ("method", "said"), [("least_conn;", "leastconn"), ("hash $http_authorization consistent;", "hash"), ("", "roundrobin")]
)
def test_how_an_upstream_chooses_is_told(proxy: Proxy, method: str, said: str) -> None:
    proxy.include.write_text(proxy.include.read_text().replace("upstream sync {\n", f"upstream sync {{\n    {method}\n"))
    assert _driver(proxy).pools(["sync", "elsewhere"], TIMEOUT_S)["sync"].algorithm == said


def test_connections_are_counted_by_where_they_lead_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both families, and an address of the one that is written in the other."""
    tables = {
        "tcp": "header\n 0: 0100007F:1F90 0100007F:1F91 01 0 0\n 1: 0100007F:1F91 0100007F:1F90 01 0 0\n 2: 0 0100007F:1F90 06 0 0\n",
        "tcp6": "header\n 0: 0 00000000000000000000000001000000:1F90 01 0 0\n 1: 0 0000000000000000FFFF00000100007F:1F90 01 0 0\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda self: tables[self.name])
    assert open_connections() == Counter({("127.0.0.1", 8081): 1, ("127.0.0.1", 8080): 2, ("::1", 8080): 1})


@pytest.mark.parametrize("address", ["unix:/run/sync1.sock", f"{socket.gethostname()}:8083", "0.0.0.0:8083"])
def test_a_server_whose_connections_can_not_be_counted_is_refused(proxy: Proxy, address: str) -> None:
    """None seen would be taken for none there, and requests be cut."""
    text = proxy.include.read_text()
    line = next(line for line in text.splitlines() if line.endswith("# sync1"))
    proxy.include.write_text(text.replace(line, f"    server {address} weight=100; # sync1"))
    say_that_it_is_read(proxy.include)
    with pytest.raises(PermanentDriverError, match=f"what {re.escape(address)} still has can't be counted"):
        _look(proxy)


@pytest.mark.parametrize(("missing", "is_told"), [("tcp", True), ("tcp6", False)])
def test_connections_that_cannot_be_seen_are_not_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, *, is_told: bool
) -> None:
    """None at all would be a drain that is done. Only IPv6 may be switched off."""
    for name in {"tcp", "tcp6"} - {missing}:
        (tmp_path / name).write_text("  sl  local_address rem_address   st\n")
    monkeypatch.setattr(nginx_state, "Path", lambda _, name: tmp_path / name)
    if is_told:
        with pytest.raises(Fault, match="the machine's connections can't be seen"):
            open_connections()
    else:
        assert open_connections() == Counter()
