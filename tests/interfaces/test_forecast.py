"""What the command line says of how long it takes: before, with and without earlier rollouts, and after."""

import json

from rollout.model import codec
from rollout.model.ids import StepId
from tests.interfaces.homeserver import Homeserver


def test_the_second_plan_knows_the_first_rollout(site: Homeserver) -> None:
    """Half a second's drain was expected to take thirty; after one rollout the forecast is nearer to that, and says why."""
    before = site.run("plan", "--restart")
    assert before.exit_code == 0, before.output
    assert "assuming 30 s × n ÷ (n + 1) to drain n sessions" in " ".join(before.output.split())
    assert site.run("deploy", "--restart", "--yes").exit_code == 0
    after = site.run("plan", "--restart")
    assert "as in the last rollout: drains, boots, recovery, preparation" in " ".join(after.output.split())
    first, second = (codec.load_plan(done).forecast.steps[StepId("client1/drain")] for done in _plans(site))
    assert second.mean_s < 0.6 * first.mean_s


def _plans(site: Homeserver) -> tuple[str, str]:
    """Plan without and with what happened."""
    known = site.run("plan", "--restart", "--json").output
    unknown = site.run("plan", "--restart", "--json", "--journal", str(site.directory / "another.db")).output
    return unknown, known


def test_without_a_journal_there_is_a_plan_all_the_same(site: Homeserver) -> None:
    """A state directory that can't be made costs the history, and is said; a journal that was named by hand must be there."""
    nowhere = site.directory / "file"
    nowhere.write_text("")
    site.environment = {"XDG_STATE_HOME": str(nowhere), "ROLLOUT_JOURNAL": ""}
    done = site.run("plan", "--restart")
    assert done.exit_code == 0, done.output
    assert "nothing is known of earlier rollouts" in done.output
    assert "9 of 10 within" in done.output
    assert site.run("plan", "--restart", "--journal", str(nowhere / "journal.db")).exit_code == 5


def test_a_score_is_kept_for_programs(site: Homeserver) -> None:
    """What varied and what was fixed make up the whole."""
    assert site.run("deploy", "--restart", "--yes").exit_code == 0
    (told,) = json.loads(site.run("history", "--json").output)
    score = told["forecast"]
    assert score["fixed"]["took_s"] + score["variable"]["took_s"] == score["whole"]["took_s"]
    assert set(score["parts"]) == {"preparation", "drains", "boots", "recovery", "survey and watch"}
    assert score["left_out"] == {}
