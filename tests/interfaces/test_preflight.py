"""`preflight`, and what `plan` and `deploy` refuse for the same reasons, on two simulated workers in real time."""

import json
import time
from dataclasses import replace

import pytest
from click.testing import Result

from rollout.homeservers.synapse import hazards
from rollout.model.conditions import Connections, LockWait, Transaction
from rollout.model.ids import WorkerId
from tests.interfaces.homeserver import PLAYBOOK, Homeserver, with_database

CLIENT1, CLIENT2 = WorkerId("client1"), WorkerId("client2")
LONG = Transaction(17, "bridge", "idle in transaction", 300.0, "DELETE FROM rooms WHERE room_id")
LOCKED = LockWait(18, "synapse", "rooms", "RowExclusiveLock", (17,), 42.0)


def _checks(done: Result) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(done.stdout)}


def _say(site: Homeserver, **changes: object) -> None:
    site.playbook.write_text(json.dumps(PLAYBOOK | changes))


def test_everything_that_forbids_it_is_said_in_one_pass(site: Homeserver, monkeypatch: pytest.MonkeyPatch) -> None:
    """By preflight, plan and deploy alike; each with what to try, and nothing is touched."""
    database = with_database(site, monkeypatch)
    assert site.run("preflight", "--to", "2.0.0").exit_code == 0
    database.transactions.append(LONG)
    database.waits.append(LOCKED)
    database.background_updates.append("rebuild_directory")
    database.connections = Connections(used=90, max=100, reserved=3)
    site.stage.world.disk_free_bytes = 400_000_000
    site.stage.world.files[CLIENT2] = (0.0, 1000.0, 0.0)
    _say(site, accept_hazards=[])

    done = site.run("preflight", "--to", "2.0.0", "--json")

    assert done.exit_code == 5, done.output
    checks = _checks(done)
    refused = {name for name, check in checks.items() if check["result"] == "no"}
    assert {"long transaction", "lock queue", "background updates", "connections", "disk", "files of client2"} <= refused
    assert {f"hazard of {version}" for version in ("1.64.0", "1.67.0", "1.69.0", "1.76.0")} <= refused
    assert all(check["remedy"] for check in checks.values() if check["result"] in {"no", "unknown"})
    for command in (("plan", "--to", "2.0.0"), ("deploy", "--to", "2.0.0", "--yes")):
        also = site.run(*command)
        assert also.exit_code == 5
        for name in refused:
            # Ages grow meanwhile, so up to the first figure.
            assert f"{name}: {checks[name]['why'].partition(' for ')[0]}" in also.output, (command, name)
            assert checks[name]["remedy"] in also.output
    assert {worker.activated for worker in site.stage.world.workers.values()} == {site.stage.old.id}


