"""A profile is what a playbook says of all that it doesn't say itself."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rollout.adapters.documents.read import read_playbook
from rollout.homeservers.synapse.canaries import bought_path
from rollout.homeservers.synapse.roles import ROLE_ORDER, evidence_of
from rollout.model.playbook import Playbook
from rollout.model.profiles import SMALL, completed

ROOT = Path(__file__).parents[2]


def _small(**written: Any) -> Playbook:  # noqa: ANN401  (whatever stands in a file)
    return Playbook.model_validate(completed({"name": "small", "profile": "small", **written}))


def test_one_line_is_enough() -> None:
    small = _small()
    assert small.canary_requests is not None
    assert (small.canary_requests.per_s, small.baseline.baseline_s, small.watch.watch_s) == (1.0, 300, 900)
    assert {gate.test for gate in small.gates} == {"sequential"}


def test_what_a_playbook_says_itself_wins_key_by_key() -> None:
    small = _small(canary_requests={"per_s": 0.2}, watch={"watch_s": 60}, false_alarms=0.05)
    assert small.canary_requests is not None
    assert (small.canary_requests.per_s, small.canary_requests.cpu_max) == (0.2, SMALL["canary_requests"]["cpu_max"])
    assert (small.watch.watch_s, small.watch.window_s, small.false_alarms) == (60, 120, 0.05)


def test_a_list_is_taken_as_it_stands_and_nothing_is_a_word_too() -> None:
    small = _small(gates=[{"id": "errors", "metric": "error_ratio", "max": 0.01}], canary_requests=None)
    assert [gate.id for gate in small.gates] == ["errors"]
    assert small.canary_requests is None


def test_what_is_complete_stays_as_it_is() -> None:
    """A plan keeps its whole playbook, with its profile's name."""
    small = _small(baseline={"baseline_s": 7})
    again = Playbook.model_validate(completed(small.model_dump(mode="json")))
    assert again == small


@pytest.mark.parametrize(
    "written", [None, [], "small", {"name": "x"}, {"name": "x", "profile": "tiny"}, {"name": "x", "profile": ["small"]}]
)
def test_whatever_names_no_profile_comes_back_as_it_was(written: object) -> None:
    assert completed(written) == written


@pytest.mark.parametrize("role", ROLE_ORDER)
def test_every_role_is_asked_and_judged_or_may_be_alive_alone(role: str) -> None:
    small = _small()
    judged = [gate for gate in small.gates if role in gate.roles]
    assert bool(judged) == (bought_path(role, 1) is not None) == (role not in small.liveness_only)  # type: ignore[arg-type]
    assert all(gate.metric in evidence_of(role) for gate in judged)  # type: ignore[arg-type]


def test_the_commented_playbook_is_one_line_and_says_what_it_means() -> None:
    """Whoever takes a comment's mark away has what they had before."""
    text = (ROOT / "playbooks/synapse-small.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == {"name": "synapse-small", "profile": "small"}
    assert read_playbook(ROOT / "playbooks/synapse-small.yaml") == _small(name="synapse-small")
    lines = text[text.index("# canary_requests:") : text.index("# liveness_only:")].splitlines()
    shown = yaml.safe_load("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines))
    common = {"test": "sequential", "samples_min": 150, "soak_s": 120, "deadline_s": 1200}
    assert "samples_min: 150, soak_s: 120, deadline_s: 1200" in text
    shown["gates"] = [{**gate, **common} for gate in shown["gates"]]
    assert shown == {name: SMALL[name] for name in ("canary_requests", "baseline", "gates", "guards", "watch")}
