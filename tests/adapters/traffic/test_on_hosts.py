"""Proxies on hosts, over real SSH: what happens when one of them is away, has changed, or lets nobody in."""

import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from rollout.adapters.traffic import haproxy as haproxy_driver
from rollout.adapters.traffic import nginx as nginx_driver
from rollout.adapters.workers import systemd_ssh
from rollout.interfaces.report.advice import by_hand
from rollout.lab.processes import wait_until
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import DriverSettings, Inventory
from rollout.model.plan import HoldBound
from rollout.ports.traffic import Server, Traffic
from tests.contracts.nginx import nginx_binary
from tests.contracts.proxy import haproxy
from tests.hosts import proxies, units
from tests.hosts.bed import USER, Bed, hosts
from tests.hosts.proxies import INCLUDE, MASTER, SOCKET

SYNC1, SYNC2 = WorkerId("sync1"), WorkerId("sync2")
SERVER = Server("sync", "sync1")
SERVERS = {SYNC1: SERVER, SYNC2: Server("sync", "sync2")}
TIMEOUT_S = 20.0
BOUND = HoldBound(hold_s=30.0, hold_max=100)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with hosts(tmp_path_factory.mktemp("beds"), "a", "b") as bed:
        proxies.prepare(bed, "a", "b")
        yield bed


@pytest.fixture
def haproxies(bed: Bed) -> Iterator[haproxy_driver.Haproxies]:
    """A HAProxy on each host."""
    with proxies.haproxies(bed, "a", "b") as front:
        driver = proxies.haproxy_driver(bed, "a", "b")
        _warmed_up(driver)
        front.backends["sync1"].released.set()
        front.backends["sync2"].released.set()
        for _ in range(2):
            front.begin_request()
        assert front.answers() == [200] * 2
        yield driver
        driver.close()


@pytest.fixture
def nginxes(bed: Bed) -> Iterator[nginx_driver.Nginxes]:
    """An nginx on each host."""
    with proxies.nginxes(bed, "a", "b"):
        driver = proxies.nginx_driver(bed, "a", "b")
        _warmed_up(driver)
        yield driver
        driver.close()


def _warmed_up(driver: Traffic) -> None:
    wait_until(lambda: all(seen.up for seen in driver.look(SERVERS, TIMEOUT_S).values()), 10, "both are up")


def _of(driver: haproxy_driver.Haproxies | nginx_driver.Nginxes, bed: Bed, host: str) -> bool:
    """Tell whether one host's own proxy has SYNC1 admitted."""
    kind = proxies.haproxy_driver if isinstance(driver, haproxy_driver.Haproxies) else proxies.nginx_driver
    only = kind(bed, host)
    admitted = only.look(SERVERS, TIMEOUT_S)[SYNC1].admitted
    only.close()
    return admitted


def test_a_look_is_one_round_trip_to_each_host_on_one_connection(bed: Bed, haproxies: haproxy_driver.Haproxies) -> None:
    """However many commands the proxy is asked; and a process manager that reaches the same host has the same connection."""
    haproxies.look(SERVERS, TIMEOUT_S)
    before = {host: (bed.logged(host, "Accepted publickey"), bed.logged(host, "Starting session: command")) for host in ("a", "b")}
    haproxies.look(SERVERS, TIMEOUT_S)
    haproxies.pools(["sync"], TIMEOUT_S)
    units.install(bed, "a", {"worker@.service": units.unit(units.STEADY)})
    settings = {"hosts": proxies.hosts_of(bed, "a", "b"), "unit": units.TEMPLATE}
    workers = systemd_ssh.build(settings, units.inventory({SYNC1: "a"}))
    workers.look([SYNC1], TIMEOUT_S)
    for host, (connections, commands) in before.items():
        assert bed.logged(host, "Accepted publickey") == connections
        assert bed.logged(host, "Starting session: command") == commands + (3 if host == "a" else 2)
    # Who closes theirs takes nobody else's away.
    workers.close()
    haproxies.look(SERVERS, TIMEOUT_S)
    assert bed.logged("a", "Accepted publickey") == before["a"][0]


