"""Where the journal is kept: what people are told of it, what is deleted, and how a rollout is taken up from one that is unlike others."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from rollout.adapters.journal.sql import SqlJournal
from rollout.deciding.state import DECISION_VERSION
from rollout.interfaces.cli import cli, keeping
from rollout.model.event import Command, DeployBegan, DeployFinished, DeployResumed, Event, OperatorSpoke, Outcome
from rollout.model.ids import DeployId, EffectNumber
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook
from rollout.ports.journal import Baseline, DeployLine, Keeping, dispensable
from rollout.simulation.rehearse import Stage
from tests.interfaces.homeserver import PLAYBOOK, Homeserver

ONE = DeployId("d-1")
DAY_S = 86_400.0
NUMBERS = itertools.count(1)


def plan_of(stage: Stage) -> Plan:
    return stage.plan(Playbook.model_validate(PLAYBOOK))


def begun(site: Homeserver, at_s: float, version: int = DECISION_VERSION, deploy_id: DeployId = ONE, more: Sequence[Event] = ()) -> None:
    """Write down a rollout whose process died right after its first line."""
    plan = plan_of(site.stage)
    site.journal.begin(deploy_id, plan, DeployBegan(at_s, deploy_id, plan.digest, version, "ada@host", EffectNumber(0)))
    site.journal.append(deploy_id, more)


def versions(site: Homeserver) -> set[str]:
    return {site.stage.world.releases[worker.runs].version for worker in site.stage.world.workers.values()}


def test_a_journal_from_the_future_is_taken_up_at_once(site: Homeserver) -> None:
    """
    The clock was set back by an hour between the crash and now: the rollout's time goes on from its last line.

    Its lines never go back, and it takes as long as it takes, not an hour more.
    """
    ahead_s = time.time() + 3600
    begun(site, ahead_s)
    done = site.run("resume")
    assert done.exit_code == 0, done.output
    assert versions(site) == {"2.0.0"}
    times = [event.at_s for _, event in site.journal.events(ONE)]
    assert times == sorted(times)
    assert ahead_s <= times[-1] < ahead_s + 120


def test_other_decision_code_takes_over_only_when_it_is_told_from_which(site: Homeserver) -> None:
    """
    The refusal names the number; another number is refused as well, and nothing is touched or written.

    What takes over writes both versions down, and goes on by itself the next time.
    """
    other = DECISION_VERSION + 7
    begun(site, time.time(), other)
    for arguments in (("resume",), ("abort",), ("rollback",), ("resume", "--accept-version", str(other + 1))):
        refused = site.run(*arguments)
        assert refused.exit_code == 5, refused.output
        assert f"--accept-version {other}" in refused.output
    assert len(site.journal.events(ONE)) == 1
    # To look at it, anybody may.
    assert site.run("why").exit_code == 0
    assert site.run("status").exit_code == 0
    done = site.run("resume", "--accept-version", str(other))
    assert done.exit_code == 0, done.output
    assert f"what version {other} of the decision code began, version {DECISION_VERSION} goes on with" in done.output
    resumed = next(event for _, event in site.journal.events(ONE) if isinstance(event, DeployResumed))
    assert (resumed.decision_version, resumed.accepted_version) == (DECISION_VERSION, other)


@pytest.mark.parametrize(("command", "outcome"), [("abort", "aborted"), ("rollback", "rolled_back_on_request")])
def test_what_other_decision_code_began_can_be_ended(site: Homeserver, command: str, outcome: str) -> None:
    """By its number as well."""
    begun(site, time.time(), 1)
    done = site.run(command, "--accept-version", "1")
    assert site.run("history", "--json").output.count(f'"outcome": "{outcome}"') == 1, done.output
    assert versions(site) == {"1.0.0"}


def test_what_was_accepted_once_is_taken_up_again_without_a_word(site: Homeserver) -> None:
    """A second crash, and the code that had taken over by then."""
    at_s = time.time()
    begun(site, at_s, 1, more=[DeployResumed(at_s, DECISION_VERSION, "bob@host", EffectNumber(0), 1)])
    assert site.run("resume").exit_code == 0


@pytest.mark.parametrize("name", ["CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL"])
def test_a_job_of_ci_is_told_that_its_journal_goes_with_its_runner(site: Homeserver, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Preflight says it, and is no less content."""
    assert "runner" not in site.run("preflight").output
    monkeypatch.setenv(name, "true")
    checked = site.run("preflight")
    assert checked.exit_code == 0, checked.output
    assert "goes with" in checked.output
    monkeypatch.setenv(name, "false")
    assert "runner" not in site.run("preflight").output


def test_before_a_rollout_it_is_told_with_what_to_do(site: Homeserver, monkeypatch: pytest.MonkeyPatch) -> None:
    """About it, and without it; the rollout goes on."""
    monkeypatch.setenv("CI", "1")
    said = site.run("deploy", "--restart", "--yes")
    assert said.exit_code == 0, said.output
    told, _, _ = said.output.partition("begins, by")
    assert "the journal is a file on a CI runner" in told
    assert "--journal postgresql://" in told
    assert "a new `rollout deploy` start from what they find" in told


def test_a_journal_elsewhere_outlives_the_job() -> None:
    """Nothing is said of a server's."""
    assert keeping.concerns(Keeping(None, "postgresql://h/d", 0), {"CI": "true"}) == []


