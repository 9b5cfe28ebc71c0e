"""`pause`, `continue`, `skip`, `preflight`, `observe` and `gate`, on two simulated workers in real time."""

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import Result

from rollout.interfaces.cli import measuring
from rollout.model.event import DeployResumed, Outcome, StepBegan
from rollout.model.ids import WorkerId
from tests.interfaces.homeserver import Homeserver
from tests.interfaces.test_cli import versions

WAIT_S = 30.0
CLIENT1, CLIENT2 = WorkerId("client1"), WorkerId("client2")


def _deploy_while(site: Homeserver, step: str, *arguments: str) -> tuple[Result, int]:
    """Roll out, and say something from another thread when *step* has begun; return the rollout and the other command's exit code."""

    def say() -> int:
        _wait(lambda: _has_begun(site, step))
        places = ("--inventory", str(site.inventory), "--journal", str(site.directory / "journal.db"))
        try:
            return int(site.command.main([arguments[0], *places, *arguments[1:]], "rollout", standalone_mode=False) or 0)
        except SystemExit as ended:
            return int(ended.code or 0)

    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(say)
        rollout = site.run("deploy", "--to", "2.0.0", "--yes")
        return rollout, said.result(WAIT_S)


def _has_begun(site: Homeserver, step: str) -> bool:
    lines = site.journal.deploys("simulated.localhost", 1)
    events = site.journal.events(lines[0].deploy_id) if lines else []
    return any(isinstance(event, StepBegan) and event.step_id == step for _, event in events)


