"""`rollout rehearse`: what it prints, for people and for programs, and with which code it ends."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner, Result

from rollout.deciding import decide
from rollout.interfaces.cli import cli
from rollout.simulation.fitting import lab_records

ROOT = Path(__file__).parents[2]
PLAYBOOK, INVENTORY = str(ROOT / "playbooks/demo.yaml"), str(ROOT / "examples/lab/inventory.yaml")


def _rehearse(*arguments: str) -> Result:
    # A journal that isn't there, so that what this machine rolled before doesn't matter.
    with TemporaryDirectory() as folder:
        return CliRunner().invoke(cli, ["rehearse", PLAYBOOK, "-i", INVENTORY, "--journal", f"{folder}/journal.db", *arguments])


def test_what_it_says_for_programs(tmp_path: Path) -> None:
    """Every rehearsal has an outcome, every pool has somebody left who can be spared, and what struck is written down."""
    rehearsed = _rehearse("-n", "3", "--json", "--coverage", str(tmp_path / "coverage.json"))
    assert rehearsed.exit_code == 0, rehearsed.output
    said = json.loads(rehearsed.stdout)
    assert (said["rehearsals"], said["broken"]) == (3, [])
    assert sum(found["count"] for found in said["outcomes"].values()) == 3
    assert all(found["median_s"] <= found["p90_s"] <= found["worst_s"] for found in said["outcomes"].values())
    assert {pool: left["of"] for pool, left in said["serving_min"].items()} == {"main": 1, "sync": 2, "client": 2}
    assert "not rehearsed: gates poll-cpu" in rehearsed.stderr
    assert f"figures: from {len(lab_records())} rollouts of the lab" in rehearsed.stderr
    cells = json.loads((tmp_path / "coverage.json").read_text())["cells"]
    assert sum(cell["struck"] for cell in cells) >= 2


def test_why_rollouts_are_refused_is_said_with_a_seed(tmp_path: Path) -> None:
    """More requests pile up at main's hold than it may hold, in each of them; by how much is drawn, and makes no other reason of it."""
    playbook = tmp_path / "demo.yaml"
    playbook.write_text(Path(PLAYBOOK).read_text().replace("hold_max: 6000", "hold_max: 5"))
    arguments = ["rehearse", str(playbook), "-i", INVENTORY, "--journal", str(tmp_path / "journal.db"), "-n", "2"]
    said = CliRunner().invoke(cli, arguments).stdout
    assert "refused, in 2, seed 0 among them: main: a hold could pile up 2 × " in said
    assert "and hold_max is 5: the others would be refused" in said
    (first, *_) = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)["refused"]
    assert (first["count"], first["seed"]) == (2, 0)


def test_what_never_may_happen_is_named_with_its_seed_and_can_be_played_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rule broken on purpose (it takes itself for stuck at once) a seed that stops is found, and tells itself."""
    monkeypatch.setattr(decide, "_stuck", lambda *_: True)
    rehearsed = _rehearse("-n", "3")
    assert rehearsed.exit_code == 3, rehearsed.output
    assert "broken: undisturbed, in " in rehearsed.stdout
    seed = rehearsed.stdout.rpartition("--seed ")[2].strip()
    again = _rehearse("--seed", seed)
    assert again.exit_code == 3
    assert "no step has finished" in again.stdout
    assert "broken: " in again.stdout.splitlines()[-1]
