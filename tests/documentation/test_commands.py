"""Every command in README, docs and examples is run; what is said about exit codes, files and options is compared with what is."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from rollout.adapters.documents.read import read_inventory, read_playbook
from rollout.interfaces.cli import COMMANDS, INTERRUPTED, OUR_BUG, cli
from rollout.interfaces.cli.preview import CHANGES
from rollout.interfaces.cli.watching_on import WATCHED_ON
from rollout.lab import cluster
from rollout.model.errors import InvalidFileError
from rollout.model.event import EXIT_CODES

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md")))
WALK = ROOT / "examples/lab/README.md"
REHEARSING = ROOT / "docs/rehearsing.md"
INVENTORY = ROOT / "docs/inventory.md"
KUBERNETES = ROOT / "docs/kubernetes.md"
# On two hosts: tests/end_to_end/test_hosts.py.
ON_HOSTS = (ROOT / "examples/systemd-haproxy/README.md", ROOT / "examples/systemd-nginx/README.md")
WALK_TIMEOUT_S = 1200


def commands(page: Path) -> list[str]:
    """Return the lines after `$ ` in a page's console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_every_console_block_is_run_by_a_test() -> None:
    with_commands = {page.relative_to(ROOT).as_posix(): commands(page) for page in PAGES if commands(page)}
    # `make demo` is tests/end_to_end/test_demo.py, `make test` is what runs this.
    assert with_commands.pop("README.md") == ["make demo", "make test"]
    assert set(with_commands) == {page.relative_to(ROOT).as_posix() for page in (WALK, REHEARSING, INVENTORY, KUBERNETES, *ON_HOSTS)}


def test_the_example_of_a_rehearsal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROLLOUT_JOURNAL", str(tmp_path / "journal.db"))
    monkeypatch.chdir(ROOT)
    for command in commands(REHEARSING):
        rehearsed = CliRunner().invoke(cli, command.split()[1:])
        assert rehearsed.exit_code == 0, rehearsed.output
        assert "nothing happened that never may" in rehearsed.stdout


def test_the_example_of_an_inventory_from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for command in commands(INVENTORY):
        written = CliRunner().invoke(cli, command.split()[1:])
        assert written.exit_code == 0, written.output
        assert "homeserver: example.org" in written.stdout
        assert "rollout check -i FILE" in written.stderr


def test_the_example_in_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed of its account is what lies beside it."""
    monkeypatch.setenv("ROLLOUT_DSN", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.chdir(ROOT)
    said = [CliRunner().invoke(cli, command.split()[1:], catch_exceptions=False) for command in commands(KUBERNETES)]
    assert [one.exit_code for one in said] == [0] * 4
    assert said[0].stdout == (ROOT / "examples/kubernetes/rbac.yaml").read_text()
    assert 'resources: ["pods/portforward"], verbs: ["get", "create"]' in said[2].stdout
    assert all("example.org has 7 workers, 3 pools at the proxy" in one.stdout for one in said[1::2])


@pytest.mark.end_to_end
def test_the_walk_through_the_lab(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build/venvs").symlink_to(ROOT / "build/venvs")
    (ROOT / "build/venvs").mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "playbooks", tmp_path / "playbooks")
    script = "\n".join(["set -e -o pipefail", *commands(WALK)])
    # How busy workers are is measured before every plan; here it is no news.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ROLLOUT_MEASURE_S": "1"}
    with (tmp_path / "out").open("w") as out:
        walk = subprocess.Popen(
            ["bash", "-c", script], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0
        )
    try:
        code = walk.wait(WALK_TIMEOUT_S)
    finally:
        # The load in the background, and whatever else is still there.
        with suppress(ProcessLookupError):
            os.killpg(walk.pid, signal.SIGKILL)
        cluster.down(tmp_path / "build/lab", purge=True)
    said = (tmp_path / "out").read_text()
    assert code == 0, said
    assert "rolled out" in said or "deployed" in said
    assert "nothing of ours is out of traffic" in said


def test_the_example_inventory_and_the_playbooks_are_valid(tmp_path: Path) -> None:
    inventory = read_inventory(ROOT / "examples/lab/inventory.yaml")
    for playbook in (ROOT / "playbooks").glob("*.yaml"):
        read_playbook(playbook, inventory)
    # And they would not be, with any key that isn't known.
    (tmp_path / "inventory.yaml").write_text((ROOT / "examples/lab/inventory.yaml").read_text() + "\nwrokers: {}\n")
    with pytest.raises(InvalidFileError, match="wrokers"):
        read_inventory(tmp_path / "inventory.yaml")


def test_every_exit_code_is_documented() -> None:
    page = (ROOT / "docs/exit-codes.md").read_text()
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert documented == {*EXIT_CODES.values(), OUR_BUG, InvalidFileError.exit_code, CHANGES, WATCHED_ON, INTERRUPTED}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_files_and_commands_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link
    for quoted in re.findall(r"`((?:rollout|tests|docs|playbooks|examples|requirements)/[\w./-]+)`", text):
        assert (ROOT / quoted).exists(), quoted
    for said in re.findall(r"`rollout ([a-z]+[^`]*)`", text):
        name, *rest = said.split()
        assert name in COMMANDS, said
        usage = CliRunner().invoke(cli, [name, "--help"] if name != "lab" or not rest else [name, rest[0], "--help"]).output
        for option in (word for word in rest if word.startswith("-")):
            assert option in usage, said


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"`make ([a-z]+)", page.read_text())}
    assert named
    assert named <= targets
