"""
What is said when something that has to be looked at isn't what it should be.

Proxy, metrics pages and database are real ones, or real sockets with something else behind; everything else is a simulated homeserver that
is well. Printed are `rollout status`, which looks nevertheless, and `rollout plan`, which refuses. What could not be seen is never called
well.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.traffic.test_haproxy import STATES, Answers, stand_in
from tests.contracts.database import PASSWORD, Server, postgresql
from tests.contracts.proxy import ask as ask_proxy
from tests.contracts.proxy import haproxy, until
from tests.contracts.server import Handler, Says, serving
from tests.contracts.test_metrics import PAGE as THEIR_PAGE
from tests.golden.messages.golden import HERE, matches
from tests.interfaces.homeserver import RUNNING_S, Homeserver, homeserver

REFUSED = 5
# Long enough for an honest answer on a busy machine.
TIMEOUT_S = 3.0
OTHERS_SECRET = "hunter2"
# A good one, of the release that the simulated homeserver runs.
PAGE = THEIR_PAGE.replace(b"1.163.2", b"1.0.0") + b"process_open_fds 10\nprocess_max_fds 1000\n"

Inventory = dict[str, Any]
Proxies = Callable[[Path], AbstractContextManager[object]]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Homeserver:
    """Two client workers that are well."""
    monkeypatch.setattr("rollout.engine.survey.LOOK_TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr("rollout.engine.survey.MEASURE_TIMEOUT_S", TIMEOUT_S)
    return homeserver(tmp_path, monkeypatch)


def change(site: Homeserver, edit: Callable[[Inventory], object]) -> None:
    inventory = json.loads(site.inventory.read_text())
    edit(inventory)
    site.inventory.write_text(json.dumps(inventory))


def printed(site: Homeserver) -> str:
    """Return what both commands say; whatever is wrong, it takes no longer than each source's own time, and is no bug of ours."""
    began_s = time.monotonic()
    status, plan = site.run("status"), site.run("plan", "--to", "2.0.0")
    assert time.monotonic() - began_s < 2 * 6 * TIMEOUT_S
    assert (status.exit_code, plan.exit_code) == (0, REFUSED), status.output + plan.output
    text = f"$ rollout status\n{status.output}\n$ rollout plan --to 2.0.0\n{plan.output}"
    for word in ("Traceback", "our bug", "is healthy", PASSWORD, OTHERS_SECRET):
        assert word not in text
    # How long the workers have been running, and where the test was.
    return re.sub(r"\d+ d \d+ h", lambda found: "<time>".ljust(len(found[0])), text)


def placeholders(site: Homeserver, ports: Mapping[str, str] | None = None) -> dict[str, str]:
    return {f"{site.directory}/": "", str(site.directory): "", **(ports or {})}


# ---------------------------------------------------------------------------------------------------------------------- proxy


def _says(answers: Answers) -> Proxies:
    return lambda place: stand_in(place, answers)


