"""Evicting a pod, and giving a StatefulSet back, when the API server doesn't do it at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollout.adapters.kubernetes import acts, awaiting, returning
from rollout.adapters.kubernetes.objects import REVISION, TAKEN_OVER
from rollout.model.errors import TransientDriverError
from tests.adapters.kubernetes.canned import Answer, Canned, canned, listed

READY = {"conditions": [{"type": "Ready", "status": "True"}]}
RUNS = {"containerStatuses": [{"name": "synapse", "state": {"running": {}}}]}
REFUSED = "Operation cannot be fulfilled on pods: the object has been modified"
NOTE = '{"updateStrategy": {"type": "RollingUpdate"}}'


class Place:
    """A StatefulSet of one pod, which is taken over. *evicting* and *patching* are statuses, and what they say; the last one stays."""

    def __init__(self) -> None:
        self.uid = "first"
        self.revision = "new"
        self.note = NOTE
        self.observed = 4
        self.evicting: list[int] = [201]
        self.patching: list[int] = [200]
        self.server: Canned

    def answer(self, method: str, path: str, _: dict[str, Any]) -> Answer:
        if path.endswith("/eviction"):
            status = _next(self.evicting)
            if status == 201:
                self.uid = "second"
            return status, {"kind": "Status", "message": REFUSED if status == 409 else "no"}
        if method == "PATCH":
            return _next(self.patching), {"kind": "Status", "message": "no"}
        if "/pods?" in path:
            return listed(self._pod())
        return 200, self._pod() if "/pods/" in path else self._set()

    def _pod(self) -> dict[str, Any]:
        return {
            "metadata": {"name": "sync-0", "uid": self.uid, "labels": {REVISION: self.revision}},
            "spec": {},
            "status": {**READY, **RUNS},
        }

    def _set(self) -> dict[str, Any]:
        metadata = {"name": "sync", "resourceVersion": "7", "generation": 4, "annotations": {TAKEN_OVER: self.note}}
        spec = {"replicas": 1, "updateStrategy": {"type": "OnDelete"}, "selector": {"matchLabels": {"app": "sync"}}}
        return {"metadata": metadata, "spec": spec, "status": {"observedGeneration": self.observed, "updateRevision": "new"}}

    def replace(self, timeout_s: float) -> None:
        one = acts.act("replace", timeout_s, worker="sync-0", set="sync", pod="sync-0", uid="first", container="synapse", admitted="true")
        acts.run(self.server.cluster, (one,))

    def give_back(self) -> bool:
        return returning.give_back(self.server.cluster, "sync")


def _next(statuses: list[int]) -> int:
    return statuses.pop(0) if len(statuses) > 1 else statuses[0]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(awaiting, "SETTLED_S", 0.0)
    monkeypatch.setattr(returning, "GIVE_BACK_S", 1.0)
    it = Place()
    with canned(tmp_path, it.answer) as server:
        it.server = server
        yield it


def test_a_conflict_about_something_else_than_the_pod_is_no_eviction(place: Place) -> None:
    """The pod is still there: it is asked for again."""
    place.evicting = [409, 201]
    place.replace(5.0)
    assert place.server.did("POST") == ["eviction", "eviction"]


def test_a_conflict_that_goes_on_is_said_in_its_own_words(place: Place) -> None:
    place.evicting = [409]
    with pytest.raises(TransientDriverError, match="its eviction isn't allowed") as refused:
        place.replace(1.0)
    assert REFUSED in refused.value.why
    assert place.server.did("DELETE") == []


def test_a_conflict_because_it_is_another_pod_is_one_that_has_gone(place: Place) -> None:
    place.evicting = [409]
    place.uid = "second"
    place.replace(5.0)
    assert place.server.did("POST") == ["eviction"]


@pytest.mark.parametrize("status", [503, 500, 409])
def test_a_strategy_is_given_back_when_it_is_not_taken_at_once(place: Place, caplog: pytest.LogCaptureFixture, status: int) -> None:
    place.patching = [status, 200]
    assert place.give_back()
    assert place.server.did("PATCH") == ["sync", "sync"]
    assert caplog.records == []


def test_a_strategy_that_cannot_be_given_back_is_said(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The pod was replaced, which was what was asked for; that the controller doesn't replace any more must not stay unnoticed."""
    place.patching = [403]
    place.replace(5.0)
    (said,) = caplog.records
    assert said.levelname == "WARNING"
    assert "StatefulSet sync may stay OnDelete" in said.getMessage()
    assert TAKEN_OVER in said.getMessage()
    assert "the API server doesn't allow it" in said.getMessage()


def test_a_controller_that_never_sees_the_template_is_said(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.observed = 3
    assert not place.give_back()
    assert "its controller has not yet seen its template" in caplog.text


def test_a_note_that_nobody_understands_is_said(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.note = "it was RollingUpdate"
    assert not place.give_back()
    assert "what it was isn't understood" in caplog.text
    assert place.server.did("PATCH") == []


def test_one_whose_other_pods_have_yet_to_be_replaced_stays_ours_without_a_word(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.revision = "old"
    assert not place.give_back()
    assert caplog.records == []
