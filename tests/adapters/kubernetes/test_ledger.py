"""The ledger's ConfigMap, when it isn't as we would have written it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollout.adapters.kubernetes.cluster import ForbiddenError
from rollout.adapters.ledger.kubernetes import ENTRY, KubernetesLedger, LedgerSettings
from rollout.model.errors import PermanentDriverError
from tests.adapters.kubernetes.canned import Answer, Canned, canned, no_such


class Place:
    """A namespace with one ConfigMap, or none; *status* is what a write is answered."""

    def __init__(self) -> None:
        self.found: dict[str, Any] | None = None
        self.status = 200
        self.server: Canned

    def answer(self, method: str, _: str, body: dict[str, Any]) -> Answer:
        if method == "GET":
            return no_such("rollout-ledger") if self.found is None else (200, self.found)
        if self.status == 200:
            self.found = body
        return self.status, body

    @property
    def ledger(self) -> KubernetesLedger:
        return KubernetesLedger(LedgerSettings.model_validate(self.server.settings))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    it = Place()
    with canned(tmp_path, it.answer) as server:
        it.server = server
        yield it


@pytest.mark.parametrize("content", [{}, {"data": None}, {"data": {}}, {"data": {"ledger": "{}"}}, {"data": {ENTRY: "null"}}])
def test_a_config_map_without_our_entry_is_no_empty_ledger(place: Place, content: dict[str, Any]) -> None:
    """Who took that for one would give numbers a second time, and forget who is out."""
    place.found = {"metadata": {"name": "rollout-ledger", "resourceVersion": "7"}, **content}
    with pytest.raises(PermanentDriverError, match="the ledger is not one") as refused:
        place.ledger.marks()
    assert "then delete the ConfigMap" in refused.value.remedy
    with pytest.raises(PermanentDriverError, match="the ledger is not one"):
        place.ledger.take(3)
    assert place.server.did("PUT") == place.server.did("POST") == []


def test_what_somebody_else_keeps_beside_it_stays(place: Place) -> None:
    place.ledger.take(3)
    assert place.found is not None
    place.found["metadata"]["resourceVersion"] = "7"
    place.found["data"]["note"] = "ours"
    place.ledger.take(4)
    assert place.found["metadata"]["resourceVersion"] == "7"
    assert place.found["data"]["note"] == "ours"
    assert place.ledger.token() == 4


def test_that_the_ledger_can_be_written_is_seen_before_a_rollout(place: Place) -> None:
    """Nothing has changed then: it is written all the same, with what was read as precondition."""
    place.ledger.take(3)
    place.ledger.guard("example.org")
    assert place.server.did("PUT") == ["rollout-ledger"]
    place.status = 403
    with pytest.raises(ForbiddenError):
        place.ledger.guard("example.org")
