"""The command line, from options to exit codes, on a simulated homeserver in real time."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from rollout.interfaces.cli import COMMANDS, cli
from rollout.model.effect import FULL_WEIGHT, Effect
from rollout.model.errors import TransientDriverError
from rollout.model.ids import DeployId, EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.plan import Verb
from rollout.ports.lease import Claim
from tests.contracts.server import Says, serving
from tests.interfaces.homeserver import Homeserver

CLIENT1, CLIENT2 = WorkerId("client1"), WorkerId("client2")
HEAVY = {"pydantic", "sqlalchemy", "psycopg", "requests", "rich", "yaml", "prometheus_client", "aiohttp"}


def versions(site: Homeserver) -> set[str]:
    """Return what really runs."""
    return {site.stage.world.releases[worker.runs].version for worker in site.stage.world.workers.values()}


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom rollout.interfaces.cli import cli\n"
        "cli(['--help'], standalone_mode=False)\nprint(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    *text, modules = done.stdout.splitlines()
    assert all(any(line.strip().startswith(name) for line in text) for name in COMMANDS)
    assert HEAVY.isdisjoint(eval(modules))  # noqa: S307  (a list that was printed a moment ago)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0
    assert COMMANDS[name][1]


def test_check_says_what_it_checked(site: Homeserver) -> None:
    done = site.run("check")
    assert done.exit_code == 0, done.output
    assert "2 workers" in done.output


def test_output_that_cannot_be_written_is_said_in_one_line() -> None:
    """A full disk is no bug of ours, and no traceback."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rollout", "schema", "plan"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "rollout: the output can't be written: no space left on device\n")


def test_a_typing_error_is_found_with_its_line_and_touches_nothing(site: Homeserver) -> None:
    site.playbook.write_text("name: quick\nstrategy:\n  drain_timeout: 10\n")
    done = site.run("check")
    assert done.exit_code == 2
    assert "playbook.yaml:3" in done.output
    assert "drain_timeout" in done.output


def test_plan_says_why_and_touches_nothing(site: Homeserver) -> None:
    done = site.run("plan", "--to", "2.0.0")
    assert done.exit_code == 0, done.output
    assert "client1" in done.output
    assert "canary" in done.output
    assert versions(site) == {"1.0.0"}
    assert site.run("plan", "--to", "2.0.0", "--detailed-exitcode").exit_code == 6
    assert site.run("plan", "--to", "1.0.0", "--detailed-exitcode").exit_code == 0


class Stalled:
    """A driver whose *method* fails at its first call: the machine stood still."""

    def __init__(self, driver: object, method: str) -> None:
        self._driver = driver
        self._failing = {method}

    def __getattr__(self, name: str) -> object:
        if name in self._failing:
            self._failing.remove(name)
            return self._fail
        return getattr(self._driver, name)

    def _fail(self, *_: object) -> object:
        raise TransientDriverError("no answer in time")


