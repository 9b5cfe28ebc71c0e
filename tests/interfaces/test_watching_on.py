"""`--watch detached`, as real processes: who watches on, what reaches it, and what becomes of the rollout when it dies."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.deciding.agenda import agenda_of
from rollout.deciding.state import DECISION_VERSION
from rollout.interfaces.cli import watching_on
from rollout.interfaces.cli.watching_on import Again, Handover
from rollout.model.event import Command, DeployFinished, DeployResumed, GateRuled, OperatorSpoke, Outcome, RollbackBegan
from rollout.model.gate import Ruling
from rollout.model.plan import Plan
from tests.deciding.rolled import CLIENT1, rolled
from tests.interfaces.homeserver import Homeserver
from tests.interfaces.served import Said, Served, served
from tests.interfaces.test_keeping import ONE, begun

DETACHED = ("--watch", "detached")
# Longer than any test takes.
LONG_S = 3000.0


@pytest.fixture
def long_watch(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, LONG_S) as site:
        yield site
        _end(site)


def _end(site: Served) -> None:
    """Leave no process behind, whatever has failed."""
    for event in site.events(site.line().deploy_id):
        if isinstance(event, DeployResumed) and event.detached and (lease := site.lease()).held and lease.pid != os.getpid():
            try:
                os.kill(lease.pid, signal.SIGKILL)
            except ProcessLookupError:
                return


def _is_watched(site: Served, said: Said) -> int:
    """Check that a process of its own watches, and return its number."""
    assert said.code == 8, said.text + site.logs()
    lease = site.lease()
    assert (lease.held, lease.free, lease.host) == (True, False, socket.gethostname())
    assert lease.why == f"watching on over rollout {site.line().deploy_id}, in which every worker that was rolled has passed"
    assert f"that it is deployed is not said yet: process {lease.pid} on {lease.host} watches on until " in said.text
    assert site.line().outcome is None
    return lease.pid


def test_a_late_failure_is_taken_back_by_whoever_watches_on(long_watch: Served) -> None:
    """Nobody is at the terminal any more. Meanwhile it is shown who watches, and nobody else rolls this homeserver."""
    site = long_watch
    pid = _is_watched(site, site.run("deploy", "--restart", "--yes", *DETACHED))
    old = site.journal.plan(site.line().deploy_id).from_releases
    shown = site.run("status").text
    assert f"on {socket.gethostname()} (process {pid}) since " in shown
    assert "everybody has passed and is watched until " in shown
    assert json.loads(site.run("status", "--json").text)["rollout"]["watched_until_s"] > time.time()
    refused = site.run("deploy", "--restart", "--yes")
    assert refused.code == 5, refused.text
    assert f"(process {pid})" in refused.text
    assert "watching on over rollout" in refused.text

    site.stage.world.erring[site.journal.plan(site.line().deploy_id).to_release.id] = 0.5
    site.wait(lambda: site.line().outcome is not None)

    assert site.line().outcome is Outcome.ROLLED_BACK, site.logs()
    events = site.events(site.line().deploy_id)
    assert any(isinstance(event, GateRuled) and event.verdict.ruling is Ruling.FAIL for event in events)
    assert any(isinstance(event, RollbackBegan) and "had passed, but then failed errors" in event.why for event in events)
    assert {worker: site.stage.world.workers[worker].runs for worker in old} == old
    site.wait(lambda: not site.lease().held)
    assert "rolled back" in site.logs()


def test_who_dies_is_followed_and_who_is_asked_hears(long_watch: Served) -> None:
    """Killed, it leaves a rollout that anybody may resume, detached once more; that one hears a pause, and an abort ends it."""
    site = long_watch
    pid = _is_watched(site, site.run("deploy", "--restart", "--yes", *DETACHED))
    os.kill(pid, signal.SIGKILL)
    site.wait(lambda: site.lease().free)
    shown = site.run("status").text
    assert "whoever begins or resumes a rollout takes it" in shown
    assert "is watched until" not in shown
    assert "everybody had passed; nobody watches now: rollout resume" in shown
    assert json.loads(site.run("status", "--json").text)["rollout"]["watched_until_s"] is None

    again = _is_watched(site, site.run("resume", *DETACHED))
    assert again != pid
    paused = site.run("pause")
    assert paused.code == 7, paused.text
    assert site.line().outcome is Outcome.PAUSED
    site.wait(lambda: not site.lease().held)
    _is_watched(site, site.run("resume", *DETACHED))
    aborted = site.run("abort")
    # Every worker was restarted: a person has to say what is to become of them.
    assert aborted.code == 4, aborted.text
    assert "runs in another process, which is asked to abort" in aborted.text
    assert site.line().outcome is Outcome.HALTED
    spoken = [event.command for event in site.events(site.line().deploy_id) if isinstance(event, OperatorSpoke)]
    assert spoken == [Command.PAUSE, Command.ABORT]
    site.wait(lambda: not site.lease().held)


def test_a_good_release_is_called_deployed_when_the_watch_is_over(tmp_path: Path) -> None:
    """By the process that watches on: the command had not said so."""
    with served(tmp_path, 30.0) as site:
        said = site.run("deploy", "--restart", "--yes", *DETACHED)
        _is_watched(site, said)
        assert "\ndeployed" not in said.text
        site.wait(lambda: site.line().outcome is not None)
        assert site.line().outcome is Outcome.DEPLOYED, site.logs()
        site.wait(lambda: not site.lease().held)
        assert site.run("history").text.rstrip().endswith("deployed")


def test_an_inventory_that_cannot_be_read_again_is_refused(tmp_path: Path) -> None:
    with served(tmp_path, LONG_S) as site:
        os.mkfifo(tmp_path / "pipe")
        reading, writing = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK), os.open(tmp_path / "pipe", os.O_WRONLY)
        os.write(writing, (tmp_path / "inventory.yaml").read_bytes())
        os.close(writing)
        refused = site.run("deploy", "--restart", "--yes", "-i", str(tmp_path / "pipe"), *DETACHED)
        os.close(reading)
        assert refused.code == 5, refused.text
        assert "it is a pipe, and what was in it is gone" in refused.text
        assert site.journal.deploys("simulated.localhost", 1) == []


@pytest.mark.parametrize(("program", "said"), [("/nowhere/python", "no process can be begun that watches on"), ("/bin/false", "has ended")])
def test_a_process_that_can_not_begin_costs_nothing_but_a_line(
    site: Homeserver, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    """The command watches to the end itself, and says what it saw."""
    site.environment["XDG_STATE_HOME"] = str(site.directory / "state")
    monkeypatch.setattr(watching_on, "PROGRAM", (program,))
    done = site.run("deploy", "--restart", "--yes", *DETACHED)
    assert done.exit_code == 0, done.output
    assert said in done.output
    assert "this command goes on watching" in done.output
    assert site.journal.deploys("simulated.localhost", 1)[0].outcome is Outcome.DEPLOYED


def test_nothing_is_taken_up_detached_but_a_watch(site: Homeserver) -> None:
    """Somebody stopped the rollout while the process began; what was in the middle isn't gone on with behind anybody's back."""
    begun(site, time.time())
    refused = site.run("resume", "--watch-on", str(os.getpid()))
    assert refused.exit_code == 5, refused.output
    assert "is not in its last watch, or somebody has asked something of it" in refused.output
    assert not any(isinstance(event, DeployResumed) for _, event in site.journal.events(ONE))


def _handover(site: Homeserver, plan: Plan) -> Handover:
    how = Again((), os.environ, site.directory / "watch.log")
    return Handover(how, plan, site.stage.drivers.lease, print)


def test_who_was_skipped_is_named_in_the_last_words(site: Homeserver, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have passed nothing."""
    monkeypatch.setattr(watching_on, "PROGRAM", ("/bin/true",))
    plan, states = rolled()
    state = next(one for one in states if agenda_of(plan, one).watching)
    with _handover(site, plan) as handover:
        handover(
            DeployResumed(state.last_at_s, DECISION_VERSION, "ada@host", state.last_number), replace(state, skipped={CLIENT1: "flaky"})
        )
        said = handover.said(ONE)
    assert said.startswith("every worker has passed its gates; client1 was skipped (flaky); that it is deployed is not said yet: ")


@pytest.mark.parametrize(("outcome", "is_taken_up"), [(None, True), (Outcome.ROLLED_BACK, False), (Outcome.DEPLOYED, False)])
def test_what_has_ended_is_watched_by_nobody(
    site: Homeserver, monkeypatch: pytest.MonkeyPatch, outcome: Outcome | None, *, is_taken_up: bool
) -> None:
    """Though the process that ended it still lives, and holds the lease, for a moment."""
    monkeypatch.setattr(Handover, "is_done", lambda _: True)
    begun(site, time.time(), more=[] if outcome is None else [DeployFinished(time.time(), outcome, "")])
    handover = _handover(site, site.journal.plan(ONE))
    assert handover.has_taken_up(site.journal, ONE) is is_taken_up