def test_a_restart_is_warned_of_what_refuses_a_migration(site: Homeserver, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no locks and brings no updates of its own; the plan says what there is."""
    database = with_database(site, monkeypatch)
    database.transactions.append(LONG)
    database.background_updates.append("rebuild_directory")
    done = site.run("preflight", "--json")
    assert done.exit_code == 0, done.output
    assert {_checks(done)[name]["result"] for name in ("long transaction", "background updates")} == {"warning"}
    planned = site.run("plan", "--restart")
    assert planned.exit_code == 0
    assert "long transaction: pid 17 (bridge) has one open for" in planned.output


def test_the_playbook_can_say_that_background_updates_are_no_refusal(site: Homeserver, monkeypatch: pytest.MonkeyPatch) -> None:
    with_database(site, monkeypatch).background_updates.append("rebuild_directory")
    assert site.run("preflight", "--to", "2.0.0").exit_code == 5
    _say(site, background_updates="warn")
    done = site.run("preflight", "--to", "2.0.0", "--json")
    assert (done.exit_code, _checks(done)["background updates"]["result"]) == (0, "warning")


def test_a_database_that_does_not_answer_is_unknown_and_refuses(site: Homeserver, monkeypatch: pytest.MonkeyPatch) -> None:
    with_database(site, monkeypatch).silent = True
    done = site.run("preflight", "--to", "2.0.0", "--json")
    assert (done.exit_code, _checks(done)["database"]["result"]) == (5, "unknown")
    assert "no answer" in site.run("plan", "--to", "2.0.0").output


def test_without_a_database_driver_it_is_said_what_is_not_known(site: Homeserver) -> None:
    done = site.run("preflight", "--json")
    assert (done.exit_code, _checks(done)["database"]["result"]) == (0, "warning")


def test_a_prometheus_that_does_not_answer_is_a_warning(site: Homeserver) -> None:
    """By preflight, and in the plan's notes: the survey takes its place."""
    inventory = json.loads(site.inventory.read_text())
    history = {"history_driver": {"driver": "prometheus", "url": "http://127.0.0.1:1"}}
    site.inventory.write_text(json.dumps(inventory | history))
    why = (
        "Prometheus has none for client1, client2 (the journal or a survey has to do): "
        "Prometheus can't be asked: no connection: connection refused"
    )
    done = site.run("preflight", "--json")
    assert done.exit_code == 0, done.output
    assert (_checks(done)["baseline"]["result"], _checks(done)["baseline"]["why"]) == ("warning", why)
    planned = site.run("plan", "--restart")
    assert planned.exit_code == 0
    assert f"baseline: {why}" in " ".join(planned.output.split())
    assert "metrics simulated, history prometheus, " in site.run("check").output
    site.inventory.write_text(json.dumps(inventory))
    assert "baseline" not in _checks(site.run("preflight", "--json"))


def test_a_hazard_is_accepted_by_its_name_and_then_still_told(site: Homeserver) -> None:
    _say(site, accept_hazards=[name for name in hazards.ids() if name != "replication-account-data-1.76"])
    refused = site.run("plan", "--to", "2.0.0")
    assert refused.exit_code == 5
    assert "workers of 1.75 can't process account data" in refused.output
    assert "accept_hazards: [replication-account-data-1.76]" in refused.output
    _say(site)
    planned = site.run("plan", "--to", "2.0.0")
    assert planned.exit_code == 0
    assert "hazard of 1.76.0: workers of 1.75 can't process account data" in " ".join(planned.output.split())


def test_a_page_that_stands_still_is_not_believed(site: Homeserver) -> None:
    """Something between us and the worker has kept it: what it says was true once."""
    site.stage.drivers.metrics.read([CLIENT2], ["process_"], 1.0)
    site.stage.world.frozen.add(CLIENT2)
    done = site.run("preflight", "--json")
    assert (done.exit_code, _checks(done)["metrics of client2"]["result"]) == (5, "unknown")
    assert "stands still" in _checks(done)["metrics of client2"]["why"]
    assert _checks(done)["metrics of client1"]["result"] == "ok"
    refused = site.run("plan", "--to", "2.0.0")
    assert refused.exit_code == 5
    assert "client2's gates would have nothing to look at (its page stands still" in refused.output


def test_a_page_of_an_earlier_process_is_not_believed(site: Homeserver) -> None:
    metrics = site.stage.drivers.metrics
    world = site.stage.world
    world.workers[CLIENT2].started_at_s = time.time() - 90_000.0
    metrics.read([CLIENT2], ["process_"], 1.0)
    world.frozen.add(CLIENT2)
    world.workers[CLIENT2].started_at_s = time.time() - 50.0
    done = site.run("preflight", "--json")
    assert (done.exit_code, _checks(done)["metrics of client2"]["result"]) == (5, "unknown")


def test_where_no_way_leads_back_consent_is_asked_for_and_yes_is_none(site: Homeserver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is at a terminal here: it is refused, until it is said that there is no way back."""
    with_database(site, monkeypatch)
    releases = site.stage.drivers.releases
    new = releases.prepare(releases.identify("2.0.0", None, site.stage.old.id, next_generation=False), 5.0)
    # It raises the floor above what the old one knows.
    site.stage.world.releases[new.id] = replace(new, schema_version=96, schema_compat_version=95)

    planned = site.run("plan", "--to", "2.0.0")
    assert planned.exit_code == 0
    assert "NONE AFTER release/migrate" in planned.output
    checked = site.run("preflight", "--to", "2.0.0", "--json")
    assert (checked.exit_code, _checks(checked)["way back"]["result"]) == (5, "no")
    assert site.run("preflight", "--to", "2.0.0", "--accept-no-way-back").exit_code == 0
    refused = site.run("deploy", "--to", "2.0.0", "--yes")
    assert refused.exit_code == 5, refused.output
    assert "after release/migrate there is no way back" in refused.output
    assert "try: make a backup, and say --accept-no-way-back" in refused.output
    assert site.stage.world.migrated == set()
    assert site.run("deploy", "--to", "2.0.0", "--yes", "--accept-no-way-back").exit_code == 0
    assert site.stage.world.migrated == {new.id}


def test_a_saved_plan_is_refused_for_what_has_come_about_since(site: Homeserver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that it says is as it was; but now a table is locked."""
    database = with_database(site, monkeypatch)
    saved = site.directory / "plan.json"
    assert site.run("plan", "--to", "2.0.0", "-o", str(saved)).exit_code == 0
    database.waits.append(LOCKED)
    refused = site.run("deploy", str(saved), "--yes")
    assert refused.exit_code == 5, refused.output
    assert "lock queue: rooms: 1 wait behind pid 17" in refused.output
    database.waits.clear()
    assert site.run("deploy", str(saved), "--yes").exit_code == 0


@pytest.mark.parametrize("guard", ["reactor_tick_s", "replication_lag_s"])
def test_a_guard_that_no_page_tells_is_unknown_and_refuses(site: Homeserver, guard: str) -> None:
    """These workers' pages say nothing of it, and a rollout would wait for it in vain."""
    _say(site, guards=[{"guard": guard, "max": 60}])
    done = site.run("preflight", "--json")
    check = _checks(done)[f"guard {guard}"]
    assert (done.exit_code, check["result"], check["why"]) == (5, "unknown", f"{guard} could not be measured: nobody reads it")
    refused = site.run("plan", "--restart")
    assert refused.exit_code == 5
    assert f"guard {guard} can't be read (no metrics page tells it)" in refused.output
