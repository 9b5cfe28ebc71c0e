"""Warming by the application service against workers that answer well, slowly, badly or not at all."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest

from rollout.adapters.warming import application_service
from rollout.adapters.warming.application_service import ApplicationServiceWarming
from rollout.model.errors import TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.warming import WarmBudget
from tests.contracts.server import Handler, Server, serving

SYNC1 = WorkerId("sync1")
TOKEN = "se-cret"
USERS = tuple(f"@user{number}:a" for number in range(12))
BUDGET = WarmBudget(users_max=10, concurrency=3, seconds=20.0, cpu_max=0.8)


@dataclass(slots=True)
class Worker:
    """
    A worker: *answer_s* is how long a /sync takes, *status* what it gets. *cpu* is what its page says of the CPU used each second; None
    for no page.
    """

    answer_s: float = 0.0
    status: int = 200
    cpu: float | None = 0.1
    began_s: float = field(default_factory=time.monotonic)
    under_way: int = 0
    under_way_max: int = 0
    hits: int = 0
    syncs: list[dict[str, list[str]]] = field(default_factory=list)
    changed: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, handler: Handler) -> None:
        parts = urlsplit(handler.path)
        if parts.path == "/metrics":
            self._page(handler)
        elif handler.headers.get("Authorization") != f"Bearer {TOKEN}":
            _send(handler, 401, b"{}")
        elif parts.path.endswith("/whoami"):
            _send(handler, self.status, b"{}")
        else:
            with self.changed:
                self.syncs.append(parse_qs(parts.query))
                self.under_way += 1
                self.under_way_max = max(self.under_way, self.under_way_max)
                self.hits += len(self.syncs) > BUDGET.users_max
            time.sleep(self.answer_s)
            with self.changed:
                self.under_way -= 1
            _send(handler, self.status, b"{}")

    def _page(self, handler: Handler) -> None:
        if self.cpu is None:
            _send(handler, 500, b"")
            return
        seconds = self.cpu * (time.monotonic() - self.began_s)
        page = (
            f"process_cpu_seconds_total {seconds}\n"
            f'synapse_util_caches_cache_hits{{name="a"}} {self.hits}\nsynapse_util_caches_cache{{name="a"}} {len(self.syncs)}\n'
        )
        _send(handler, 200, page.encode())


def _send(handler: Handler, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


Serve = Callable[[Worker], tuple[Server, ApplicationServiceWarming]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a worker, and build the driver that knows it as SYNC1."""
    with ExitStack() as stack:

        def run(worker: Worker) -> tuple[Server, ApplicationServiceWarming]:
            server = stack.enter_context(serving(worker))
            return server, ApplicationServiceWarming({SYNC1: (server.url, f"{server.url}/metrics")}, TOKEN)

        yield run


def test_it_asks_as_the_first_users_and_never_as_a_device_or_from_a_position(serve: Serve) -> None:
    """A /sync with `since` and a device id deletes that device's to-device messages, which may be keys."""
    worker = Worker()
    server, warming = serve(worker)
    warmed = warming.warm(SYNC1, USERS, BUDGET)
    assert (warmed.users, warmed.failures, warmed.stopped) == (10, 0, "")
    asked = [query["user_id"][0] for query in worker.syncs]
    assert sorted(asked[:10]) == sorted(USERS[:10])
    assert set(asked[10:]) <= set(USERS[:10]), "some are asked once more, for the proof"
    assert len(asked) > 10
    for query in worker.syncs:
        assert set(query) == {"timeout", "set_presence", "filter", "user_id"}
        assert (query["timeout"], query["set_presence"]) == (["0"], ["offline"])
    filters = [json.dumps(json.loads(query["filter"][0]), sort_keys=True) for query in worker.syncs]
    assert len(set(filters)) == len(filters), "the same filter would be answered from a cache of whole answers"
    assert all(header is None for path, header in server.asked if path == "/metrics"), "the token goes to nobody who doesn't need it"


def test_its_proof_is_in_times_and_hits(serve: Serve) -> None:
    _, warming = serve(Worker(answer_s=0.02))
    warmed = warming.warm(SYNC1, USERS, BUDGET)
    assert warmed.cold_s is not None
    assert warmed.warm_s is not None
    assert warmed.cold_s >= 0.02
    assert (warmed.hit_ratio_before, warmed.hit_ratio_after) == (0.0, 1.0)


def test_no_more_at_a_time_than_the_budget_has(serve: Serve) -> None:
    worker = Worker(answer_s=0.3)
    _, warming = serve(worker)
    warming.warm(SYNC1, USERS, BUDGET)
    assert worker.under_way_max == BUDGET.concurrency


