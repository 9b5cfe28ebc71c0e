"""HAProxy's own: commands as data, reloads, several proxies, and sockets behind which something else sits."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rollout.adapters.traffic.haproxy import Haproxy
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.ports.traffic import Server
from tests.contracts.proxy import haproxy, until

SYNC1 = WorkerId("sync1")
SERVER = Server("sync", "sync1")
SERVERS = {SYNC1: SERVER}
TIMEOUT_S = 1.0
STATES = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight\n"
STATE = "3 sync 1 sync1 127.0.0.1 2 0 100 100\n"
STAT = "# pxname,svname,scur,stot,econ,eresp\n"


def said(state: str, stat: str) -> dict[str, bytes]:
    return {"show servers state": (STATES + state).encode(), "show stat": (STAT + stat).encode()}


@contextmanager
def stand_in(place: Path, answers: dict[str, bytes] | bytes, *, pause_s: float = 0.0) -> Iterator[list[str]]:
    """Answer each command as told, byte by byte if there is a pause; the list holds the commands."""
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()
        server.settimeout(0.1)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    command = connection.recv(65_536).decode()
                    heard.append(command)
                    answer = answers if isinstance(answers, bytes) else answers.get(command.strip(), b"\n")
                    try:
                        for byte in (answer[n : n + 1] for n in range(len(answer))) if pause_s else [answer]:
                            connection.sendall(byte)
                            if ended.wait(pause_s):
                                return
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield heard
        finally:
            ended.set()
            thread.join()


def test_commands_are_exactly_these(tmp_path: Path) -> None:
    with stand_in(tmp_path / "one.sock", b"\n") as heard:
        proxy = Haproxy((tmp_path / "one.sock",), None)
        proxy.drain(SERVER, TIMEOUT_S)
        proxy.admit(SERVER, 50, TIMEOUT_S)
    # The weight first: at no moment does it take more than its share.
    assert heard == ["set server sync/sync1 state drain\n", "set server sync/sync1 weight 50%\n", "set server sync/sync1 state ready\n"]


def test_what_a_reload_forgets_is_seen_and_what_the_old_process_holds_is_counted(tmp_path: Path) -> None:
    with haproxy(tmp_path, ("sync1",)) as proxy:
        driver = Haproxy((proxy.admin,), proxy.master)
        until(lambda: driver.look(SERVERS, TIMEOUT_S)[SYNC1].up)
        proxy.begin_request()
        until(lambda: driver.look(SERVERS, TIMEOUT_S)[SYNC1].sessions == 1)
        driver.drain(SERVER, TIMEOUT_S)

        proxy.reload()

        seen = driver.look(SERVERS, TIMEOUT_S)[SYNC1]
        assert seen.admitted, "the new process was never told of the drain"
        assert seen.sessions == 1, "the old process still has the session"
        # Without the master nobody could know.
        assert Haproxy((proxy.admin,), None).look(SERVERS, TIMEOUT_S)[SYNC1].sessions == 0
        # A master that doesn't answer makes the number unknown, not zero.
        assert Haproxy((proxy.admin,), tmp_path / "nothing.sock").look(SERVERS, TIMEOUT_S)[SYNC1].sessions is None
        proxy.backends["sync1"].released.set()
        until(lambda: driver.look(SERVERS, TIMEOUT_S)[SYNC1].sessions == 0)


def test_a_restarted_server_leaves_cuts_behind(tmp_path: Path) -> None:
    with haproxy(tmp_path, ("sync1",)) as proxy:
        driver = Haproxy((proxy.admin,), proxy.master)
        until(lambda: driver.look(SERVERS, TIMEOUT_S)[SYNC1].up)
        proxy.backends["sync1"].shutdown()
        proxy.backends["sync1"].server_close()
        proxy.begin_request()
        until(lambda: driver.look(SERVERS, TIMEOUT_S)[SYNC1].cuts > 0 or not driver.look(SERVERS, TIMEOUT_S)[SYNC1].up)
        assert not driver.look(SERVERS, TIMEOUT_S)[SYNC1].up


def test_two_proxies_are_joined_and_half_an_act_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with haproxy(tmp_path / "a", ("sync1",)) as one, haproxy(tmp_path / "b", ("sync1", "sync2")) as other:
        driver = Haproxy((one.admin, other.admin), None)
        until(lambda: driver.look(SERVERS, TIMEOUT_S)[SYNC1].up)
        driver.drain(SERVER, TIMEOUT_S)
        Haproxy((other.admin,), None).admit(SERVER, 100, TIMEOUT_S)
        assert driver.look(SERVERS, TIMEOUT_S)[SYNC1].admitted, "one of them still sends it requests"
        # A server that only one of them has is not known: nobody could say what the other does.
        both = {**SERVERS, WorkerId("sync2"): Server("sync", "sync2")}
        assert set(driver.look(both, TIMEOUT_S)) == {SYNC1}
        with pytest.raises(PermanentDriverError):
            driver.drain(Server("sync", "sync2"), TIMEOUT_S)
        with pytest.raises(OutcomeUnknownError, match="only 1 of 2"):
            Haproxy((one.admin, tmp_path / "nothing.sock"), None).drain(SERVER, TIMEOUT_S)


@pytest.mark.parametrize(
    "answers",
    [
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"\x00\xff\xfe" * 1000,
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n<html></html>",
        {
            "show servers state": STATES.encode() + b"3 sync 1 sync1 127.0.0.1 2 zero 100 100\n",
            "show stat": (STAT + "sync,sync1,1,2,0,0\n").encode(),
        },
        said(STATE, "sync,sync1,many,2,0,0\n"),
        {"show servers state": (STATES + STATE).encode(), "show stat": b"Permission denied\n"},
    ],
    ids=["ssh", "bytes", "closed", "http", "state", "stat", "denied"],
)
def test_something_else_behind_the_socket_is_an_error_with_its_place(tmp_path: Path, answers: dict[str, bytes] | bytes) -> None:
    with stand_in(tmp_path / "one.sock", answers), pytest.raises(DriverError) as caught:
        Haproxy((tmp_path / "one.sock",), None).look(SERVERS, TIMEOUT_S)
    assert str(tmp_path / "one.sock") in str(caught.value)


def test_the_stand_in_is_good_enough_to_be_understood(tmp_path: Path) -> None:
    """Or the test above would pass for any reason."""
    with stand_in(tmp_path / "one.sock", said(STATE, "sync,sync1,4,2,0,0\n")):
        seen = Haproxy((tmp_path / "one.sock",), None).look(SERVERS, TIMEOUT_S)[SYNC1]
    assert (seen.admitted, seen.up, seen.weight, seen.sessions) == (True, True, 100, 4)


def test_an_answer_that_drips_ends_in_time(tmp_path: Path) -> None:
    with stand_in(tmp_path / "one.sock", STATES.encode(), pause_s=0.1):
        began_s = time.monotonic()
        with pytest.raises(TransientDriverError):
            Haproxy((tmp_path / "one.sock",), None).look(SERVERS, TIMEOUT_S)
        with pytest.raises(OutcomeUnknownError):
            Haproxy((tmp_path / "one.sock",), None).drain(SERVER, TIMEOUT_S)
        assert time.monotonic() - began_s < 2 * TIMEOUT_S + 1


def test_no_socket_at_all(tmp_path: Path) -> None:
    nowhere = Haproxy((tmp_path / "nothing.sock",), None)
    with pytest.raises(TransientDriverError):
        nowhere.look(SERVERS, TIMEOUT_S)
    with pytest.raises(TransientDriverError):
        nowhere.drain(SERVER, TIMEOUT_S)


def test_an_endless_answer_is_not_read_to_its_end(tmp_path: Path) -> None:
    with stand_in(tmp_path / "one.sock", STATES.encode() + b"x" * 20_000_000), pytest.raises(PermanentDriverError, match="too long"):
        Haproxy((tmp_path / "one.sock",), None).look(SERVERS, 10.0)