@pytest.mark.parametrize(
    ("port", "method"), [("workers", "look"), ("traffic", "look"), ("releases", "activations"), ("releases", "prepared")]
)
def test_what_stood_still_for_a_moment_is_looked_at_again_before_a_plan_is_refused(site: Homeserver, port: str, method: str) -> None:
    drivers = site.stage.drivers
    site.stage.drivers = replace(drivers, **{port: Stalled(getattr(drivers, port), method)})  # type: ignore[arg-type]
    done = site.run("plan", "--to", "2.0.0")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("plan",), 2, "what shall run?"),
        (("plan", "--to", "9.9.9"), 5, "9.9.9"),
        (("plan", "--to", "2.0.0", "--only", "sync"), 2, "role=ROLE"),
        (("plan", "--to", "2.0.0", "--restart"), 2, "--restart"),
        (("plan", "--to", "2.0.0", "--config", "nowhere"), 2, "nowhere"),
        (("deploy", "nothing.json"), 2, "nothing.json"),
        (("resume",), 5, "was ever written down"),
        (("abort", "that-one"), 5, "that-one"),
        (("admit", "--all"), 2, "--all --mine"),
        (("nonsense",), 2, "nonsense"),
        (("why",), 0, "was ever written down"),
        (("history",), 0, "was ever written down"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_what_cannot_be_done_says_so(site: Homeserver, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = site.run(*arguments)
    assert (done.exit_code, said in done.output) == (code, True), done.output
    assert versions(site) == {"1.0.0"}


def test_there_and_back_again(site: Homeserver) -> None:
    there = site.run("deploy", "--to", "2.0.0", "--yes")
    assert there.exit_code == 0, there.output
    assert versions(site) == {"2.0.0"}
    assert "2.0.0" in site.run("status").output
    assert "deployed" in site.run("why").output

    back = site.run("rollback", "--yes")

    assert back.exit_code == 0, back.output
    assert versions(site) == {"1.0.0"}
    newest, oldest = json.loads(site.run("history", "--json").output)
    assert (oldest["to_version"], oldest["outcome"], newest["to_version"], newest["outcome"]) == ("2.0.0", "deployed", "1.0.0", "deployed")
    assert oldest["workers"]["client1"]["drain_s"] > 0
    assert site.stage.world.cuts == {}


def test_only_what_a_rollout_touched_is_taken_back(site: Homeserver) -> None:
    """Whoever it left alone runs on, on another release than that which the others go back to."""
    world = site.stage.world
    site.run("deploy", "--to", "2.0.0", "--until", "client1", "--yes")
    before = {worker: it.runs for worker, it in world.workers.items()}
    assert site.run("deploy", "--restart", "--until", "canary", "--yes").exit_code == 0
    alone_since_s = world.workers[CLIENT2].started_at_s
    assert world.workers[CLIENT1].runs != before[CLIENT1]

    back = site.run("rollback", "--yes")

    assert back.exit_code == 0, back.output
    assert {worker: it.runs for worker, it in world.workers.items()} == before
    assert world.workers[CLIENT2].started_at_s == alone_since_s
    assert "client2: not part of what is taken back" in back.output


def test_workers_that_ran_several_releases_are_taken_back_one_release_at_a_time(site: Homeserver) -> None:
    """And the refusal says what to type."""
    world = site.stage.world
    site.run("deploy", "--to", "2.0.0", "--until", "client1", "--yes")
    before = {worker: it.runs for worker, it in world.workers.items()}
    assert site.run("deploy", "--restart", "--yes").exit_code == 0
    deployed = {worker: it.runs for worker, it in world.workers.items()}

    refused = site.run("rollback", "--yes")
    commands = re.findall(r"rollout (rollback \S+ --to [\w.-]+)", refused.output)
    after = []
    for command in commands:
        assert site.run(*command.split(), "--yes").exit_code == 0
        after.append({worker: it.runs for worker, it in world.workers.items()})

    assert refused.exit_code == 5, refused.output
    assert after == [{**deployed, CLIENT1: before[CLIENT1]}, before]
    assert site.run("rollback", *commands[0].split()[1:-1], "3.0.0-ab").exit_code == 5


def test_a_release_that_does_not_start_is_taken_back(site: Homeserver) -> None:
    new = site.stage.drivers.releases.identify("2.0.0", None, site.stage.old.id, next_generation=False).id
    site.stage.world.never_boots.add(new)
    done = site.run("deploy", "--to", "2.0.0", "--yes")
    assert done.exit_code == 3, done.output
    assert "rolled back" in done.output
    assert versions(site) == {"1.0.0"}
    assert all(worker.admitted for worker in site.stage.world.workers.values())
    assert site.run("resume").exit_code == 5


def test_events_are_one_json_object_a_line_from_beginning_to_end(site: Homeserver) -> None:
    done = site.run("deploy", "--restart", "--only", "role=client", "--yes", "--events", "ndjson")
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [events[0]["kind"], events[-1]["kind"]] == ["DeployBegan", "DeployFinished"]
    assert events[-1]["outcome"] == "deployed"
    assert "client1" in done.stderr


def test_a_saved_plan_is_rolled_out_once(site: Homeserver) -> None:
    saved = site.directory / "plan.json"
    assert site.run("plan", "--to", "2.0.0", "-o", str(saved)).exit_code == 0
    assert site.run("deploy", str(saved), "--yes").exit_code == 0
    again = site.run("deploy", str(saved), "--yes")
    assert again.exit_code == 5
    assert "doesn't hold any more" in again.output
    assert "client1 runs 2.0.0" in again.output
    assert "client1" in again.output


def test_what_a_saved_plan_bears_is_said_and_it_is_rolled_out(site: Homeserver) -> None:
    """A worker was restarted on the same release meanwhile: --diff says so, deploy too, and rolls it out."""
    saved = site.directory / "plan.json"
    assert site.run("plan", "--to", "2.0.0", "-o", str(saved)).exit_code == 0
    untouched = site.run("plan", "--diff", str(saved))
    assert (untouched.exit_code, untouched.output[:13]) == (0, "nothing has c")
    site.stage.world.workers[WorkerId("client2")].started_at_s = time.time()
    time.sleep(site.stage.world.boot_s + site.stage.world.check_s)
    borne = "client2 was restarted, on the same release 1.0.0"
    shown = site.run("plan", "--diff", str(saved))
    assert (shown.exit_code, borne in shown.output, "it still holds" in shown.output) == (0, True, True)
    done = site.run("deploy", str(saved), "--yes")
    assert (done.exit_code, borne in done.output) == (0, True)


def test_a_saved_plan_says_which_keys_of_the_playbook_changed(site: Homeserver) -> None:
    saved = site.directory / "plan.json"
    site.run("plan", "--to", "2.0.0", "-o", str(saved))
    playbook = json.loads(site.playbook.read_text())
    playbook["gates"][0]["max"] = 0.5
    site.playbook.write_text(json.dumps(playbook))
    for command in (("deploy", str(saved), "--yes"), ("plan", "--diff", str(saved))):
        done = site.run(*command)
        assert (done.exit_code, "playbook: gates.errors.max is 0.5, not 0.02" in done.output) == (5, True)


def test_a_plan_of_another_release_of_rollout_is_told_from_one_that_was_edited(site: Homeserver) -> None:
    """Older ones don't carry what they were made from."""
    saved = site.directory / "plan.json"
    site.run("plan", "--to", "2.0.0", "-o", str(saved))
    plan = json.loads(saved.read_text())
    del plan["basis"]
    saved.write_text(json.dumps(plan))
    done = site.run("deploy", str(saved), "--yes")
    assert (done.exit_code, "saved by another release of rollout" in done.output) == (2, True)


def test_diff_plans_nothing(site: Homeserver) -> None:
    assert site.run("plan", "--diff", "plan.json", "--to", "2.0.0").exit_code == 2


def test_a_plan_measures_how_busy_workers_are(site: Homeserver) -> None:
    """Twenty requests a second of 5 ms each are a tenth of a core; with two workers the other gets all of it."""
    site.measure_s = 1.2
    done = site.run("plan", "--to", "2.0.0")
    assert done.exit_code == 0
    assert re.search(r"client1: client2 from (9|10|11) % to (19|20|21) % of a core", done.output)
    assert "measured over 1.2 s" in done.output


def test_workers_that_are_too_busy_are_refused(site: Homeserver) -> None:
    site.measure_s = 1.2
    site.stage.world.request_cpu_s = 0.024
    for command in (("plan", "--to", "2.0.0"), ("deploy", "--to", "2.0.0", "--yes"), ("preflight",)):
        done = site.run(*command)
        assert (done.exit_code, "(capacity.utilisation_max)" in done.output) == (5, True), done.output
    assert {worker.runs for worker in site.stage.world.workers.values()} == {site.stage.old.id}


def test_what_is_not_measured_is_taken_from_the_journal(site: Homeserver) -> None:
    site.run("observe", "--for", "1")
    done = site.run("plan", "--to", "2.0.0")
    assert "from the journal of the last 24 h" in done.output, done.output


def test_a_plan_that_was_edited_is_not_believed(site: Homeserver) -> None:
    saved = site.directory / "plan.json"
    site.run("plan", "--to", "2.0.0", "-o", str(saved))
    saved.write_text(saved.read_text().replace('"client1"', '"client2"', 1))
    done = site.run("deploy", str(saved), "--yes")
    assert done.exit_code == 2, done.output
    saved.write_text("{}")
    assert site.run("deploy", str(saved), "--yes").exit_code == 2


def held_by_others(site: Homeserver, ttl_s: float = 30.0) -> None:
    site.stage.world.lease.ttl_s = ttl_s
    claim = Claim("somebody@elsewhere", "theirs", DeployId("theirs"))
    site.stage.drivers.lease.acquire(claim, 5.0, above=0, take_over=False)
    site.stage.world.lease.ttl_s = 30.0


def test_one_rollout_at_a_time(site: Homeserver) -> None:
    """A second one is told who holds the homeserver and what can be done about it; whoever looks is told too."""
    held_by_others(site)
    done = site.run("deploy", "--to", "2.0.0", "--yes")
    assert done.exit_code == 5
    assert "somebody@elsewhere on nowhere" in done.output
    assert "--take-over" in done.output
    assert "the lease is held by somebody@elsewhere" in site.run("status").output
    lease = json.loads(site.run("status", "--json").output)["lease"]
    assert (lease["holder"], lease["host"], lease["why"], lease["expired"]) == ("somebody@elsewhere", "nowhere", "theirs", False)


def test_taking_over_is_written_down_with_the_name_of_who_had_it(site: Homeserver) -> None:
    held_by_others(site)
    done = site.run("deploy", "--to", "2.0.0", "--yes", "--take-over")
    assert done.exit_code == 0, done.output
    assert "the lease was taken from somebody@elsewhere on nowhere" in done.output
    assert "nobody holds the lease" in site.run("status").output


def test_a_lease_that_has_run_out_keeps_nobody_out(site: Homeserver) -> None:
    """It is shown as such, and looking alone doesn't take it: its holder may only have been stopped for a while."""
    held_by_others(site, ttl_s=0.0)
    assert "the lease ran out" in site.run("status").output
    assert "the lease ran out" in site.run("preflight").output
    assert json.loads(site.run("status", "--json").output)["lease"]["expired"] is True
    done = site.run("deploy", "--to", "2.0.0", "--yes")
    assert done.exit_code == 0, done.output
    assert "the lease was taken from somebody@elsewhere" in done.output


def test_where_the_lease_is_kept_must_be_reached_before_anything(site: Homeserver) -> None:
    """Who holds it can't be told, so nobody begins; looking, and bringing back what is ours, need no lease."""
    site.stage.world.lease.away_until_s = time.time() + 3600
    done = site.run("deploy", "--to", "2.0.0", "--yes")
    assert done.exit_code == 5, done.output
    assert "the place that keeps the lease can't be reached" in done.output
    looked = site.run("status")
    assert looked.exit_code == 0
    assert "who holds the lease can't be told" in looked.output
    assert "error" in json.loads(site.run("status", "--json").stdout)["lease"]
    assert site.run("admit", "--all", "--mine").exit_code == 0


def test_what_of_ours_is_out_comes_back_by_break_glass_alone(site: Homeserver) -> None:
    drivers = site.stage.drivers
    number = EffectNumber(drivers.ledger.last_number() + 1)
    effect = Effect(number, StepId("client1/drain"), Verb.DRAIN, CLIENT1, ReleaseId(site.stage.old.id), 0.0, FULL_WEIGHT)
    with drivers.ledger.fence(effect):
        site.stage.world.drain(CLIENT1)
    (site.directory / "journal.db").write_text("this is no journal")

    refused = site.run("admit", "--all", "--mine")
    with serving(Says(b"ok")) as server:
        site.inventory.write_text(site.inventory.read_text().replace("http://127.0.0.1:1", server.url))
        done = site.run("admit", "--all", "--mine")

    # A worker that doesn't answer is never admitted, and the text says how a person can do it all the same.
    assert refused.exit_code == 4, refused.output
    assert "admit server client1 of client at the proxy" in refused.output
    assert done.exit_code == 0, done.output
    assert "client1" in done.output
    assert site.stage.world.workers[CLIENT1].admitted
    assert drivers.ledger.marks() == {}


def test_a_journal_that_cannot_be_used_refuses_before_anything(site: Homeserver) -> None:
    (site.directory / "journal.db").write_text("this is no journal")
    done = site.run("deploy", "--to", "2.0.0", "--yes")
    assert done.exit_code == 5, done.output
    assert "journal.db" in done.output
    assert versions(site) == {"1.0.0"}


def test_a_bug_of_ours_is_owned_up_to_and_says_what_to_do(site: Homeserver, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("rollout.interfaces.cli.selecting.make_plan", broken)
    done = site.run("plan", "--to", "2.0.0")
    assert done.exit_code == 1
    assert "our bug" in done.output
    assert "rollout admit --all --mine" in done.output


def test_files_of_every_bad_kind_are_refused(site: Homeserver, tmp_path: Path) -> None:
    for content in (b"", b"\xff\xfe\x00", b"[1, 2", b"name: x\nname: y\n", b"- a\n", b"name: &a [*a]\n"):
        bad = tmp_path / "bad.yaml"
        bad.write_bytes(content)
        done = site.run("check", "-p", str(bad))
        assert done.exit_code == 2, (content, done.output)
        assert "bad.yaml" in done.output
