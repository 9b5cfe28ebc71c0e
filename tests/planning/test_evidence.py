"""What gates a worker has, and over how many of them the budget of false alarms is spent."""

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest

from rollout.model.gate import PUSHES_FROM_S
from rollout.model.ids import GateId, Role, WorkerId
from rollout.model.plan import Step, Verb, steps_of
from rollout.model.playbook import GateEntry, Playbook
from rollout.planning.digest import digest_of_playbook
from rollout.planning.evidence import behind_proxies, gates_of, heeded, resolved, spent, spent_on
from tests.simulation.stages import PLAYBOOK, seven_workers

ROLES = {worker.id: worker.role for worker in seven_workers().plan(PLAYBOOK).workers}


def _entry(name: str, metric: str, **more: Any) -> GateEntry:  # noqa: ANN401  (any field of an entry)
    return GateEntry.model_validate({"id": name, "metric": metric, "test": "sequential", **more})


def _playbook(*entries: GateEntry, **more: Any) -> Playbook:  # noqa: ANN401  (any field of a playbook)
    return PLAYBOOK.model_copy(update={"gates": entries, **more})


def _soak(*gates: str) -> Step:
    plan = seven_workers().plan(PLAYBOOK)
    step = next(step for step in steps_of(plan.phases) if step.verb is Verb.SOAK)
    return replace(step, gates=tuple(map(GateId, gates)))


def test_the_budget_is_shared_by_all_tests_of_a_rollout() -> None:
    """Thirty workers with two gates each are sixty tests, and two for all together: at 1 %, each may be wrong once in 24,800."""
    gates = {entry.id: resolved(entry) for entry in (_entry("a", "latency_p95_s"), _entry("b", "error_ratio"))}
    gates[GateId("c")] = resolved(GateEntry.model_validate({"id": "c", "metric": "error_ratio", "max": 0.1}))
    found = spent(gates, [_soak("a", "b", "c")] * 30, ROLES, 0.01)
    assert {name: gate.odds for name, gate in found.items()} == {"a": pytest.approx(24_800), "b": pytest.approx(24_800), "c": None}
    assert found[GateId("c")] == gates[GateId("c")]


def test_a_gate_that_nobody_has_costs_nothing() -> None:
    gates = {GateId("a"): resolved(_entry("a", "latency_p95_s"))}
    assert spent(gates, [], ROLES, 0.05)[GateId("a")].odds == pytest.approx(80)
    assert spent(gates, [_soak("a")] * 3, ROLES, 0.05)[GateId("a")].odds == pytest.approx(320)


def test_who_is_asked_outside_a_rollout_has_the_odds_of_one() -> None:
    """A client by two gates, each of them also of all clients together: four tests. That one doesn't act makes no difference."""
    gates = {entry.id: resolved(entry) for entry in (_entry("a", "latency_p95_s"), _entry("b", "error_ratio", act=False))}
    gates[GateId("c")] = resolved(GateEntry.model_validate({"id": "c", "metric": "error_ratio", "max": 0.1}))
    found = spent_on([(WorkerId("client1"), name) for name in gates], gates, ROLES, 0.01)
    assert {name: gate.odds for name, gate in found.items()} == {"a": pytest.approx(1600), "b": pytest.approx(1600), "c": None}


def test_a_plan_spends_the_budget_of_its_playbook() -> None:
    """Six tests: the two clients, by two gates each, and by each both together. A quarter of a budget of 2 % makes it 1,200."""
    entries = [_entry(name, metric, roles=["client"]) for name, metric in (("latency", "latency_p95_s"), ("errors", "error_ratio"))]
    playbook = _playbook(*entries, false_alarms=0.02, liveness_only=(*PLAYBOOK.liveness_only, Role("main")))
    assert [gate.odds for gate in seven_workers().plan(playbook).gates.values()] == pytest.approx([1200, 1200])


def test_a_role_is_not_shown_to_be_well_by_what_does_not_act() -> None:
    """It has the gate all the same, which rules and is told of."""
    playbook = _playbook(_entry("silent", "error_ratio", act=False), _entry("loud", "latency_p95_s", roles=["client"]))
    assert gates_of(Role("client"), playbook, proxied=True) == ("silent", "loud")
    assert heeded(Role("client"), playbook, proxied=True) == ("loud",)
    assert (gates_of(Role("main"), playbook, proxied=True), heeded(Role("main"), playbook, proxied=True)) == (("silent",), ())


def test_the_schema_lets_a_sequential_gate_be_without_a_threshold_and_no_other() -> None:
    """As an editor reads it: one of three is required."""
    schema = json.loads((files("rollout") / "schemas" / "playbook.schema.json").read_text(encoding="utf-8"))
    gate = schema["$defs"]["GateEntry"]
    assert gate["anyOf"][:2] == [{"required": ["ratio_max"]}, {"required": ["max"]}]
    (sequential,) = gate["anyOf"][2:]
    assert sequential["properties"] == {"test": {"const": "sequential"}}
    assert sequential["required"] == ["test"]


def test_who_stands_behind_no_proxy_shows_nothing_there() -> None:
    """A gate without samples would pause the rollout; who has no other is not shown to be well."""
    playbook = _playbook(_entry("cuts", "proxy_failure_ratio"))
    assert gates_of(Role("main"), playbook, proxied=True) == heeded(Role("main"), playbook, proxied=True) == ("cuts",)
    assert gates_of(Role("main"), playbook, proxied=False) == ()
    assert gates_of(Role("event_persister"), playbook, proxied=True) == ()
    workers = seven_workers().plan(PLAYBOOK).workers
    assert behind_proxies(workers)[Role("client")]
    assert not behind_proxies([*workers, replace(workers[0], role=Role("client"), pool=None)])[Role("client")]


@pytest.mark.parametrize(
    ("written", "deadline_s"),
    [
        ({"test": "sequential"}, 1200.0),
        ({"test": "threshold", "max": 0.1}, 600.0),
        ({"test": "sequential", "deadline_s": 90}, 90.0),
        ({"test": "threshold", "max": 0.1, "deadline_s": 90}, 90.0),
        ({"metric": "push_failure_ratio", "test": "threshold", "max": 0.1}, 1000.0),
    ],
)
def test_evidence_that_adds_up_is_waited_for_as_long_as_caches_are_cold(written: dict[str, Any], deadline_s: float) -> None:
    """And who writes down what is meant anyway has the same playbook."""
    entry = _entry("errors", **{"metric": "error_ratio", **written})
    assert resolved(entry).deadline_s == deadline_s
    said = entry.model_copy(update={"deadline_s": deadline_s})
    assert digest_of_playbook(_playbook(said)) == digest_of_playbook(_playbook(entry))


@pytest.mark.parametrize(("soak_s", "soaks_s"), [(60.0, PUSHES_FROM_S), (700.0, 700.0)])
def test_who_pushes_is_watched_until_pushes_count(soak_s: float, soaks_s: float) -> None:
    """So that the forecast knows of it."""
    assert resolved(_entry("pushes", "push_failure_ratio", max=0.5, soak_s=soak_s)).soak_s == soaks_s
    assert resolved(_entry("errors", "error_ratio", max=0.5, soak_s=soak_s)).soak_s == soak_s
