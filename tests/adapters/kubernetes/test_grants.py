"""What the API server is asked about what we may do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollout.adapters.kubernetes.access import ClusterSettings
from rollout.adapters.kubernetes.grants import not_granted
from rollout.adapters.kubernetes.looking import looking
from rollout.ports.privileges import Grant
from tests.adapters.kubernetes.canned import NAMESPACE, Answer, Canned, canned

PODS = tuple(f"sync-{number}" for number in range(500))
LISTS, PATCHES = Grant(NAMESPACE, "", "pods", ("list",)), Grant(NAMESPACE, "", "pods", ("patch",), PODS)
LISTED = [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]


class Reviewer:
    """
    Lists *rules*, which *are_all* or not; None: it lists none, and forbids to ask. What is allowed indeed are *verbs*, and to patch those
    of *names*.
    """

    def __init__(self) -> None:
        self.rules: list[dict[str, Any]] | None = []
        self.are_all = False
        self.verbs = {"list"}
        self.names: tuple[str, ...] = ()
        self.reviewed: list[tuple[str, str]] = []
        self.server: Canned

    def answer(self, _: str, path: str, body: dict[str, Any]) -> Answer:
        if "selfsubjectrulesreviews" in path:
            if self.rules is None:
                return 403, {"kind": "Status", "reason": "Forbidden", "message": "no"}
            assert body["spec"] == {"namespace": NAMESPACE}
            return 200, {"status": {"resourceRules": self.rules, "nonResourceRules": [], "incomplete": not self.are_all}}
        asked = body["spec"]["resourceAttributes"]
        verb, name = asked["verb"], asked.get("name", "")
        self.reviewed.append((verb, name))
        return 200, {"status": {"allowed": verb in self.verbs or (verb == "patch" and name in self.names)}}

    def lacking(self, *grants: Grant, thorough: bool = False) -> tuple[str, ...]:
        return not_granted(looking(ClusterSettings.model_validate(self.server.settings)), grants, 5.0, thorough=thorough)


@pytest.fixture
def reviewer(tmp_path: Path) -> Iterator[Reviewer]:
    it = Reviewer()
    with canned(tmp_path, it.answer) as server:
        it.server = server
        yield it


def _patching(*names: str) -> dict[str, Any]:
    return {"verbs": ["get", "patch"], "apiGroups": [""], "resources": ["pods"], "resourceNames": list(names)}


@pytest.mark.parametrize("rules", [[], None], ids=["none_is_listed", "nobody_may_list"])
def test_every_name_is_asked_for(reviewer: Reviewer, rules: list[dict[str, Any]] | None) -> None:
    """A role that was made for fewer workers has some of them, and not every authorizer lists what it allows."""
    reviewer.rules, reviewer.names = rules, PODS[:-2]
    events = Grant(NAMESPACE, "", "events", ("watch",))
    assert reviewer.lacking(LISTS, PATCHES, events) == (
        "namespace matrix: we may not patch pods sync-498, sync-499",
        "namespace matrix: we may not watch events",
    )


def test_of_500_pods_whose_names_are_listed_nothing_else_is_asked(reviewer: Reviewer) -> None:
    reviewer.rules = [*LISTED, _patching(*PODS)]
    assert reviewer.lacking(LISTS, PATCHES) == ()
    assert len(reviewer.server.asked) == 1


def test_who_is_thorough_asks_about_one_name_of_each(reviewer: Reviewer) -> None:
    reviewer.rules, reviewer.names = [*LISTED, _patching(*PODS)], PODS
    assert reviewer.lacking(LISTS, PATCHES, thorough=True) == ()
    assert reviewer.reviewed == [("list", ""), ("patch", "sync-0")]


def test_what_is_listed_and_forbidden_all_the_same_is_found_by_who_is_thorough(reviewer: Reviewer) -> None:
    """An authorizer before RBAC may deny, and lists nothing of it."""
    reviewer.rules, reviewer.verbs, reviewer.names = [*LISTED, _patching(*PODS)], set(), PODS[1:]
    refused = ("namespace matrix: we may not list pods", "namespace matrix: we may not patch pods sync-0")
    assert reviewer.lacking(LISTS, PATCHES, thorough=True) == refused


def test_who_may_do_it_with_any_pod_is_asked_about_none_by_name(reviewer: Reviewer) -> None:
    reviewer.verbs = {"list", "patch"}
    assert reviewer.lacking(LISTS, PATCHES) == ()
    assert reviewer.reviewed == [("list", ""), ("patch", "")]


def test_what_a_whole_list_lacks_is_not_asked_for_by_name(reviewer: Reviewer) -> None:
    reviewer.rules, reviewer.are_all = [*LISTED, _patching(*PODS[:-2])], True
    assert reviewer.lacking(LISTS, PATCHES) == ("namespace matrix: we may not patch pods sync-498, sync-499",)
    assert reviewer.reviewed == [("patch", "")]


def test_nothing_is_refused_for_not_being_listed_alone(reviewer: Reviewer) -> None:
    """Even of a list that is said to be whole."""
    reviewer.are_all = True
    assert reviewer.lacking(LISTS) == ()
    assert reviewer.reviewed == [("list", "")]


@pytest.mark.parametrize(
    ("resource", "allows"),
    [("pods/eviction", True), ("*/eviction", True), ("*", True), ("pods", False), ("pods/*", False), ("*/log", False), ("*/", False)],
)
def test_rule_allows_a_subresource_as_kubernetes_says(reviewer: Reviewer, resource: str, *, allows: bool) -> None:
    reviewer.rules, reviewer.are_all = [{"verbs": ["create"], "apiGroups": [""], "resources": [resource]}], True
    assert (reviewer.lacking(Grant(NAMESPACE, "", "pods/eviction", ("create",), PODS)) == ()) is allows


@pytest.mark.parametrize(
    ("part", "its", "allows"),
    [
        ("verbs", ["*"], True),
        ("verbs", ["get"], False),
        ("apiGroups", ["*"], True),
        ("apiGroups", ["apps"], False),
        ("resources", ["*"], True),
        ("resources", ["pods/status"], False),
        ("resourceNames", ["sync-0"], False),
    ],
)
def test_rule_allows_what_kubernetes_says_it_does(reviewer: Reviewer, part: str, its: list[str], *, allows: bool) -> None:
    reviewer.rules, reviewer.are_all, reviewer.verbs = [{**LISTED[0], part: its}], True, set()
    assert (reviewer.lacking(LISTS) == ()) is allows
