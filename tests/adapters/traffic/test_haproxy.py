"""HAProxy's own: commands as data, reloads, several proxies, and sockets behind which something else sits."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rollout.adapters.traffic.haproxy import Haproxy
from rollout.agent.proxy import Connection, connect, questions
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
STATS = "# pxname,svname,scur,stot,econ,eresp\n"
STAT = "sync,sync1,4,2,0,0\n"
PROCESSES = "#<PID> <type> <reloads>\n11 master 1\n# workers\n13 worker 0\n# old workers\n12 worker 1\n# programs\n"

Answers = dict[str, bytes] | bytes | None


def said(state: str = STATE, stat: str = STAT) -> dict[str, bytes]:
    """Answer a look as HAProxy does: an empty line ends each answer."""
    return {"show servers state": f"{STATES}{state}\n".encode(), "show stat": f"{STATS}{stat}\n".encode()}


@contextmanager
def stand_in(place: Path, answers: Answers, *, pause_s: float = 0.0) -> Iterator[list[str]]:
    """Answer each command as told, with None never, byte by byte if there is a pause; the list holds the commands."""
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()
        server.settimeout(0.02)
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
                    if answers is None:
                        # Until the other side gives up.
                        connection.settimeout(5 * TIMEOUT_S)
                        connection.recv(1)
                        ended.wait(5 * TIMEOUT_S)
                        return
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


def test_a_look_asks_the_same_of_many_servers_as_of_one_and_old_processes_last(tmp_path: Path) -> None:
    """A reload in between then counts a session twice; the other way round it would not be counted at all."""
    states = STATE + STATE.replace("sync1", "sync2")
    master = {"show proc": f"{PROCESSES}\n".encode(), "@!12 show stat": f"{STATS}sync,sync1,3,9,0,0\n\n".encode()}
    both = {**SERVERS, WorkerId("sync2"): Server("sync", "sync2")}
    with (
        stand_in(tmp_path / "one.sock", said(states, STAT + STAT.replace("sync1", "sync2"))) as heard,
        stand_in(tmp_path / "master.sock", master) as master_heard,
    ):
        seen = Haproxy((tmp_path / "one.sock",), tmp_path / "master.sock").look(both, TIMEOUT_S)
    assert heard == ["show servers state\n", "show stat\n"]
    assert master_heard == ["show proc\n", "@!12 show stat\n"]
    assert {worker: one.sessions for worker, one in seen.items()} == {"sync1": 7, "sync2": 4}


@pytest.mark.parametrize("can_hold", [True, False])
def test_what_is_asked_together_is_answered_as_it_is_one_by_one(tmp_path: Path, can_hold: bool) -> None:  # noqa: FBT001
    """As a place is asked to which each connection takes its time; HAProxy doesn't know one of the commands where hold.lua isn't loaded."""
    commands = ["show servers state", "show info", "rollout-holds"]
    with haproxy(tmp_path, can_hold=can_hold) as proxy:
        place = str(proxy.admin)
        dialled: list[str] = []

        def dial(where: str, end_s: float) -> Connection:
            dialled.append(where)
            return connect(where, end_s)

        order = {"sockets": {place: commands}, "masters": [], "timeout_s": 5.0}
        (together,) = questions({**order, "together": True}, dial)["sockets"].values()
        assert len(dialled) == 1 if can_hold else dialled
        (apart,) = questions(order)["sockets"].values()
    assert [text.splitlines()[:2] for text in together[:1]] == [text.splitlines()[:2] for text in apart[:1]]
    assert [text.splitlines()[0] for text in together] == [text.splitlines()[0] for text in apart]
    assert all(text.endswith("\n\n") for text in together)


@pytest.mark.parametrize("cut", ["", "# be_id\n", "# be_id\n\n", "# be_id\n\n# pxname\n"])
def test_half_of_what_was_asked_together_is_asked_again(tmp_path: Path, cut: str) -> None:
    """One by one then, so that it is seen which answer didn't come."""
    apart = {"show servers state": b"# be_id\n\n", "show stat": b"# pxname\n\n", "show servers state;show stat": cut.encode()}
    with stand_in(tmp_path / "one.sock", apart) as heard:
        place = str(tmp_path / "one.sock")
        order = {"sockets": {place: ["show servers state", "show stat"]}, "masters": [], "timeout_s": TIMEOUT_S, "together": True}
        assert questions(order)["sockets"] == {place: ["# be_id\n\n", "# pxname\n\n"]}
    assert heard == ["show servers state;show stat\n", "show servers state\n", "show stat\n"]


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
        # Repeated, the drain holds in the new process too, and the session still lives.
        driver.drain(SERVER, TIMEOUT_S)
        seen = driver.look(SERVERS, TIMEOUT_S)[SYNC1]
        assert (seen.admitted, seen.sessions) == (False, 1)
        proxy.backends["sync1"].released.set()
        assert proxy.answers() == [200]
        until(lambda: driver.look(SERVERS, TIMEOUT_S)[SYNC1].sessions == 0)


