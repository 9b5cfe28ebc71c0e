"""Watching Jobs: what prepares may fail, what migrates is waited for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollout.adapters.releases.kubernetes import jobs
from rollout.model.errors import DriverError, PermanentDriverError
from tests.adapters.kubernetes.canned import Answer, Canned, canned, listed, no_such

JOB = {"metadata": {"name": "j"}, "spec": {}}
NO_IMAGE = {"waiting": {"reason": "ImagePullBackOff", "message": "the registry is away"}}
RUNNING: dict[str, Any] = {"running": {}}


class Place:
    """*states* of the Job's container, one a look, until it is Complete; *log* is what that is answered."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []
        self.log: Answer = 200, "one\ntwo\n"
        self.made = False
        self.server: Canned

    def answer(self, method: str, path: str, _: dict[str, Any]) -> Answer:
        if "/log?" in path:
            return self.log
        if method == "GET" and path.endswith("/jobs/j"):
            if not self.made:
                return no_such("j")
            conditions = [] if self.states else [{"type": "Complete", "status": "True"}]
            return 200, {"metadata": {"name": "j", "uid": "u"}, "status": {"conditions": conditions}}
        if "/pods?" in path:
            state = self.states.pop(0) if self.states else RUNNING
            status = {"phase": "Pending", "containerStatuses": [{"name": "synapse", "image": "example.org/a:1", "state": state}]}
            return listed({"metadata": {"name": "j-x"}, "spec": {"containers": [{"name": "synapse"}]}, "status": status})
        if "/events?" in path:
            return listed()
        self.made = method == "POST"
        return 200, {}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(jobs, "POLL_S", 0.01)
    it = Place()
    with canned(tmp_path, it.answer) as server:
        it.server = server
        yield it


def test_a_migration_goes_on_being_watched_while_its_image_cannot_be_pulled(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The pod begins as soon as it can be: if we said that it had failed, it would migrate behind everybody's back."""
    place.states = [NO_IMAGE, NO_IMAGE, RUNNING]
    jobs.migrated(place.server.cluster, JOB)
    assert place.states == []
    (said,) = caplog.records
    assert said.levelname == "WARNING"
    assert "the registry is away" in said.getMessage()


def test_a_migration_that_is_done_is_so_whatever_its_log_says(place: Place) -> None:
    """And its Job stays: who asks again finds it done."""
    place.log = 500, "no node"
    jobs.migrated(place.server.cluster, JOB)
    jobs.migrated(place.server.cluster, JOB)
    assert place.server.did("POST") == ["jobs"]
    assert place.server.did("DELETE") == []


def test_a_preparation_without_an_image_fails(place: Place) -> None:
    place.states = [NO_IMAGE]
    with pytest.raises(PermanentDriverError, match=r"the Job can't run: its image .* can't be pulled"):
        jobs.prepared(place.server.cluster, JOB, 5.0)


def test_what_a_preparation_wrote_is_read_once(place: Place) -> None:
    assert jobs.prepared(place.server.cluster, JOB, 5.0) == ("one", "two")
    assert place.server.did("DELETE") == ["j"]


def test_a_preparation_whose_log_is_gone_is_made_anew(place: Place) -> None:
    """Its pod's node went, for one: a Job that is done and says nothing would be found for a day."""
    place.log = no_such("j-x")
    with pytest.raises(DriverError):
        jobs.prepared(place.server.cluster, JOB, 5.0)
    place.log = 200, "one\n"
    assert jobs.prepared(place.server.cluster, JOB, 5.0) == ("one",)
    assert place.server.did("POST") == ["jobs", "jobs"]