def test_a_large_journal_is_said_to_be_one(site: Homeserver, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that makes it smaller, before a rollout."""
    monkeypatch.setattr(keeping, "SIZE_NOTED_BYTES", 1000)
    said = site.run("deploy", "--restart", "--yes").output
    assert "rollout history --prune 100" in said


@pytest.mark.parametrize(
    ("place", "refused"),
    [
        ("postgresql://alice:sesame@host/db", True),
        ("postgresql+psycopg://alice:sesame@host:5432/db", True),
        ("postgresql://host/db?user=alice&password=sesame", True),
        ("postgresql://alice@host.invalid:1/db", False),
        ("env:NO_SUCH_PLACE", False),
    ],
)
def test_a_password_on_the_command_line_is_refused(site: Homeserver, place: str, *, refused: bool) -> None:
    """Others can read it there. It is not repeated."""
    done = CliRunner().invoke(cli, ["history", "-i", str(site.inventory), "--journal", place])
    assert ("can read a password there" in done.output) is refused
    assert done.exit_code in ({2} if refused else {2, 5})
    assert "sesame" not in done.output


def test_a_journal_is_named_by_a_secret(site: Homeserver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`env:NAME` and `file:PATH` hold what else would stand there."""
    place = f"sqlite:///{tmp_path}/secret.db"
    monkeypatch.setenv("JOURNAL_URL", place)
    (tmp_path / "url").write_text(f"{place}\n")
    begun(site, time.time())
    for reference in ("env:JOURNAL_URL", f"file:{tmp_path}/url"):
        done = CliRunner().invoke(cli, ["history", "-i", str(site.inventory), "--journal", reference])
        assert (done.exit_code, "ever written down here" in done.output) == (0, True)
    assert (tmp_path / "secret.db").exists()


def finished(site: Homeserver, count: int, now_s: float) -> None:
    """Write down rollouts of one day after the other, the last one today."""
    for number in range(count):
        at_s = now_s - (count - 1 - number) * DAY_S
        begun(site, at_s, deploy_id=DeployId(f"d-{number}"), more=[DeployFinished(at_s + 60, Outcome.DEPLOYED, "")])


def test_old_rollouts_are_deleted_when_somebody_says_so(site: Homeserver) -> None:
    """By number or by age; what is deleted is said, and nothing is deleted by itself."""
    now_s = time.time()
    finished(site, 6, now_s)
    for day in range(10):
        site.journal.keep_baseline(Baseline("simulated.localhost", now_s - day * DAY_S, {}))
    by_number = site.run("history", "--prune", "4").output
    assert "d-0" in by_number
    assert "d-1" in by_number
    # A day before the oldest that is kept: that one was compared with it.
    assert "deleted: 2 rollouts and 5 baselines; kept: 4 rollouts" in by_number
    by_age = site.run("history", "--prune", "2d").output
    assert "deleted: 1 rollouts and 3 baselines; kept: 3 rollouts" in by_age
    assert [line.deploy_id for line in site.journal.deploys("simulated.localhost", 9)] == ["d-5", "d-4", "d-3"]
    assert "deleted: 0 rollouts" in site.run("history", "--prune", "3").output
    assert site.run("history", "--prune", "some").exit_code == 2


def test_a_rollout_that_has_not_ended_is_never_deleted() -> None:
    """Nor one that paused, nor the newest, whatever is asked."""

    def line(name: str, outcome: Outcome | None, ended_s: float | None) -> DeployLine:
        return DeployLine(DeployId(name), "h", ("1",), "2", 0.0, ended_s, outcome)

    lines = [
        line("newest", Outcome.DEPLOYED, 1.0),
        line("crashed", None, None),
        line("paused", Outcome.PAUSED, 1.0),
        line("interrupted", Outcome.INTERRUPTED, 1.0),
        line("ended", Outcome.ROLLED_BACK, 1.0),
    ]
    assert [one.deploy_id for one in dispensable(lines, 1, None)] == ["ended"]
    assert [one.deploy_id for one in dispensable(lines, None, 1e9)] == ["ended"]
    assert dispensable(lines, 5, None) == dispensable(lines, None, 0.5) == ()


def test_what_is_kept_because_it_has_not_ended_is_named(site: Homeserver) -> None:
    now_s = time.time()
    begun(site, now_s - 9 * DAY_S, deploy_id=DeployId("d-crashed"))
    finished(site, 3, now_s)
    said = site.run("history", "--prune", "1").output
    assert "kept, because they have not ended: d-crashed" in said
    assert "deleted: 2 rollouts" in said


def test_deleting_gives_room_back_to_the_disk(site: Homeserver) -> None:
    """A file does not stay as large as it once was."""
    journal = site.journal
    assert isinstance(journal, SqlJournal)
    now_s = time.time()
    begun(site, now_s, more=[OperatorSpoke(now_s, Command.CONTINUE, "ada", "x" * 1000) for _ in range(3000)])
    begun(site, now_s + 1, deploy_id=DeployId("d-2"))
    site.journal.append(ONE, [DeployFinished(now_s + 9, Outcome.DEPLOYED, "")])
    before = site.journal.keeping().size_bytes
    assert before > 3_000_000
    assert "deleted: 1 rollouts" in site.run("history", "--prune", "1").output
    assert site.journal.keeping().size_bytes < before / 10
