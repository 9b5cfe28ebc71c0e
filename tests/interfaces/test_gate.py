"""`rollout gate` for pipelines: what it is told, what it ends with, and when, on two simulated workers in real time."""

import json
import re
from pathlib import Path

import pytest

from rollout.interfaces.cli import measuring
from rollout.model.ids import GateId, WorkerId
from tests.interfaces.homeserver import Homeserver
from tests.simulation.stages import PLAYBOOK, seven_workers

CLIENT1, CLIENT2 = WorkerId("client1"), WorkerId("client2")
# They have twenty requests a second: of so bad ones a few seconds tell.
ERRORS = {"id": "errors", "metric": "error_ratio", "test": "sequential", "max": 0.5, "soak_s": 1, "deadline_s": 60}
NEVER = {"id": "never", "metric": "error_ratio", "max": 0.9, "samples_min": 100_000, "deadline_s": 60}


@pytest.fixture
def measured(site: Homeserver, monkeypatch: pytest.MonkeyPatch) -> Homeserver:
    """It was observed, and is measured twice a second."""
    monkeypatch.setattr(measuring, "SAMPLE_S", 0.5)
    assert site.run("observe", "--for", "3").exit_code == 0
    return site


def _gates(site: Homeserver, *gates: dict[str, object]) -> None:
    site.playbook.write_text(json.dumps(json.loads(site.playbook.read_text()) | {"gates": gates, "liveness_only": ["client"]}))


def test_sequential_gates_rule_as_the_issue_has_it(measured: Homeserver) -> None:
    """The playbook is an argument, and what the environment says of another one is forgotten."""
    _gates(measured, ERRORS)
    asked = ("gate", str(measured.playbook), "--worker", "client1", "--for")
    measured.environment["ROLLOUT_PLAYBOOK"] = "/nowhere/at/all.yaml"
    passed = measured.run(*asked, "4s")
    assert passed.exit_code == 0, passed.output
    assert re.fullmatch(r"client1: errors pass: the share of 5xx is 0 % .*: 1 against 50 %\n", passed.stdout)
    _gates(measured, ERRORS | {"max": 0.001})
    too_little = measured.run(*asked, "2s")
    assert too_little.exit_code == 7, too_little.output
    assert too_little.stdout.startswith("client1: errors pending: ")


def test_what_fails_ends_it_and_it_says_after_how_long(measured: Homeserver) -> None:
    _gates(measured, ERRORS, NEVER)
    measured.stage.world.erring[measured.stage.old.id] = 0.9
    failed = measured.run("gate", str(measured.playbook), "--worker", "client1", "--for", "5m", "--json")
    assert failed.exit_code == 3, failed.output
    said = json.loads(failed.stdout)["client1"]
    assert [(one["gate"], one["ruling"], one["acts"]) for one in said] == [("errors", "fail", True), ("never", "pending", True)]
    assert said[0]["evidence"]["observed"] > 0.5
    assert re.search(r"^failed after .*, so no more is measured: client1 errors$", failed.stderr, re.MULTILINE)
    # Well before the half minute is over at which it would say it again.
    assert failed.stderr.count("measuring for another") == 1


def test_what_does_not_act_is_told_and_changes_nothing(measured: Homeserver) -> None:
    """Neither its FAIL nor that it has no ruling: as in a rollout, nobody heeds it."""
    _gates(
        measured,
        {**ERRORS, "act": False},
        {**NEVER, "act": False},
        {"id": "latency", "metric": "latency_p95_s", "max": 30, "samples_min": 5, "soak_s": 1, "deadline_s": 60},
    )
    measured.stage.world.erring[measured.stage.old.id] = 0.9
    done = measured.run("gate", "--for", "3")
    assert done.exit_code == 0, done.output
    for worker in (CLIENT1, CLIENT2):
        assert f"{worker}: errors fail, which nobody heeds: the share of 5xx is " in done.stdout
        assert f"{worker}: never pending, which nobody heeds: it has " in done.stdout
        assert f"{worker}: latency pass: " in done.stdout
    assert "failed after" not in done.stderr
    assert "that acts" not in done.stdout


@pytest.mark.parametrize("named", [(), ("client1",)], ids=["everybody", "by_name"])
def test_where_nothing_acts_there_is_no_ruling(measured: Homeserver, named: tuple[str, ...]) -> None:
    """Not even if it passes: a rollout would pass such a worker for being alive, and only if the playbook says so."""
    _gates(measured, {**ERRORS, "act": False})
    done = measured.run("gate", *named, "--for", "4", "--json")
    assert done.exit_code == 7, done.output
    assert [(one["ruling"], one["acts"]) for one in json.loads(done.stdout)["client1"]] == [("pass", False)]
    assert "client1: no gate that acts looks at it\n" in measured.run("gate", *named, "--for", "1").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("clent1",),
            '"clent1", and no file of that name\n    there are client1, client2\n    try: client1, or the path of a playbook\n',
        ),
        (("no/such.yaml",), 'inventory.yaml: there is no worker "no/such.yaml", and no file of that name\n'),
        (("{directory}",), "and no file of that name\n"),
        (
            ("--worker", "{playbook}"),
            'playbook.yaml"\n    there are client1, client2\n    try: one of them\n',
        ),
        (("{playbook}", "{inventory}"), "one playbook is enough"),
        (("{playbook}", "-p", "{playbook}"), "one playbook is enough"),
        (("{inventory}",), "inventory.yaml:1:"),
    ],
    ids=["worker", "file", "directory", "option", "two", "both_ways", "no_playbook"],
)
def test_what_is_neither_worker_nor_playbook_is_refused(site: Homeserver, arguments: tuple[str, ...], said: str) -> None:
    """What it is, where it was looked for, and what to say instead."""
    places = {"playbook": site.playbook, "inventory": site.inventory, "directory": site.directory}
    done = site.run("gate", "--for", "1", *(argument.format(**places) for argument in arguments))
    assert (done.exit_code, said in done.stderr) == (2, True), done.output


def test_who_is_named_like_a_file_is_a_worker(site: Homeserver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "client1").write_text("no playbook")
    done = site.run("gate", "client1", "--for", "1")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("client1: errors pass: ")


def test_the_budget_is_spent_as_in_a_rollout() -> None:
    """What doesn't act counts, thresholds don't, and of a role all together are one test more."""
    gates = [*PLAYBOOK.model_dump()["gates"], ERRORS | {"id": "a"}, {**ERRORS, "id": "b", "act": False, "roles": ("client",)}]
    playbook = PLAYBOOK.model_validate(PLAYBOOK.model_dump() | {"gates": gates})
    stage = seven_workers()
    asked = measuring.asked(tuple(stage.inventory.workers), playbook, stage.inventory)
    planned = stage.plan(playbook).gates
    assert planned[GateId("a")].odds is not None
    assert {gate.id: gate for its in asked.values() for gate in its} == planned
