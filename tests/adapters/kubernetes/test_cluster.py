"""What may be said of a request, by what came of it."""

import json
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from rollout.adapters.kubernetes.cluster import APPLY, MERGE, Cluster, Door, ForbiddenError, NotFoundError
from rollout.adapters.kubernetes.kinds import CONFIG_MAPS, STATEFUL_SETS
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, TransientDriverError
from tests.adapters.kubernetes.canned import NAMESPACE, Answer, canned, kubeconfig, no_such
from tests.kubernetes.kubelet.logs import self_signed

TIMEOUT_S = 5.0
# Of a load balancer, and of an API server that doesn't serve that group or resource (yet).
ELSEWHERE: list[object] = [
    "404 page not found\n",
    {"kind": "Status", "reason": "NotFound", "message": "the server could not find the requested resource", "details": {}},
    {"kind": "Status", "reason": "NotFound", "message": "the server could not find the requested resource"},
]


@pytest.mark.parametrize("said", ELSEWHERE)
def test_only_the_api_server_says_that_there_is_none(tmp_path: Path, said: object) -> None:
    """A ledger that isn't there is an empty one: nobody else may say so."""
    with canned(tmp_path, lambda *_: (404, said)) as server:
        with pytest.raises(TransientDriverError, match="something else than the API server answered"):
            server.cluster.get(CONFIG_MAPS, "a", TIMEOUT_S)
        with pytest.raises(TransientDriverError, match="something else than the API server answered"):
            server.cluster.delete(CONFIG_MAPS, "a", TIMEOUT_S)
        with pytest.raises(TransientDriverError, match="something else than the API server answered"):
            server.cluster.all_of(CONFIG_MAPS, TIMEOUT_S)


def test_an_object_that_is_not_there_is_none(tmp_path: Path) -> None:
    with canned(tmp_path, lambda *_: no_such("a")) as server:
        assert server.cluster.get(CONFIG_MAPS, "a", TIMEOUT_S) is None
        server.cluster.delete(CONFIG_MAPS, "a", TIMEOUT_S)
        with pytest.raises(NotFoundError):
            server.cluster.patch(CONFIG_MAPS, "a", {}, MERGE, TIMEOUT_S)


