"""supervisord when it isn't as it should be: absent, silent, talking nonsense, or slower than anybody waits."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rollout.adapters.workers.supervisor import Supervisor, build
from rollout.lab.processes import wait_until
from rollout.model.errors import InvalidFileError, OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.simulation.rehearse import set_stage
from tests.contracts.supervisord import FAILING, PLAIN, STUBBORN, began_at_s, supervisord

SYNC1, SLOW, RETRIED, ABSENT, CHATTY = (WorkerId(name) for name in ("sync1", "slow", "retried", "absent", "chatty"))
TIMEOUT_S = 10.0

# More than is fetched, and at the end what XML can't hold and what is no UTF-8.
_CHATTY = """\
import sys
for number in range(5000):
    print("line", number)
print("\\033[31mred\\033[0m")
sys.stdout.flush()
sys.stdout.buffer.write(b"\\377 in latin-1")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A supervisord whose programs are no good."""
    place = tmp_path_factory.mktemp("supervisord")
    settings = {
        SLOW: (*PLAIN, "stopwaitsecs=2"),
        RETRIED: ("autorestart=true", "startsecs=1", "startretries=100"),
        ABSENT: (*PLAIN, f"command={place}/current/absent/venv/bin/python"),
    }
    with supervisord(place, {SLOW: STUBBORN, RETRIED: FAILING, ABSENT: "", CHATTY: _CHATTY}, settings):
        yield place


@pytest.fixture
def workers(place: Path) -> Supervisor:
    """Open the driver."""
    return Supervisor(place / "supervisor.sock")


@contextmanager
def _answering(place: Path, *answers: bytes) -> Iterator[Path]:
    """Somebody else on the socket: one of *answers* to each request in turn, the last one ever after; none at all without any."""
    path = place / "supervisor.sock"
    held: list[socket.socket] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            held.append(connection)
            connection.settimeout(5)
            if answers:
                heard = b""
                while b"</methodCall>" not in heard:
                    heard += connection.recv(65_536)
                connection.sendall(answers[min(len(held), len(answers)) - 1])
                connection.close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for connection in held:
                connection.close()


@pytest.mark.parametrize("stale", [False, True])
def test_without_supervisord_nothing_has_happened(tmp_path: Path, *, stale: bool) -> None:
    """Neither without a socket nor with one that nobody listens on; later it may be there again."""
    path = tmp_path / "supervisor.sock"
    if stale:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    workers = Supervisor(path)
    for attempt in (lambda: workers.look([SYNC1], 1.0), lambda: workers.stop(SYNC1, 1.0), lambda: workers.start(SYNC1, 1.0)):
        with pytest.raises(TransientDriverError) as failed:
            attempt()
        assert failed.value.where == str(path)
    assert workers.last_lines(SYNC1, 5) == ()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"garbage\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n", id="an error"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 7\r\n\r\ngarbage", id="no XML"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 999\r\n\r\n<?xml", id="broken off"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 8\r\n\r\n<a></a>\n", id="other XML"),
    ],
)
def test_after_nonsense_it_may_have_happened(tmp_path: Path, answer: bytes) -> None:
    """A look that fails is repeated; of an act that was sent nobody knows."""
    with _answering(tmp_path, answer) as path:
        workers = Supervisor(path)
        with pytest.raises(TransientDriverError):
            workers.look([SYNC1], 2.0)
        for act in (workers.stop, workers.start):
            with pytest.raises(OutcomeUnknownError):
                act(SYNC1, 2.0)
        assert workers.last_lines(SYNC1, 5) == ()


def test_what_was_done_and_cannot_be_seen_is_in_doubt(tmp_path: Path) -> None:
    """The order is taken, and supervisord is gone before it is asked what became of it: that is not "it did not happen"."""
    body = b"<?xml version='1.0'?><methodResponse><params><param><value><boolean>1</boolean></value></param></params></methodResponse>"
    taken = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    for number, act in enumerate((Supervisor.stop, Supervisor.start)):
        place = tmp_path / str(number)
        place.mkdir()
        with _answering(place, taken, b"") as path, pytest.raises(OutcomeUnknownError) as doubted:
            act(Supervisor(path), SYNC1, 2.0)
        assert doubted.value.where == SYNC1


def test_silence_is_not_waited_for(tmp_path: Path) -> None:
    """Each call ends by itself, soon after its timeout."""
    with _answering(tmp_path) as path:
        workers = Supervisor(path)
        began_s = time.monotonic()
        with pytest.raises(TransientDriverError):
            workers.look([SYNC1], 0.3)
        with pytest.raises(OutcomeUnknownError):
            workers.stop(SYNC1, 0.3)
        with pytest.raises(OutcomeUnknownError):
            workers.start(SYNC1, 0.3)
        assert time.monotonic() - began_s < 5


def test_a_stop_that_takes_longer_than_its_timeout_is_in_doubt(workers: Supervisor, place: Path) -> None:
    """It still runs, also when it is told a second time; when supervisord has killed it at last, it is stopped and that is no error."""
    workers.start(SLOW, TIMEOUT_S)
    began_at_s(place, SLOW)
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError):
            workers.stop(SLOW, 0.3)
        assert workers.look([SLOW], TIMEOUT_S)[SLOW].running
    wait_until(lambda: not workers.look([SLOW], TIMEOUT_S)[SLOW].running, 8, "it was killed")
    workers.stop(SLOW, TIMEOUT_S)


def test_one_that_is_started_again_and_again_does_not_run(workers: Supervisor) -> None:
    """To supervisord it was started already; between two tries there is no process."""
    for _ in range(2):
        with pytest.raises(PermanentDriverError, match="exits as soon as it is started"):
            workers.start(RETRIED, TIMEOUT_S)
    workers.stop(RETRIED, TIMEOUT_S)


def test_a_program_that_is_not_there_is_no_passing_trouble(workers: Supervisor) -> None:
    """A link that leads nowhere: trying again would not help, going back would."""
    with pytest.raises(PermanentDriverError) as failed:
        workers.start(ABSENT, TIMEOUT_S)
    assert failed.value.where == ABSENT


def test_the_last_lines_of_much_are_the_last_ones(workers: Supervisor, place: Path) -> None:
    """Oldest first, however long the log is and whatever bytes it holds: they say why a start failed."""
    with pytest.raises(PermanentDriverError):
        workers.start(CHATTY, TIMEOUT_S)
    assert workers.last_lines(CHATTY, 4) == ("line 4998", "line 4999", "\x1b[31mred\x1b[0m", "\ufffd in latin-1")
    (place / f"{CHATTY}.log").unlink()
    assert workers.last_lines(CHATTY, 4) == ()


def test_settings_are_checked() -> None:
    """A key that is wrong is named, and what it may be."""
    with pytest.raises(InvalidFileError) as refused:
        build({"sockett": "run/supervisor.sock"}, set_stage({SYNC1: ("sync", "sync")}).inventory)
    assert (refused.value.what, refused.value.remedy) == ('unknown key "sockett"', "socket")
