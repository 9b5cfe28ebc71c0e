"""
What we rely on in watches: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes.

Those with faults need the stand-in, since nobody can tell a real control plane to forget its history; they ask for `faults`.
"""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest
import urllib3
from kubernetes import client, watch

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import WAIT_S, Hand, eventually, hand, refused
from tests.kubernetes.kubelet.api import LOST, Object, Value
from tests.kubernetes.server.faults import Faults


@pytest.fixture
def faults(control_plane: ControlPlane) -> Faults:
    """Give the stand-in's faults; a real control plane has none, so their tests have nothing to say of it."""
    if control_plane.faults is None:
        pytest.skip("a real control plane has no faults to order")
    return control_plane.faults


def _config(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"by": "test"}}, "data": data}


def _events(it: Hand, version: str, **query: str) -> Iterator[Object]:
    # A control plane may put a ConfigMap of its own into every namespace.
    return it.server.watch(it.path("ConfigMap"), version, **{"labelSelector": "by=test", **query})


def _told(events: Iterator[Object], count: int) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in itertools.islice(events, count)]


def _collected(events: Iterator[Object]) -> tuple[list[Object], threading.Thread]:
    """Give what is told until a watch ends, and the thread that waits for that end."""
    found: list[Object] = []
    thread = threading.Thread(target=lambda: found.extend(events), daemon=True)
    thread.start()
    return found, thread