@pytest.mark.parametrize("kind", ["haproxies", "nginxes"])
def test_a_host_that_is_away_is_named_and_nobody_is_taken_out(bed: Bed, kind: str, request: pytest.FixtureRequest) -> None:
    """One of two doesn't answer: the look says which, a drain is told to neither, and an admission to the one that is there."""
    driver = request.getfixturevalue(kind)
    driver.close()
    with bed.unplugged("b"):
        began_s = time.monotonic()
        with pytest.raises(TransientDriverError, match="the host can't be reached") as away:
            driver.look(SERVERS, 6.0)
        assert away.value.where == units.where(bed, "b")
        with pytest.raises(TransientDriverError, match="the host can't be reached") as away:
            driver.drain(SERVER, 6.0)
        assert away.value.where == units.where(bed, "b")
        assert time.monotonic() - began_s < 15
        assert _of(driver, bed, "a"), "it would be out at one of them"
    wait_until(lambda: _answers(driver), 60, "b is seen again")
    driver.drain(SERVER, TIMEOUT_S)
    assert not driver.look(SERVERS, TIMEOUT_S)[SYNC1].admitted
    with bed.unplugged("a"):
        with pytest.raises(OutcomeUnknownError, match="only 1 of 2 proxies did it") as half:
            driver.admit(SERVER, 100, 12.0)
        assert half.value.where == units.where(bed, "a")
        assert _of(driver, bed, "b"), "it is back where that can be said"
    wait_until(lambda: _answers(driver), 60, "a is seen again")
    assert driver.look(SERVERS, TIMEOUT_S)[SYNC1].admitted, "one of them sends it requests"
    driver.admit(SERVER, 100, TIMEOUT_S)
    assert _of(driver, bed, "a")


def _answers(driver: Traffic) -> bool:
    try:
        driver.look(SERVERS, 6.0)
    except TransientDriverError:
        return False
    return True


def test_a_host_that_goes_in_the_middle_leaves_doubt_and_nothing_is_sent_twice(bed: Bed) -> None:
    """The cable is pulled once its nginx has been told: that it was done is seen when it is there again."""
    with proxies.nginxes(bed, "b"), ThreadPoolExecutor(1) as pool:
        driver = proxies.nginx_driver(bed, "b")
        _warmed_up(driver)
        sent = bed.logged("b", "Starting session: command")
        # It goes on taking its time there meanwhile.
        bed.run("b", "sh", "-c", "kill -STOP $(cat /run/nginx.pid)")
        drain = pool.submit(driver.drain, SERVER, 15.0)
        wait_until(lambda: "down" in bed.run("b", "cat", INCLUDE), 12, "it was told")
        with bed.unplugged("b"), pytest.raises(OutcomeUnknownError) as doubt:
            drain.result(30.0)
        assert doubt.value.what == "whether the proxy was told is not known: no answer in time"
        assert doubt.value.where == units.where(bed, "b")
        bed.run("b", "sh", "-c", "kill -CONT $(cat /run/nginx.pid)")
        assert bed.logged("b", "Starting session: command") == sent + 1
        wait_until(lambda: _answers(driver), 60, "b is seen again")
        assert not driver.look(SERVERS, TIMEOUT_S)[SYNC1].admitted
        driver.close()


def test_a_program_that_does_not_end_in_time_is_in_doubt_by_its_own_word(bed: Bed) -> None:
    with proxies.nginxes(bed, "a"):
        driver = proxies.nginx_driver(bed, "a")
        _warmed_up(driver)
        bed.run("a", "sh", "-c", "kill -STOP $(cat /run/nginx.pid)")
        try:
            with pytest.raises(OutcomeUnknownError, match="did not say whether it has taken the change over"):
                driver.drain(SERVER, 6.0)
            with pytest.raises(TransientDriverError, match="may not have read") as unread:
                driver.look(SERVERS, TIMEOUT_S)
            assert unread.value.where == f"{units.where(bed, 'a')}, {INCLUDE}"
        finally:
            bed.run("a", "sh", "-c", "kill -CONT $(cat /run/nginx.pid)")
        wait_until(lambda: _answers(driver), 60, "it was read")
        assert not driver.look(SERVERS, TIMEOUT_S)[SYNC1].admitted
        driver.close()


def test_a_socket_that_is_not_there_is_named_with_its_host(bed: Bed, haproxies: haproxy_driver.Haproxies) -> None:
    """One of two proxies has ended: neither is told, and nothing is concluded from the other."""
    bed.run("b", "systemctl", "stop", "haproxy")
    for attempt in (lambda: haproxies.look(SERVERS, TIMEOUT_S), lambda: haproxies.drain(SERVER, TIMEOUT_S)):
        with pytest.raises(TransientDriverError, match="the proxy can't be asked") as gone:
            attempt()
        assert gone.value.where == f"{units.where(bed, 'b')}, {SOCKET}"
        assert "there is no such socket" in gone.value.why
    assert _of(haproxies, bed, "a")


