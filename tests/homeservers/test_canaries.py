"""Requests of our own must harm nobody and measure the worker."""

import json
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from rollout.homeservers.synapse.canaries import canary_path
from rollout.homeservers.synapse.roles import ROLE_ORDER, evidence_of
from rollout.model.gate import Metric
from rollout.model.ids import Role


def _sync(nonce: int) -> str:
    path = canary_path(Role("sync"), nonce)
    assert path is not None
    return path


def test_sync_canary_neither_waits_nor_takes_anything_from_anybody() -> None:
    """A `since` with a device deletes that device's to-device messages; presence would show the user online."""
    parts = urlsplit(_sync(7))
    query = parse_qs(parts.query)
    assert parts.path == "/_matrix/client/v3/sync"
    assert (query["timeout"], query["set_presence"]) == (["0"], ["offline"])
    assert query.keys() == {"timeout", "set_presence", "filter"}
    assert json.loads(query["filter"][0])["room"]["timeline"] == {"limit": 1}


def test_no_two_sync_canaries_are_alike() -> None:
    """Synapse's response cache compares the filter's text."""
    assert len({_sync(nonce) for nonce in range(100)}) == 100


@pytest.mark.parametrize("role", ROLE_ORDER)
def test_a_path_is_fit_for_a_request_line(role: Role) -> None:
    path = canary_path(role, 1)
    assert path is None or path == quote(path, safe="/?&=%")


@pytest.mark.parametrize("role", ROLE_ORDER)
def test_exactly_the_roles_that_are_judged_by_canaries_have_one(role: Role) -> None:
    assert (canary_path(role, 1) is not None) == (Metric.CANARY_FAILURES in evidence_of(role))
