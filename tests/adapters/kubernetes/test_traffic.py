"""How many requests a pod works on, by what it says of itself, and when everybody has heard that it is out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollout.adapters.kubernetes.objects import ADMITTED, OUT, SINCE
from rollout.adapters.traffic.kubernetes import IN_FLIGHT, KubernetesTraffic, TrafficSettings
from rollout.model.ids import WorkerId
from rollout.ports.traffic import Server
from tests.adapters.kubernetes.canned import Answer, Canned, canned, listed

SYNC0 = WorkerId("sync-0")
SERVER = Server("sync", "sync-0")
IDLE = (Path(__file__).parents[2] / "data/metrics/main.txt").read_text()
TIMEOUT_S = 5.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator["Place"]:
    it = Place()
    with canned(tmp_path, it.answer) as server:
        it.server = server
        yield it


class Place:
    """A Service with one pod, which is out; *page* is what the pod says of itself."""

    def __init__(self) -> None:
        self.page = IDLE
        self.annotations: dict[str, str] = {SINCE: "1000.0"}
        self.patched: list[dict[str, Any]] = []
        self.states: list[str] = ["running"]
        self.server: Canned

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        if method == "PATCH":
            self.patched.append(body["metadata"])
            return 200, {"metadata": body["metadata"]}
        if path == "/metrics":
            return 200, self.page
        labels = {"app": "sync", ADMITTED: OUT}
        pod: dict[str, Any] = {"metadata": {"name": "sync-0", "uid": "u", "labels": labels, "annotations": self.annotations}, "spec": {}}
        pod["status"] = {"containerStatuses": [{"name": name, "state": {name: {}}} for name in self.states]}
        if path.endswith("/pods/sync-0"):
            return 200, pod
        if path.endswith("/pods"):
            return listed(pod)
        if path.endswith("/services"):
            return listed({"metadata": {"name": "sync"}, "spec": {"selector": {"app": "sync", ADMITTED: "true"}}})
        return listed()

    @property
    def traffic(self) -> KubernetesTraffic:
        settings = TrafficSettings.model_validate({**self.server.settings, "settle_s": 0.5})
        return KubernetesTraffic(settings, {SYNC0: f"{self.server.url}/metrics"})

    def sessions(self) -> int | None:
        return self.traffic.look({SYNC0: SERVER}, TIMEOUT_S)[SYNC0].sessions


def test_a_synapse_with_nothing_to_do_works_on_no_request(place: Place) -> None:
    """It has samples only for servlets with open requests: on its page the metric is announced, and that is all."""
    assert f"# TYPE {IN_FLIGHT} gauge" in IDLE
    assert f"{IN_FLIGHT}{{" not in IDLE
    assert place.sessions() == 0


def test_open_requests_are_added_up(place: Place) -> None:
    place.page += f'{IN_FLIGHT}{{method="GET",servlet="A"}} 2.0\n{IN_FLIGHT}{{method="PUT",servlet="B"}} 1.0\n'
    assert place.sessions() == 3


def test_a_page_that_does_not_know_the_metric_says_nothing(place: Place) -> None:
    place.page = IDLE.replace(IN_FLIGHT, "another_metric")
    assert place.sessions() is None


@pytest.mark.parametrize(
    ("states", "sessions"), [(["waiting"], 0), (["terminated", "waiting"], 0), (["waiting", "running"], None), ([], None)]
)
def test_what_does_not_run_has_no_request(place: Place, states: list[str], sessions: int | None) -> None:
    """A release that crashes can't be asked, and is not waited for before it is taken back; of what may run nobody knows."""
    place.page, place.states = "nothing", states
    assert place.sessions() == sessions


@pytest.mark.parametrize("annotations", [{}, {SINCE: "yesterday"}])
def test_one_that_is_out_since_nobody_knows_when_has_not_settled_until_it_is_drained(place: Place, annotations: dict[str, str]) -> None:
    """By hand, maybe a moment ago. A drain of ours changes no label then, and writes down that moment."""
    place.annotations = annotations
    assert place.sessions() is None
    place.traffic.drain(SERVER, TIMEOUT_S)
    (patched,) = place.patched
    assert patched["labels"] == {ADMITTED: OUT}
    assert float(patched["annotations"][SINCE]) > 1_000_000_000


def test_one_that_is_out_already_is_left_as_it_is(place: Place) -> None:
    place.traffic.drain(SERVER, TIMEOUT_S)
    assert place.patched == []