def test_a_socket_for_others_says_whom_it_is_for(bed: Bed, haproxies: haproxy_driver.Haproxies) -> None:
    bed.run("b", "chmod", "600", SOCKET)
    only = proxies.haproxy_driver(bed, "b")
    for attempt in (lambda: haproxies.look(SERVERS, TIMEOUT_S), lambda: only.drain(SERVER, TIMEOUT_S)):
        with pytest.raises(PermanentDriverError, match="the proxy's socket may not be used") as refused:
            attempt()
        assert refused.value.where == f"{units.where(bed, 'b')}, {SOCKET}"
        assert refused.value.why == f"it is for root and group haproxy (mode 600), and this is {USER}"
        assert refused.value.remedy.startswith(f"`stats socket {SOCKET} mode 660 level admin group haproxy` in haproxy.cfg")
        assert f"`usermod -aG haproxy {USER}`" in refused.value.remedy
    # So are those of the master: what old processes still have would never be known.
    bed.run("b", "chmod", "660", SOCKET)
    bed.run("b", "chmod", "600", MASTER)
    with pytest.raises(PermanentDriverError, match="the proxy's socket may not be used") as refused:
        only.look(SERVERS, TIMEOUT_S)
    assert refused.value.where == f"{units.where(bed, 'b')}, {MASTER}"
    assert refused.value.remedy.startswith(f"`-S {MASTER},mode,660,group,haproxy` where HAProxy is started")
    only.close()


def test_a_changed_host_key_is_refused(bed: Bed, tmp_path: Path, haproxies: haproxy_driver.Haproxies) -> None:
    """Whoever answers in a proxy's place is told nothing, and nor is the other one."""
    known = tmp_path / "known_hosts"
    known.write_text(f"{bed.addresses['a']} {bed.host_key('a')}\n{bed.addresses['b']} {bed.host_key('a')}\n")
    driver = proxies.haproxy_driver(bed, "a", "b", hosts=proxies.hosts_of(bed, "a", "b", known_hosts=str(known)))
    for attempt in (lambda: driver.look(SERVERS, TIMEOUT_S), lambda: driver.drain(SERVER, TIMEOUT_S)):
        with pytest.raises(PermanentDriverError, match="the host's key has changed") as refused:
            attempt()
        assert refused.value.where == units.where(bed, "b")
    driver.close()
    assert haproxies.look(SERVERS, TIMEOUT_S)[SYNC1].admitted


def test_all_proxies_must_hold_and_one_that_holds_is_enough_to_be_out(bed: Bed, haproxies: haproxy_driver.Haproxies) -> None:
    haproxies.hold(SERVER, BOUND, TIMEOUT_S)
    assert haproxies.look(SERVERS, TIMEOUT_S)[SYNC1].held
    only = proxies.haproxy_driver(bed, "b")
    only.let_go(SERVER, TIMEOUT_S)
    seen = haproxies.look(SERVERS, TIMEOUT_S)[SYNC1]
    assert (seen.held, seen.holding) == (False, True)
    haproxies.let_go(SERVER, TIMEOUT_S)
    assert not haproxies.look(SERVERS, TIMEOUT_S)[SYNC1].holding
    only.close()


def test_acts_are_data_for_an_agent_on_each_host(bed: Bed) -> None:
    """With the paths that they have there, and the host's name."""
    haproxies = proxies.haproxy_driver(bed, "a", "b")
    told = {"kind": "haproxy", "sockets": [SOCKET], "commands": ["set server sync/sync1 state drain"], "timeout_s": 5.0}
    assert haproxies.drain_acts(SERVER, 5.0) == ({**told, "host": "a"}, {**told, "host": "b"})
    nginxes = nginx_driver.build(_nginx_settings(bed, "a", "b"), proxies.inventory())
    act = nginxes.admit_acts(SERVER, 50, 5.0)[1]
    assert (act["kind"], act["include"], act["weight"], act["nginx"][:3], act["host"]) == ("nginx", INCLUDE, 50, ["sudo", "-n", "--"], "b")


