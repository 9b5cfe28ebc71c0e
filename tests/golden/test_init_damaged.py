"""The same configurations, damaged at random: there is an inventory or a clear refusal, never a traceback, and never a secret."""

import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from rollout.adapters.documents.read import read_document
from rollout.interfaces.cli import cli, init
from tests.golden.test_init import HERE, LAYOUTS, SECRET

# A few of these take a tenth of a second; thousands were run when this was written.
SEEDS = 25
PIECES = (
    "{",
    "}",
    ":",
    "- ",
    "[",
    "'",
    '"',
    "\n",
    "  ",
    "&a ",
    "*a",
    "!x ",
    "#",
    ";",
    "\\",
    "\x00",
    "%i",
    "null",
    "0",
    "-1",
    "[]",
    "{}",
    "ü",
    "${X}",
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_damaged_is_refused_or_read_around(layout: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(f"{layout} {seed}")
    shutil.copytree(HERE / layout, tmp_path / layout)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(init, "ROOT", Path(layout))
    files = sorted(path for path in (tmp_path / layout).rglob("*") if path.is_file())
    for path in dice.sample(files, k=min(len(files), dice.randint(1, 3))):
        path.write_text(damaged(path.read_text(), dice))
    done = CliRunner().invoke(cli, ["init", *LAYOUTS[layout], "-o", "inventory.yaml"])
    assert done.exit_code in {0, 2}, done.output
    assert SECRET not in done.output
    if done.exit_code == 0:
        assert SECRET not in (tmp_path / "inventory.yaml").read_text()
        assert read_document(tmp_path / "inventory.yaml").problems == []


def damaged(text: str, dice: random.Random) -> str:
    """Leave lines out, swap them, cut one short, or put something in between."""
    lines = text.splitlines(keepends=True)
    for _ in range(dice.randint(1, 4)):
        at, other = dice.randrange(len(lines)), dice.randrange(len(lines))
        match dice.randrange(5):
            case 0:
                lines[at] = ""
            case 1:
                lines[at], lines[other] = lines[other], lines[at]
            case 2:
                lines[at] = lines[at][: dice.randint(0, len(lines[at]))]
            case 3:
                lines[at] = lines[at] + lines[other]
            case _:
                cut = dice.randint(0, len(lines[at]))
                lines[at] = lines[at][:cut] + dice.choice(PIECES) + lines[at][cut:]
    return "".join(lines)