@pytest.mark.parametrize("rudely", [False, True])
def test_who_hangs_up_before_anything_was_asked_is_asked_again(tmp_path: Path, *, rudely: bool) -> None:
    """A load balancer does that while no API server is behind it: a write that was never sent is in no doubt."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        came: list[float] = []

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    came.append(time.monotonic())
                    if rudely:
                        near.recv(1)
                        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    near.close()

        threading.Thread(target=hang_up, daemon=True).start()
        place = tmp_path / "kubeconfig"
        place.write_text(json.dumps(kubeconfig({"server": f"https://127.0.0.1:{listener.getsockname()[1]}"})))
        cluster = Cluster(Door(NAMESPACE, str(place)))
        with pytest.raises(TransientDriverError, match="the API server can't be reached") as caught:
            cluster.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, 2.0)
        listener.shutdown(socket.SHUT_RDWR)
    assert not isinstance(caught.value, OutcomeUnknownError)
    assert len(came) > 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_read_is_asked_again_while_there_is_time_and_a_write_only_where_nothing_was_done(tmp_path: Path, status: int) -> None:
    """502 and 504 are a load balancer's that has asked, and 503 is one's that has nobody to ask."""
    asked: list[str] = []

    def answer(method: str, *_: object) -> Answer:
        asked.append(method)
        return (status, {}) if len(asked) == 1 else (200, {"metadata": {"name": "a"}})

    with canned(tmp_path, answer) as server:
        assert server.cluster.get(CONFIG_MAPS, "a", TIMEOUT_S) is not None
        assert asked == ["GET", "GET"]
        asked.clear()
        if status == 503:
            server.cluster.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, TIMEOUT_S)
            assert asked == ["POST", "POST"]
        else:
            with pytest.raises(OutcomeUnknownError):
                server.cluster.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, TIMEOUT_S)
            assert asked == ["POST"]


def test_what_is_only_tried_is_no_write(tmp_path: Path) -> None:
    """It may be tried again, nothing is in doubt after it, and what was listed before is still true."""
    asked: list[str] = []

    def answer(method: str, path: str, _: object) -> Answer:
        asked.append(method)
        assert "dryRun=All" in path
        return (502, {}) if asked.count(method) == 1 else (200, {"metadata": {"name": "a"}})

    with canned(tmp_path, answer) as server:
        server.cluster.patch(STATEFUL_SETS, "a", {}, APPLY, TIMEOUT_S, dry_run=True)
        server.cluster.evict("a-0", "uid", TIMEOUT_S, dry_run=True)
        assert (asked, server.cluster.writes) == (["PATCH", "PATCH", "POST", "POST"], 0)


@pytest.mark.parametrize("said", ["", "[]", "null", "<html>"])
def test_an_answer_that_is_no_object_is_none_at_all(tmp_path: Path, said: str) -> None:
    with canned(tmp_path, lambda *_: (200, said)) as server:
        with pytest.raises(TransientDriverError, match="the API server's answer is no object"):
            server.cluster.get(CONFIG_MAPS, "a", TIMEOUT_S)
        with pytest.raises(OutcomeUnknownError, match="the API server's answer is no object"):
            server.cluster.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, TIMEOUT_S)


def test_an_answer_without_items_is_no_list(tmp_path: Path) -> None:
    answers: list[Answer] = [(200, {}), (200, {"items": None})]
    with canned(tmp_path, lambda *_: answers.pop(0)) as server:
        with pytest.raises(TransientDriverError, match="something else than the API server answered"):
            server.cluster.all_of(CONFIG_MAPS, TIMEOUT_S)
        assert server.cluster.all_of(CONFIG_MAPS, TIMEOUT_S) == []


def test_what_we_may_not_do_has_an_error_of_its_own(tmp_path: Path) -> None:
    with (
        canned(tmp_path, lambda *_: (403, {"kind": "Status", "reason": "Forbidden", "message": "no"})) as server,
        pytest.raises(ForbiddenError),
    ):
        server.cluster.get(CONFIG_MAPS, "a", TIMEOUT_S)


@contextmanager
def breaking(place: Path) -> Iterator[str]:
    """Serve TLS, and break it instead of an answer, once a request was read."""
    chain, private = self_signed("127.0.0.1", place)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, private)

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(near, server_side=True) as tls:
                    tls.recv(65_536)
                    with socket.socket(fileno=os.dup(tls.fileno())) as raw:
                        # A record that nobody has encrypted.
                        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
                        # What comes of the request after that, until they hang up.
                        while raw.recv(65_536):
                            pass
            except OSError:
                continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def door(place: Path, **cluster: object) -> Door:
    file = place / "kubeconfig-tls"
    file.write_text(json.dumps(kubeconfig(cluster)))
    return Door(NAMESPACE, str(file))


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_write_whose_connection_breaks_is_in_doubt(tmp_path: Path) -> None:
    """It was sent, maybe done: nobody sends it a second time."""
    with breaking(tmp_path) as address:
        it = Cluster(door(tmp_path, server=address, **{"insecure-skip-tls-verify": True}))
        with pytest.raises(OutcomeUnknownError, match="did not say whether it did it") as lost:
            it.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, TIMEOUT_S)
        assert "SSLError" in lost.value.why
        with pytest.raises(TransientDriverError, match="can't be reached"):
            it.get(CONFIG_MAPS, "a", TIMEOUT_S)


def test_a_server_that_nobody_vouches_for_is_sent_nothing(tmp_path: Path) -> None:
    """That doesn't mend itself, either."""
    with breaking(tmp_path) as address:
        it = Cluster(door(tmp_path, server=address))
        with pytest.raises(PermanentDriverError, match="certificate is none that the kubeconfig trusts"):
            it.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, TIMEOUT_S)