def test_a_proxy_here_and_one_on_a_host(bed: Bed, tmp_path: Path) -> None:
    """Local paths still work, also beside others."""
    with haproxy(tmp_path) as here, proxies.haproxies(bed, "a"):
        sockets = [str(here.admin), {"host": "a", "path": SOCKET}]
        driver = proxies.haproxy_driver(bed, "a", sockets=sockets, master_socket=str(here.master))
        _warmed_up(driver)
        driver.drain(SERVER, TIMEOUT_S)
        assert not driver.look(SERVERS, TIMEOUT_S)[SYNC1].admitted
        assert [act.get("host", "") for act in driver.drain_acts(SERVER, 1.0)] == ["", "a"]
        bed.run("a", "systemctl", "stop", "haproxy")
        with pytest.raises(OutcomeUnknownError, match="only 1 of 2 proxies did it"):
            driver.admit(SERVER, 100, TIMEOUT_S)
        driver.close()


def test_what_nginx_will_not_take_is_put_back_on_its_host_and_the_other_is_not_touched(bed: Bed, nginxes: Traffic) -> None:
    """Nothing is reloaded anywhere, and nginx's own words come through."""
    files = {host: bed.run(host, "cat", INCLUDE) for host in ("a", "b")}
    masters = {host: _workers(bed, host) for host in ("a", "b")}
    bed.run("a", "sed", "-i", "s/access_log/access_lgo/", "/etc/nginx/nginx.conf")
    with pytest.raises(PermanentDriverError, match="nothing was reloaded") as refused:
        nginxes.drain(SERVER, TIMEOUT_S)
    assert 'unknown directive "access_lgo"' in refused.value.why
    assert refused.value.where == units.where(bed, "a")
    assert {host: bed.run(host, "cat", INCLUDE) for host in ("a", "b")} == files
    assert {host: _workers(bed, host) for host in ("a", "b")} == masters
    # At the second of two it is half an act, which nobody may call a failure.
    bed.run("a", "sed", "-i", "s/access_lgo/access_log/", "/etc/nginx/nginx.conf")
    bed.run("b", "sed", "-i", "s/access_log/access_lgo/", "/etc/nginx/nginx.conf")
    with pytest.raises(OutcomeUnknownError, match="only 1 of 2 proxies did it") as half:
        nginxes.drain(SERVER, TIMEOUT_S)
    assert 'unknown directive "access_lgo"' in half.value.why
    assert "down" not in bed.run("b", "cat", INCLUDE)


def _workers(bed: Bed, host: str) -> str:
    return bed.run(host, "sh", "-c", "cat /proc/$(cat /run/nginx.pid)/task/*/children")


def test_nginx_that_sudo_does_not_let_us_test_is_not_touched(bed: Bed, nginxes: Traffic) -> None:
    bed.run("b", "rm", "/etc/sudoers.d/rollout")
    only = nginx_driver.build(_nginx_settings(bed, "b"), proxies.inventory())
    for attempt in (lambda: only.look(SERVERS, TIMEOUT_S), lambda: only.drain(SERVER, TIMEOUT_S)):
        with pytest.raises(PermanentDriverError, match="sudo does not let nginx be run as root: `/usr/sbin/nginx -T`") as refused:
            attempt()
        assert refused.value.where == units.where(bed, "b")
        assert "rollout sudoers" in refused.value.remedy
    assert "down" not in bed.run("b", "cat", INCLUDE)
    only.close()
    del nginxes


def _nginx_settings(bed: Bed, *names: str) -> dict[str, object]:
    return {
        "hosts": proxies.hosts_of(bed, *names),
        "include": INCLUDE,
        "nginx": [str(nginx_binary())],
        "proxies": list(names),
        "python": proxies.PYTHON,
    }