def test_it_ends_in_time_whatever_is_left(serve: Serve) -> None:
    worker = Worker(answer_s=0.4)
    _, warming = serve(worker)
    began_s = time.monotonic()
    warmed = warming.warm(SYNC1, USERS, WarmBudget(users_max=10, concurrency=1, seconds=1.0, cpu_max=0.8))
    assert time.monotonic() - began_s < 1.0 + 1.5
    assert 0 < warmed.users < 10
    assert warmed.stopped == "time"


@pytest.mark.parametrize(("cpu", "stopped"), [(0.1, "time"), (0.95, "cpu")])
def test_the_proof_is_there_also_where_not_everybody_was_asked(serve: Serve, cpu: float, stopped: str) -> None:
    """The last of the time is kept for it."""
    _, warming = serve(Worker(answer_s=0.15, cpu=cpu))
    warmed = warming.warm(SYNC1, USERS, WarmBudget(users_max=10, concurrency=1, seconds=1.6, cpu_max=0.8))
    assert warmed.stopped == stopped
    assert warmed.warm_s is not None
    assert warmed.hit_ratio_after is not None


def test_leaving_a_worker_alone_costs_us_nothing_either(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing under way there is nothing to wait for: it pauses, rather than asking the clock a million times."""
    looks: list[float] = []

    def clock() -> float:
        looks.append(time.monotonic())
        return looks[-1]

    _, warming = serve(Worker(answer_s=0.05, cpu=0.95))
    monkeypatch.setattr(application_service, "monotonic", clock)
    many = tuple(f"@user{number}:a" for number in range(200))
    warming.warm(SYNC1, many, WarmBudget(users_max=200, concurrency=1, seconds=3.0, cpu_max=0.8))
    assert len(looks) < 500


@pytest.mark.parametrize("cpu", [0.95, None], ids=["busy", "unknown"])
def test_a_worker_that_is_too_busy_is_left_alone(serve: Serve, cpu: float | None) -> None:
    """And so is one of which that can't be seen: unknown is never well."""
    worker = Worker(answer_s=0.3, cpu=cpu)
    _, warming = serve(worker)
    warmed = warming.warm(SYNC1, USERS, WarmBudget(users_max=10, concurrency=1, seconds=3.0, cpu_max=0.8))
    assert warmed.stopped == "cpu"
    assert len(worker.syncs) < 8, "in three seconds ten would have been answered"


def test_one_that_answers_nobody_is_an_error(serve: Serve) -> None:
    _, warming = serve(Worker(status=500))
    with pytest.raises(TransientDriverError, match="none of the users"):
        warming.warm(SYNC1, USERS, BUDGET)


def test_failures_are_counted_and_others_go_on() -> None:
    worker = Worker()
    turns = itertools.cycle([200, 500])

    def answer(handler: Handler) -> None:
        if "/sync" in handler.path:
            worker.status = next(turns)
        worker(handler)

    with serving(answer) as server:
        warming = ApplicationServiceWarming({SYNC1: (server.url, f"{server.url}/metrics")}, TOKEN)
        warmed = warming.warm(SYNC1, USERS, WarmBudget(users_max=10, concurrency=1, seconds=20.0, cpu_max=0.8))
    assert (warmed.users, warmed.failures) == (5, 5)


def test_one_that_hangs_costs_no_more_than_the_time(serve: Serve) -> None:
    worker = Worker(answer_s=30.0)
    _, warming = serve(worker)
    began_s = time.monotonic()
    with pytest.raises(TransientDriverError):
        warming.warm(SYNC1, USERS, WarmBudget(users_max=10, concurrency=2, seconds=1.0, cpu_max=0.8))
    assert time.monotonic() - began_s < 4


def test_nobody_to_ask_as_is_no_error(serve: Serve) -> None:
    _, warming = serve(Worker())
    assert warming.warm(SYNC1, (), BUDGET).users == 0


@pytest.mark.parametrize(("status", "says"), [(200, ""), (401, "register it"), (403, "register it"), (500, "no worker said")])
def test_whether_it_is_registered_is_asked_and_said(serve: Serve, status: int, says: str) -> None:
    _, warming = serve(Worker(status=status))
    why = warming.unavailable(5.0)
    assert (says in why) if says else why == ""
    assert TOKEN not in why


def test_nobody_there_to_ask_is_said_in_time() -> None:
    began_s = time.monotonic()
    assert "no worker said" in ApplicationServiceWarming({SYNC1: ("http://127.0.0.1:1", "http://127.0.0.1:1")}, TOKEN).unavailable(2.0)
    assert time.monotonic() - began_s < 6