@pytest.mark.parametrize("master", [b"", b"SSH-2.0\r\n", f"{PROCESSES}\n".encode(), PROCESSES.partition("12")[0].encode()])
def test_old_processes_that_cannot_be_asked_make_sessions_unknown(tmp_path: Path, master: bytes) -> None:
    """Closed, garbage, a list of processes with no statistics to it, and half a list: never zero."""
    answers = {"show proc": master, "@!12 show stat": b"Can't find the target PID matching the prefix '@!12'\n"}
    with stand_in(tmp_path / "one.sock", said()), stand_in(tmp_path / "master.sock", answers):
        seen = Haproxy((tmp_path / "one.sock",), tmp_path / "master.sock").look(SERVERS, TIMEOUT_S)[SYNC1]
    assert (seen.admitted, seen.sessions) == (True, None)


def test_a_worker_that_dies_under_a_request_leaves_cuts_behind(tmp_path: Path) -> None:
    with haproxy(tmp_path, ("sync1",)) as proxy:
        driver = Haproxy((proxy.admin,), proxy.master)
        until(lambda: driver.look(SERVERS, TIMEOUT_S)[SYNC1].up)
        proxy.begin_request()
        until(lambda: driver.look(SERVERS, TIMEOUT_S)[SYNC1].sessions == 1)
        assert driver.look(SERVERS, TIMEOUT_S)[SYNC1].cuts == 0
        proxy.backends["sync1"].dying.set()
        proxy.backends["sync1"].released.set()
        assert proxy.answers() == [502]
        # HAProxy 2.8 counts an answer that never began twice among the response errors.
        until(lambda: bool(driver.look(SERVERS, TIMEOUT_S)[SYNC1].cuts))


def test_a_worker_that_is_gone_is_not_up(tmp_path: Path) -> None:
    with haproxy(tmp_path, ("sync1",)) as proxy:
        driver = Haproxy((proxy.admin,), None)
        until(lambda: driver.look(SERVERS, TIMEOUT_S)[SYNC1].up)
        proxy.backends["sync1"].shutdown()
        proxy.backends["sync1"].server_close()
        until(lambda: not driver.look(SERVERS, TIMEOUT_S)[SYNC1].up)
        assert driver.look(SERVERS, TIMEOUT_S)[SYNC1].admitted, "nobody drained it"


def test_two_proxies_are_joined_and_half_an_act_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with haproxy(tmp_path / "a", ("sync1",)) as one, haproxy(tmp_path / "b", ("sync1", "sync2")) as other:
        driver = Haproxy((one.admin, other.admin), one.master)
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


def test_sessions_of_two_proxies_add_up_and_those_of_old_processes_are_counted_once(tmp_path: Path) -> None:
    master = {"show proc": f"{PROCESSES}\n".encode(), "@!12 show stat": f"{STATS}sync,sync1,3,9,0,0\n\n".encode()}
    places = (tmp_path / "one.sock", tmp_path / "other.sock")
    with stand_in(places[0], said()), stand_in(places[1], said()), stand_in(tmp_path / "master.sock", master):
        assert Haproxy(places, tmp_path / "master.sock").look(SERVERS, TIMEOUT_S)[SYNC1].sessions == 4 + 4 + 3


@pytest.mark.parametrize(
    "answers",
    [
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"\x00\xff\xfe" * 1000,
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n<html></html>",
        said(state="3 sync 1 sync1 127.0.0.1 2 zero 100 100\n"),
        said(stat="sync,sync1,many,2,0,0\n"),
        said() | {"show stat": b"Permission denied\n\n"},
        said() | {"show servers state": STATES.encode()},
        said() | {"show stat": STATS.encode()},
    ],
    ids=["ssh", "bytes", "closed", "http", "state", "stat", "denied", "half the states", "half the stats"],
)
def test_something_else_behind_the_socket_is_an_error_with_its_place(tmp_path: Path, answers: Answers) -> None:
    with stand_in(tmp_path / "one.sock", answers), pytest.raises(DriverError) as caught:
        Haproxy((tmp_path / "one.sock",), None).look(SERVERS, TIMEOUT_S)
    assert str(tmp_path / "one.sock") in str(caught.value)


