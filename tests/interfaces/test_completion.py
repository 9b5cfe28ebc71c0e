"""What real shells complete, with the script that `rollout completion` prints."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from rollout.interfaces.cli.completion import complete_worker_or_file
from rollout.interfaces.cli.measuring import gate

BIN = Path(sys.executable).parent
INVENTORY = Path(__file__).parents[2] / "tests/golden/messages/inventory.yaml"
SHELLS = ("bash", "zsh", "fish")
# {words} are what was typed, the last of them unfinished; each prints one completion a line.
SCRIPTS = {
    "bash": """
        source <(rollout completion bash)
        COMP_WORDS=(rollout {words}); COMP_CWORD={last}; COMP_LINE="rollout {words}"
        _rollout_completion rollout; printf '%s\\n' "${{COMPREPLY[@]}}"
    """,
    # Outside an interactive shell zsh has no completion to fill in, so its own words for it are made to print.
    "zsh": """
        compdef() {{ }}; compadd() {{ print -l -- $completions }}; _describe() {{ print -l -- $completions_with_descriptions }}
        eval "$(rollout completion zsh)"; words=(rollout {words}); CURRENT={current}; _rollout_completion
    """,
    "fish": "rollout completion fish | source; complete --do-complete 'rollout {words}'",
}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        if os.environ.get("ROLLOUT_ALL_SHELLS"):
            pytest.fail(f"{name} is not installed, and here it must be")
        pytest.skip(f"{name} is not installed (.ci/run installs it)")
    return name


def completed(shell: str, words: str, **environment: str) -> str:
    typed = words.split(" ")
    script = SCRIPTS[shell].format(words=words, last=len(typed), current=len(typed) + 1)
    ours = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/"), "TERM": "dumb", **environment}
    done = subprocess.run([shell, "-c", script], env=ours, capture_output=True, text=True, timeout=60, check=False)
    assert "rror" not in done.stderr, done.stderr
    return done.stdout


def test_commands(shell: str) -> None:
    said = completed(shell, "pre")
    assert "preflight" in said
    assert "deploy" not in said


def test_options(shell: str) -> None:
    assert "--detailed-exitcode" in completed(shell, "plan --det")


def test_workers_of_the_inventory(shell: str) -> None:
    assert "client1" in completed(shell, "skip cl", ROLLOUT_INVENTORY=str(INVENTORY))


def test_without_an_inventory_there_is_nothing_and_no_noise(shell: str) -> None:
    assert "client1" not in completed(shell, "skip cl", ROLLOUT_INVENTORY="/nowhere/at/all.yaml")


@pytest.mark.parametrize(("typed", "offered"), [("cl", {("client1", "plain"), ("client2", "plain")}), ("play", {("play", "file")})])
def test_a_worker_or_else_a_file(typed: str, offered: set[tuple[str, str]]) -> None:
    """`rollout gate` takes both; the shell itself knows the files."""
    context = click.Context(gate)
    context.params["inventory_path"] = INVENTORY
    found = complete_worker_or_file(context, gate.params[0], typed)
    assert {(item.value, item.type) for item in found} == offered