def test_an_upgrade_of_the_program_is_noticed_and_waited_for(bed: Bed) -> None:
    """Both masters' workers accept meanwhile, and only one of them is told anything."""
    with proxies.nginxes(bed, "a"):
        driver = proxies.nginx_driver(bed, "a")
        _warmed_up(driver)
        bed.run("a", "sh", "-c", "kill -USR2 $(cat /run/nginx.pid)")
        bed.run("a", "sh", "-c", "until [ -e /run/nginx.pid.oldbin ] && [ -s /run/nginx.pid ]; do sleep 0.05; done; sleep 1")
        for attempt in (lambda: driver.look(SERVERS, TIMEOUT_S), lambda: driver.drain(SERVER, TIMEOUT_S)):
            with pytest.raises(TransientDriverError, match="nginx's program is being upgraded") as refused:
                attempt()
            assert refused.value.where == f"{units.where(bed, 'a')}, /run/nginx.pid.oldbin"
            assert "2 workers that still accept" in refused.value.why
        assert "down" not in bed.run("a", "cat", INCLUDE)
        bed.run("a", "sh", "-c", "kill -QUIT $(cat /run/nginx.pid.oldbin)")
        wait_until(lambda: _answers(driver), 60, "the old one has gone")
        driver.drain(SERVER, TIMEOUT_S)
        assert not driver.look(SERVERS, TIMEOUT_S)[SYNC1].admitted
        driver.close()
        bed.run("a", "sh", "-c", "kill -QUIT $(cat /run/nginx.pid)")


def test_a_host_without_python_is_refused(bed: Bed, haproxies: haproxy_driver.Haproxies) -> None:
    driver = proxies.haproxy_driver(bed, "a", python="/usr/bin/python9")
    for attempt in (lambda: driver.look(SERVERS, TIMEOUT_S), lambda: driver.drain(SERVER, TIMEOUT_S)):
        with pytest.raises(PermanentDriverError, match="/usr/bin/python9 can't be run there") as refused:
            attempt()
        assert refused.value.where == units.where(bed, "a")
    # And one that isn't Python, or ends in the middle, says nothing that could be believed.
    bed.write("a", "/usr/local/bin/half", "#!/bin/sh\necho half; kill -9 $$\n", "755")
    broken = proxies.haproxy_driver(bed, "a", python="/usr/local/bin/half")
    with pytest.raises(TransientDriverError, match="the program there broke off"):
        broken.look(SERVERS, TIMEOUT_S)
    with pytest.raises(OutcomeUnknownError, match="the program there broke off"):
        broken.drain(SERVER, TIMEOUT_S)
    broken.close()
    driver.close()
    assert haproxies.look(SERVERS, TIMEOUT_S)[SYNC1].admitted


def test_what_a_person_types_to_bring_a_worker_back_does_so_on_each_host(bed: Bed, nginxes: Traffic) -> None:
    inventory = _with_traffic({"driver": "nginx", **_nginx_settings(bed, "a", "b")})
    nginxes.drain(SERVER, TIMEOUT_S)
    commands = by_hand(inventory, SYNC1)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["sh", "-c", command], check=True, timeout=TIMEOUT_S)
    wait_until(lambda: _answers(nginxes), 60, "it was read")
    assert nginxes.look(SERVERS, TIMEOUT_S)[SYNC1].admitted


@pytest.mark.parametrize(("page", "blocks"), [("hosts-over-ssh.md", 1), ("nginx.md", 2)])
def test_what_stands_in_the_documentation_is_accepted(page: str, blocks: int) -> None:
    text = (Path(__file__).parents[3] / "docs" / page).read_text()
    found = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "traffic_driver" in block]
    assert len(found) == blocks
    for settings in (entry["traffic_driver"] for entry in found):
        kind = {"haproxy": haproxy_driver.build, "nginx": nginx_driver.build}[settings.pop("driver")]
        kind(settings, proxies.inventory())


def test_what_a_person_types_for_haproxy_on_a_host(bed: Bed) -> None:
    sockets = ["/run/here.sock", {"host": "a", "path": SOCKET}]
    inventory = _with_traffic({"driver": "haproxy", "hosts": {"a": {"address": "p.example.org", "user": USER}}, "sockets": sockets})
    told = "echo 'set server sync/sync1 weight 100%; set server sync/sync1 state ready; rollout-let-go sync'"
    there = f"{told} | socat - UNIX-CONNECT:{SOCKET}".replace("'", "'\"'\"'")
    assert by_hand(inventory, SYNC1) == (f"{told} | socat - UNIX-CONNECT:/run/here.sock", f"ssh {USER}@p.example.org '{there}'")
    del bed


def _with_traffic(settings: dict[str, object]) -> Inventory:
    whole = proxies.inventory(hold=settings["driver"] == "haproxy")
    entry = whole.workers[WorkerId("main")]
    return whole.model_copy(update={"workers": {SYNC1: entry}, "traffic_driver": DriverSettings.model_validate(settings)})