def test_watch_tells_all_that_came_after_the_list(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(_config("a"))
    version = it.list("ConfigMap")["metadata"]["resourceVersion"]
    it.create(_config("b"))
    it.patch("ConfigMap", "a", {"data": {"x": "1"}})
    it.delete("ConfigMap", "b")
    assert _told(_events(it, version), 3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]


def test_watch_goes_on_where_it_was_left(control_plane: ControlPlane) -> None:
    """The version of any event, also of a deleted object, is one to go on from."""
    it = hand(control_plane)
    version = it.create(_config("a"))["metadata"]["resourceVersion"]
    it.delete("ConfigMap", "a")
    gone = next(_events(it, version))
    assert gone["type"] == "DELETED"
    assert int(gone["object"]["metadata"]["resourceVersion"]) > int(version)
    it.create(_config("b"))
    assert _told(_events(it, gone["object"]["metadata"]["resourceVersion"]), 1) == [("ADDED", "b")]


def test_object_that_leaves_the_selector_is_gone_for_the_watch(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    version = it.create(_config("a"))["metadata"]["resourceVersion"]
    it.patch("ConfigMap", "a", {"metadata": {"labels": {"by": "another"}}})
    it.patch("ConfigMap", "a", {"metadata": {"labels": {"by": "test"}}})
    assert _told(_events(it, version, labelSelector="by=test"), 2) == [("DELETED", "a"), ("ADDED", "a")]


def test_watch_without_a_version_begins_with_what_is_there(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(_config("a"))
    assert _told(_events(it, "", labelSelector="by=test"), 1) == [("ADDED", "a")]


def test_watch_ends_when_its_time_is_over_after_a_bookmark(control_plane: ControlPlane) -> None:
    """It ends as a whole answer; a bookmark before that says from where to go on."""
    it = hand(control_plane)
    version = it.create(_config("a"))["metadata"]["resourceVersion"]
    before = time.monotonic()
    events, told = _collected(_events(it, version, timeoutSeconds="4", fieldSelector="metadata.name=a"))
    told.join(WAIT_S)
    assert not told.is_alive()
    assert time.monotonic() - before > 2
    assert {event["type"] for event in events} == {"BOOKMARK"}
    assert int(events[-1]["object"]["metadata"]["resourceVersion"]) >= int(version)


def test_streamed_list_ends_with_a_marked_bookmark(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(_config("a"))
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "labelSelector": "by=test"}
    added, mark = itertools.islice(_events(it, "", **query), 2)
    assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "a")
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_official_client_watches(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(_config("a"))
    with control_plane.api() as api:
        core = client.CoreV1Api(api)
        seen = []
        # It comes without types.
        watcher: Value = watch
        query = {"label_selector": "by=test", "timeout_seconds": 20}
        for event in watcher.Watch().stream(core.list_namespaced_config_map, control_plane.namespace, **query):
            seen.append((event["type"], event["object"].metadata.name))
            if len(seen) == 2:
                break
            it.create(_config("b"))
    assert seen == [("ADDED", "a"), ("ADDED", "b")]


def test_version_of_the_future_is_not_there_yet(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    now = int(it.list("ConfigMap")["metadata"]["resourceVersion"])
    with refused(504, "Timeout") as told:
        it.list("ConfigMap", resourceVersion=str(now + 100000), resourceVersionMatch="NotOlderThan")
    assert told["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


def test_forgotten_history_is_410(control_plane: ControlPlane, faults: Faults) -> None:
    """A watch says so in an event of the type ERROR, the rest of a list in its answer, with a token to go on at one's own risk."""
    it = hand(control_plane)
    version = it.create(_config("a"))["metadata"]["resourceVersion"]
    it.create(_config("b"))
    begun = it.list("ConfigMap", limit="1", labelSelector="by=test")
    it.create(_config("c"))
    faults.compact()
    error = next(_events(it, version))
    assert error["type"] == "ERROR"
    assert (error["object"]["code"], error["object"]["reason"]) == (410, "Expired")
    with refused(410, "Expired") as told:
        it.list("ConfigMap", limit="1", labelSelector="by=test", **{"continue": begun["metadata"]["continue"]})
    rest = it.list("ConfigMap", labelSelector="by=test", **{"continue": told["metadata"]["continue"]})
    assert [one["metadata"]["name"] for one in rest["items"]] == ["b", "c"]


def test_dropped_watch_ends_without_an_error(control_plane: ControlPlane, faults: Faults) -> None:
    it = hand(control_plane)
    version = it.create(_config("a"))["metadata"]["resourceVersion"]
    events, told = _collected(_events(it, version))
    it.create(_config("b"))
    eventually(lambda: any(one["object"]["metadata"]["name"] == "b" for one in events), "b is seen")
    faults.drop_watches()
    told.join(WAIT_S)
    assert not told.is_alive()
    assert [event["type"] for event in events] == ["ADDED"]


def test_throttled_request_says_when_to_come_again(control_plane: ControlPlane, faults: Faults) -> None:
    it = hand(control_plane)
    faults.throttle(1, 3)
    with pytest.raises(client.ApiException) as caught:
        it.list("ConfigMap")
    assert caught.value.status == 429
    assert caught.value.headers is not None
    assert caught.value.headers["Retry-After"] == "3"
    assert it.list("ConfigMap")["kind"] == "ConfigMapList"


def test_server_that_is_away_refuses_and_comes_back_with_all_it_knew(control_plane: ControlPlane, faults: Faults) -> None:
    it = hand(control_plane)
    version = it.create(_config("a", x="1"))["metadata"]["resourceVersion"]
    # Long enough for a busy machine to ask meanwhile.
    faults.away(5)
    with pytest.raises((urllib3.exceptions.HTTPError, OSError)):
        it.get("ConfigMap", "a")

    def back() -> Object | None:
        try:
            return it.get("ConfigMap", "a")
        except LOST:
            return None

    found = eventually(back, "the server is back")
    assert found is not None
    assert (found["metadata"]["resourceVersion"], found["data"]) == (version, {"x": "1"})


def test_restart_ends_watches_and_what_they_knew(control_plane: ControlPlane, faults: Faults) -> None:
    """A watch from before what the server's new cache knows is 410; a new list is a place to go on from."""
    it = hand(control_plane)
    version = it.create(_config("a"))["metadata"]["resourceVersion"]
    it.create(_config("b"))
    faults.restart()
    assert next(_events(it, version))["object"]["code"] == 410
    now = it.list("ConfigMap")["metadata"]["resourceVersion"]
    it.create(_config("c"))
    assert _told(_events(it, now), 1) == [("ADDED", "c")]