@contextmanager
def _left_behind(place: Path) -> Iterator[None]:
    """A socket whose process is gone."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(place))
    yield


def _file(place: Path) -> AbstractContextManager[object]:
    place.write_text("no socket")
    return nullcontext()


PROXIES: dict[str, Proxies] = {
    "proxy_absent": lambda _: nullcontext(),
    "proxy_gone": _left_behind,
    "proxy_is_a_file": _file,
    "proxy_is_ssh": _says(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
    "proxy_is_a_web_server": _says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "proxy_of_bytes": _says(b"\x00\x1b[2J\xff" * 1000),
    "proxy_hangs_up": _says(b""),
    "proxy_never_answers": _says(None),
    "proxy_never_ends": _says(STATES.encode() + b"x" * 20_000_000),
    "proxy_denies": _says(b"Permission denied\n\n"),
    "proxy_makes_no_sense": _says(
        {
            "show servers state": f"{STATES}3 client 1 client1 127.0.0.1 2 zero 100 100\n\n".encode(),
            "show stat": b"# pxname,svname,scur,stot,econ,eresp\nclient,client1,many,2,0,0\n\n",
        }
    ),
}


@pytest.mark.parametrize("case", PROXIES)
def test_a_socket_that_is_no_proxy(case: str, site: Homeserver, request: pytest.FixtureRequest) -> None:
    place = site.directory / "proxy.sock"
    change(site, lambda inventory: inventory.update(traffic_driver={"driver": "haproxy", "sockets": [str(place)]}))
    with PROXIES[case](place):
        text = printed(site)
    assert "admitted" not in text
    matches(request, f"run_time/{case}", text, placeholders(site))


@pytest.mark.parametrize(
    ("case", "pool", "worker"),
    [("server_unknown", {}, {"server": "client3"}), ("backend_unknown", {"backend": "synch"}, {})],
)
def test_a_name_that_the_proxy_does_not_have(
    case: str, pool: Mapping[str, str], worker: Mapping[str, str], site: Homeserver, request: pytest.FixtureRequest
) -> None:
    """HAProxy itself, which has client1 and client2 in its backend sync."""

    def edit(inventory: Inventory) -> None:
        inventory["traffic_driver"] = {"driver": "haproxy", "sockets": [str(proxy.admin)], "master_socket": str(proxy.master)}
        inventory["pools"]["client"] = {"backend": "sync", **pool}
        inventory["workers"]["client2"].update(worker)

    (site.directory / "haproxy").mkdir()
    with haproxy(site.directory / "haproxy", ("client1", "client2")) as proxy:
        until(lambda: ask_proxy(proxy.admin, "show stat").count(",UP,") == 3)
        change(site, edit)
        text = printed(site)
    matches(request, f"run_time/{case}", text, placeholders(site))


# -------------------------------------------------------------------------------------------------------------------- metrics


def _endless(handler: Handler) -> None:
    """Until the other side has had enough, which ends in an OSError."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"synapse_build_info 1\n" * 5000)


def _page(extra: bytes) -> Says:
    return Says(PAGE + extra)


def _alive() -> Callable[[Handler], None]:
    """Answer as a worker that runs does: its page is of its own process, whose time goes on."""
    began = b"process_start_time_seconds %.2f" % (time.time() - RUNNING_S)
    page = PAGE.replace(b"process_start_time_seconds 1.7e+09", began)

    def answer(handler: Handler) -> None:
        Says(page + b"process_cpu_seconds_total %.6f\n" % time.process_time())(handler)

    return answer


PAGES: dict[str, Callable[[Handler], None]] = {
    "metrics_html": Says(b"<html><body>Please log in</body></html>\n", kind="text/html"),
    "metrics_html_called_text": Says(b"<!doctype html>\n<p>Please log in</p>\n"),
    "metrics_404": Says(b"not found\n", status=404),
    "metrics_500": Says(b"oh no\n", status=500),
    "metrics_redirect": Says(b"", status=302),
    "metrics_json": Says(b"{}\n", kind="application/json"),
    "metrics_empty": Says(b""),
    "metrics_of_something_else": Says(b"node_load1 0.5\n"),
    "metrics_cut_in_a_line": Says(PAGE[:-20]),
    "metrics_cut_by_length": Says(PAGE, length=len(PAGE) + 100),
    "metrics_nan": _page(b"process_cpu_seconds_total NaN\n"),
    "metrics_infinite": _page(b"process_cpu_seconds_total +Inf\n"),
    "metrics_negative": _page(b"process_cpu_seconds_total -5\n"),
    "metrics_twice": _page(b"process_cpu_seconds_total 5\nprocess_cpu_seconds_total 5\n"),
    "metrics_contradicting": _page(b"process_start_time_seconds 5\n"),
    "metrics_no_number": _page(b"process_cpu_seconds_total many\n"),
    "metrics_not_utf8": Says(b'synapse_build_info{version="\xff"} 1\n'),
    "metrics_hundred_megabytes": Says(b"synapse_build_info 1\n" * 5_000_000),
    "metrics_endless": _endless,
    "metrics_dripping": Says(PAGE, pause_s=0.1),
    "metrics_never": Says(b"x", length=100, pause_s=60),
    "metrics_zip_bomb": Says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\n\r\n\x1f\x8b", bare=True),
    "metrics_hang_up": Says(b"", bare=True),
    "metrics_of_ssh": Says(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", bare=True),
}


@pytest.mark.parametrize("case", [*PAGES, "metrics_nobody_there"])
def test_a_page_that_is_no_metrics_page(case: str, site: Homeserver, request: pytest.FixtureRequest) -> None:
    def edit(inventory: Inventory) -> None:
        inventory["metrics_driver"] = {"driver": "scrape"}
        for worker, url in urls.items():
            inventory["workers"][worker]["metrics"] = url

    with ExitStack() as servers:
        urls = {"client1": servers.enter_context(serving(_alive())).url, "client2": "http://127.0.0.1:1/metrics"}
        if case in PAGES:
            urls["client2"] = servers.enter_context(serving(PAGES[case])).url
        change(site, edit)
        text = printed(site)
    assert "client1's gates" not in text, "that one's page is good"
    matches(request, f"run_time/{case}", text, placeholders(site))


# ------------------------------------------------------------------------------------------------------------------- database


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with postgresql(tmp_path_factory.mktemp("postgres")) as found:
        yield found


@contextmanager
def _listening(greeting: bytes | None) -> Iterator[int]:
    """Answer each connection with *greeting*, or with nothing at all."""
    ended = threading.Event()
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.02)

        def serve() -> None:
            while not ended.is_set():
                try:
                    connections.append(server.accept()[0])
                except TimeoutError:
                    continue
                if greeting is not None:
                    connections[-1].sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            thread.join()
            for connection in connections:
                connection.close()


