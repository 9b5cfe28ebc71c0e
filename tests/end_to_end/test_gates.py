"""Sequential gates on a real homeserver: they pass a good release, and take back one that errs. Nothing is cut."""

import math
from pathlib import Path
from typing import Any

import pytest

from rollout.adapters.journal.sql import open_journal
from rollout.lab import cluster
from rollout.lab.artefacts import VERSIONS
from rollout.lab.demo import observe
from rollout.lab.load.clients import Rates
from rollout.lab.load.records import window
from rollout.lab.paths import Lab
from rollout.model.event import GateRuled
from rollout.model.gate import Ruling
from rollout.model.ids import DeployId
from tests.benchmarks.gates import record
from tests.benchmarks.gates.contest import watch
from tests.benchmarks.gates.ours import UNLEARNED
from tests.benchmarks.gates.recorded import read
from tests.end_to_end.site import Site

pytestmark = pytest.mark.long

PLAYBOOK = Path(__file__).parent / "gates.yaml"
CLIENTS = ("--only", "role=client", "--yes")
# More for the client workers, of whom evidence is wanted, and less for main.
RATES = Rates(reads=30.0, main=20.0)


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Site:
    return Site(lab, tmp_path, playbook=PLAYBOOK, rates=RATES)


def ruled(site: Site, deploy_id: str) -> list[tuple[str, str, Ruling, str]]:
    """List all rulings of a rollout: the worker, the gate, what it said, and why."""
    journal = open_journal(str(site.place / "journal.db"))
    events = [event for _, event in journal.events(DeployId(deploy_id))]
    journal.close()
    return [
        (str(one.worker), str(one.verdict.gate), one.verdict.ruling, one.verdict.because) for one in events if isinstance(one, GateRuled)
    ]


def recording(site: Site, account: dict[str, Any], *options: str) -> Path:
    """Take client1's restart out of the journal."""
    out = site.place / "recording.json"
    record.main([str(site.place / "journal.db"), account["id"], "client1", str(out), *options])
    return out


def test_a_good_release_passes_and_one_that_errs_is_taken_back(site: Site) -> None:
    other = next(version for version in VERSIONS if version != observe(site.lab)["client1"].version)
    bad = f"{VERSIONS[1]}+errors"
    cluster.install(site.lab, bad)
    with site.load() as records:
        good = site.run("deploy", "--to", other, *CLIENTS)
        deployed = site.last()
        rolled = site.run("deploy", "--to", bad, *CLIENTS)
        taken_back = site.last()

    assert good.code == 0, good.text
    assert deployed["outcome"] == "deployed"
    passes = [(worker, gate) for worker, gate, ruling, _ in ruled(site, deployed["id"]) if ruling is Ruling.PASS]
    assert set(passes) == {(worker, gate) for worker in ("client1", "client2") for gate in ("latency", "errors")}

    assert rolled.code == 3, rolled.text
    assert taken_back["outcome"] == "rolled_back"
    assert taken_back["rollback_why"].startswith("client1 failed errors: the share of 5xx is ")
    assert "; the odds against a good worker are " in taken_back["rollback_why"]
    assert taken_back["workers"]["client2"]["attempts"] == 0
    judged(site, deployed, taken_back)
    assert {observe(site.lab)[worker].version for worker in ("client1", "client2")} == {other}
    assert window(records).requests > 1000
    assert window(records).cut == 0
    # The load has met the bad release, or it wasn't one.
    assert window(records).release_errors > 0
    site.assert_whole()


def judged(site: Site, good: dict[str, Any], bad: dict[str, Any]) -> None:
    """What was recorded of both is ruled likewise where it is judged again."""
    good_one, bad_one = read(recording(site, good)), read(recording(site, bad, "--bad"))
    assert watch(UNLEARNED, good_one, good_one.rate).failed_s == math.inf
    assert watch(UNLEARNED, bad_one, bad_one.rate).failed_s <= bad_one.scrapes[-1].at_s