def _wait(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def _all_in(site: Homeserver) -> bool:
    return all(worker.admitted and worker.weight == 100 for worker in site.stage.world.workers.values())


def test_a_pause_ends_with_the_worker_that_is_out_and_continue_goes_on(site: Homeserver) -> None:
    rollout, said = _deploy_while(site, "client1/drain", "pause")
    assert (rollout.exit_code, said) == (7, 7), rollout.output
    assert {worker: it.runs.partition("-")[0] for worker, it in site.stage.world.workers.items()} == {CLIENT1: "2.0.0", CLIENT2: "1.0.0"}
    assert _all_in(site)
    assert "paused on request" in site.run("why").output
    assert "rollout continue" in site.run("why").output

    done = site.run("continue")

    assert done.exit_code == 0, done.output
    assert versions(site) == {"2.0.0"}
    assert site.stage.world.cuts == {}


def test_a_worker_that_is_skipped_is_left_as_it_is_and_the_end_says_so(site: Homeserver) -> None:
    rollout, said = _deploy_while(site, "client1/drain", "skip", "client2", "--why", "its disk is being replaced")
    assert (rollout.exit_code, said) == (0, 0), rollout.output
    assert site.stage.world.workers[CLIENT2].runs == site.stage.old.id
    assert "client2 was skipped (its disk is being replaced)" in rollout.output


def test_a_worker_that_is_out_can_not_be_skipped(site: Homeserver) -> None:
    rollout, said = _deploy_while(site, "client1/restart", "skip", "client1", "--why", "in a hurry")
    assert (rollout.exit_code, said) == (0, 5), rollout.output
    assert versions(site) == {"2.0.0"}
    assert _all_in(site)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("pause",), 5, "was ever written down"),
        (("continue",), 5, "was ever written down"),
        (("skip", "client1", "--why", "x"), 5, "was ever written down"),
        (("skip", "client1"), 2, "--why"),
        (("gate", "nobody"), 2, "client1, client2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_word_that_makes_no_sense_says_so(site: Homeserver, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = site.run(*arguments)
    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_nothing_can_be_said_to_a_rollout_that_has_ended(site: Homeserver) -> None:
    assert site.run("deploy", "--to", "2.0.0", "--yes").exit_code == 0
    for arguments in (("pause",), ("continue",), ("skip", "client2", "--why", "late")):
        assert site.run(*arguments).exit_code == 5, arguments


def test_preflight_says_whether_a_rollout_could_begin_and_touches_nothing(site: Homeserver) -> None:
    done = site.run("preflight")
    assert done.exit_code == 0, done.output
    site.stage.world.drain(CLIENT1)
    refused = site.run("preflight", "--json")
    assert refused.exit_code != 0, refused.output
    assert "client1" in json.dumps(json.loads(refused.stdout))
    assert versions(site) == {"1.0.0"}


def test_a_gate_rules_by_what_was_observed_before(site: Homeserver) -> None:
    """Nothing kept: no ruling. Kept and as before: pass. Worse: fail. Nothing to measure: no ruling, and never a pass."""
    playbook = json.loads(site.playbook.read_text())
    playbook["gates"] = [{"id": "latency", "metric": "latency_p95_s", "ratio_max": 1.5, "samples_min": 5, "soak_s": 1, "deadline_s": 5}]
    site.playbook.write_text(json.dumps(playbook))
    assert site.run("gate", "--for", "1").exit_code == 7
    assert site.run("observe", "--for", "2").exit_code == 0
    passed = site.run("gate", "--for", "2")
    assert passed.exit_code == 0, passed.output
    assert "client1: latency pass" in passed.output
    site.stage.world.slow.add(site.stage.old.id)
    failed = site.run("gate", "--for", "2", "client1", "--json")
    assert failed.exit_code == 3, failed.output
    assert [verdict["ruling"] for verdict in json.loads(failed.stdout)["client1"]] == ["fail"]
    site.stage.world.dark.add(CLIENT1)
    assert site.run("gate", "--for", "1", "client1").exit_code == 7
    assert versions(site) == {"1.0.0"}


def test_who_has_no_gate_is_told_of_and_has_no_ruling_if_it_was_named(site: Homeserver) -> None:
    """Of all of them the others' rulings are the answer; whoever asks for one by name must not read 0 as a pass of it."""
    inventory = json.loads(site.inventory.read_text())
    inventory["workers"]["client2"]["role"] = "event_persister"
    site.inventory.write_text(json.dumps(inventory))
    playbook = json.loads(site.playbook.read_text())
    site.playbook.write_text(json.dumps(playbook | {"liveness_only": ["event_persister"]}))
    everybody = site.run("gate", "--for", "2")
    assert everybody.exit_code == 0, everybody.output
    assert "client1: errors pass" in everybody.stdout
    assert "client2: no gate looks at it" in everybody.stdout.splitlines()
    named = site.run("gate", "--for", "2", "client1", "--worker", "client2", "--json")
    assert named.exit_code == 7, named.output
    values = json.loads(named.stdout)
    assert [verdict["ruling"] for verdict in values["client1"]] == ["pass"]
    assert values["client2"] == []


def test_what_a_gate_lacks_is_said_while_it_measures(site: Homeserver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every half minute in the real world; to stderr, so that what programs read is only the rulings."""
    monkeypatch.setattr(measuring, "SAMPLE_S", 0.5)
    monkeypatch.setattr(measuring, "_PROGRESS_EVERY_S", 0.4)
    playbook = json.loads(site.playbook.read_text())
    playbook["gates"] = [{"id": "errors", "metric": "error_ratio", "max": 0.02, "samples_min": 100_000, "deadline_s": 60}]
    site.playbook.write_text(json.dumps(playbook))
    done = site.run("gate", "--for", "3", "client1")
    assert done.exit_code == 7, done.output
    assert re.search(r"measuring for another .*\n  client1: errors pending: it has \d+ of the 100000 requests needed\n", done.stderr)
    assert done.stdout.count("\n") == 1


def _with_time(site: Homeserver, *arguments: str) -> Result:
    return site.run(*arguments)


@pytest.mark.parametrize("step", ["client1/drain", "client1/restart", "client1/admit", "client2/drain"])
def test_who_takes_over_goes_on_and_the_other_does_nothing_more(site: Homeserver, step: str) -> None:
    """Both write into one journal: it stays one line of events, which can be read to its end."""
    rollout, said = _deploy_while(site, step, "resume", "--take-over")
    assert (rollout.exit_code, said) == (130, 0), rollout.output
    assert "interrupted: somebody else has taken over" in rollout.output
    assert "to see what they do: rollout status" in rollout.output
    assert "what next" not in rollout.output
    assert versions(site) == {"2.0.0"}
    assert _all_in(site)
    assert site.stage.world.cuts == {}
    line = site.journal.deploys("simulated.localhost", 1)[0]
    assert line.outcome is Outcome.DEPLOYED
    taken = [event for _, event in site.journal.events(line.deploy_id) if isinstance(event, DeployResumed)]
    assert [event.token for event in taken] == [2]
    assert "deploy 2.0.0" in taken[0].taken_from


def test_who_does_not_take_over_is_refused_and_told_by_whom(site: Homeserver) -> None:
    rollout, said = _deploy_while(site, "client1/drain", "resume")
    assert (rollout.exit_code, said) == (0, 5), rollout.output


@pytest.mark.parametrize(("arguments", "code"), [(("abort",), 3), (("abort", "--take-over"), 130), (("rollback", "--take-over"), 130)])
def test_a_stop_is_asked_for_or_taken(site: Homeserver, arguments: tuple[str, ...], code: int) -> None:
    """Asked, the process that runs it makes safe; taken over, whoever took it does."""
    # It hears within a second.
    site.stage.world.session_life_s = 4.0
    rollout, said = _deploy_while(site, "client1/drain", *arguments)
    assert (rollout.exit_code, said) == (code, 0 if arguments[0] == "rollback" else 3), rollout.output
    assert versions(site) == {"1.0.0"}
    assert _all_in(site)
    assert site.stage.world.cuts == {}
