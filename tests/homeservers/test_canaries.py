"""Requests of our own must harm nobody and measure the worker."""

import json
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from rollout.homeservers.synapse.canaries import bought_path, canary_path
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


def _bought(role: Role, nonce: int) -> str:
    path = bought_path(role, nonce)
    assert path is not None
    return path


@pytest.mark.parametrize("role", ROLE_ORDER)
def test_evidence_is_bought_from_whom_canaries_can_be_asked(role: Role) -> None:
    assert (bought_path(role, 1) is None) == (canary_path(role, 1) is None)


@pytest.mark.parametrize("role", [Role("client"), Role("main")])
def test_what_is_bought_from_them_is_read_in_turn_and_counted_as_traffic(role: Role) -> None:
    """What canaries ask otherwise is left out of a worker's traffic; and no long-poll is among these, whose time would say nothing."""
    parts = [urlsplit(_bought(role, nonce)) for nonce in range(40)]
    assert {part.path.removeprefix("/_matrix/client/v3/") for part in parts} == {"notifications", "devices", "pushrules/", "account/whoami"}
    assert {part.query for part in parts if part.path.endswith("notifications")} == {f"limit={1 + 4 * turn}" for turn in range(5)}
    assert all("since" not in part.query and "device" not in part.query for part in parts)


def test_what_is_bought_from_a_sync_worker_is_as_harmless_as_a_canary_and_another_request() -> None:
    query, canary = (parse_qs(urlsplit(path).query) for path in (_bought(Role("sync"), 7), _sync(7)))
    assert query.keys() == canary.keys()
    assert (query["timeout"], query["set_presence"]) == (["0"], ["offline"])
    assert query["filter"] != canary["filter"]
    assert len({_bought(Role("sync"), nonce) for nonce in range(100)}) == 100


@pytest.mark.parametrize("role", ROLE_ORDER)
def test_what_is_bought_is_fit_for_a_request_line(role: Role) -> None:
    path = bought_path(role, 1)
    assert path is None or path == quote(path, safe="/?&=%")