def _with_database(site: Homeserver, dsn: str) -> None:
    secret = site.directory / "database.dsn"
    secret.write_text(dsn)
    change(site, lambda inventory: inventory.update(database_driver={"driver": "postgresql", "dsn": f"file:{secret}"}))
    playbook = json.loads(site.playbook.read_text())
    site.playbook.write_text(json.dumps(playbook | {"guards": [{"guard": "lock_queue", "max": 0}]}))


def test_a_database_with_a_wrong_password(site: Homeserver, database: Server, request: pytest.FixtureRequest) -> None:
    _with_database(site, database.dsn("locked", OTHERS_SECRET))
    matches(request, "run_time/database_wrong_password", printed(site), placeholders(site, {str(database.port): "<port>"}))


def test_a_database_that_is_not_there(site: Homeserver, database: Server, request: pytest.FixtureRequest) -> None:
    _with_database(site, database.dsn("looker").replace("dbname=postgres", "dbname=synapse"))
    matches(request, "run_time/database_unknown", printed(site), placeholders(site, {str(database.port): "<port>"}))


def test_a_database_role_that_may_not_look(site: Homeserver, database: Server) -> None:
    """The guards that it may not look at are unknown, and not well; the one that it may is enough for this playbook."""
    _with_database(site, database.dsn("stranger"))
    status = site.run("status")
    assert "long_transaction_s, connections_used: not known (its role may not see others: GRANT pg_read_all_stats)" in status.output


@pytest.mark.parametrize(
    ("case", "dsn", "greeting"),
    [
        ("database_refused", f"host=127.0.0.1 port=1 user=rollout password={OTHERS_SECRET}", None),
        ("database_misread", f"host=127.0.0.1 port={OTHERS_SECRET} user=rollout", None),
        ("database_no_dsn", f"host=127.0.0.1 pass word={OTHERS_SECRET}", None),
        ("database_never_answers", "host=127.0.0.1 port={port} user=rollout", None),
        ("database_is_ssh", "host=127.0.0.1 port={port} user=rollout", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
    ],
)
def test_a_database_that_cannot_be_asked(
    case: str, dsn: str, greeting: bytes | None, site: Homeserver, request: pytest.FixtureRequest
) -> None:
    with _listening(greeting) as port:
        _with_database(site, dsn.replace("{port}", str(port)))
        text = printed(site)
    matches(request, f"run_time/{case}", text, placeholders(site, {str(port): "<port>"}))


def test_every_text_has_its_case() -> None:
    """Those of the database are named where they are."""
    texts = {path.stem for path in (HERE / "run_time").glob("*.txt") if not path.stem.startswith("database_")}
    assert texts == {*PROXIES, *PAGES, "metrics_nobody_there", "server_unknown", "backend_unknown"}