def test_the_stand_in_is_good_enough_to_be_understood(tmp_path: Path) -> None:
    """Or the tests around this one would pass for any reason."""
    with stand_in(tmp_path / "one.sock", said()):
        seen = Haproxy((tmp_path / "one.sock",), None).look(SERVERS, TIMEOUT_S)[SYNC1]
    assert (seen.admitted, seen.up, seen.weight, seen.sessions) == (True, True, 100, 4)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2p1\r\n", b"No such server.\n\n", b"Permission denied\n\n"])
def test_any_text_refuses_a_command(tmp_path: Path, answer: bytes) -> None:
    with stand_in(tmp_path / "one.sock", answer), pytest.raises(PermanentDriverError, match="refused"):
        Haproxy((tmp_path / "one.sock",), None).drain(SERVER, TIMEOUT_S)


def test_a_proxy_that_hangs_up_without_a_word_may_or_may_not_have_done_it(tmp_path: Path) -> None:
    with stand_in(tmp_path / "one.sock", b""):
        driver = Haproxy((tmp_path / "one.sock",), None)
        with pytest.raises(OutcomeUnknownError):
            driver.drain(SERVER, TIMEOUT_S)
        with pytest.raises(OutcomeUnknownError):
            driver.admit(SERVER, 100, TIMEOUT_S)


def test_a_proxy_that_dies_over_a_command_may_or_may_not_have_done_it(tmp_path: Path) -> None:
    """What it did not read resets the connection."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "one.sock"))
        server.listen()

        def die() -> None:
            connection, _ = server.accept()
            connection.recv(1)
            connection.close()

        thread = threading.Thread(target=die)
        thread.start()
        with pytest.raises(OutcomeUnknownError):
            Haproxy((tmp_path / "one.sock",), None).drain(SERVER, TIMEOUT_S)
        thread.join()


@pytest.mark.parametrize("answers", [None, said()], ids=["nothing", "drips"])
def test_an_answer_that_does_not_come_is_not_waited_for_any_longer(tmp_path: Path, answers: Answers) -> None:
    """The time is that of the whole call, whatever it has to ask for: this one drips as fast as is just too slow for two answers."""
    with stand_in(tmp_path / "one.sock", answers, pause_s=0.9 * TIMEOUT_S / len(said()["show servers state"])):
        began_s = time.monotonic()
        with pytest.raises(TransientDriverError):
            Haproxy((tmp_path / "one.sock",), None).look(SERVERS, TIMEOUT_S)
        assert TIMEOUT_S <= time.monotonic() - began_s < TIMEOUT_S + 3


def test_a_command_that_is_not_answered_may_or_may_not_have_been_done(tmp_path: Path) -> None:
    driver = Haproxy((tmp_path / "one.sock",), None)
    with stand_in(tmp_path / "one.sock", None):
        began_s = time.monotonic()
        with pytest.raises(OutcomeUnknownError):
            driver.drain(SERVER, TIMEOUT_S)
        with pytest.raises(OutcomeUnknownError):
            driver.admit(SERVER, 100, TIMEOUT_S)
        assert time.monotonic() - began_s < 2 * TIMEOUT_S + 3


@pytest.mark.parametrize("place", ["nothing.sock", "no/such/directory.sock", "a-file", "x" * 200], ids=["none", "nowhere", "file", "long"])
def test_no_socket_at_all(tmp_path: Path, place: str) -> None:
    (tmp_path / "a-file").touch()
    nowhere = Haproxy((tmp_path / place,), None)
    with pytest.raises(TransientDriverError):
        nowhere.look(SERVERS, TIMEOUT_S)
    with pytest.raises(TransientDriverError):
        nowhere.drain(SERVER, TIMEOUT_S)


def test_an_endless_answer_is_not_read_to_its_end(tmp_path: Path) -> None:
    with stand_in(tmp_path / "one.sock", STATES.encode() + b"x" * 20_000_000), pytest.raises(PermanentDriverError, match="too long"):
        Haproxy((tmp_path / "one.sock",), None).look(SERVERS, 10.0)
