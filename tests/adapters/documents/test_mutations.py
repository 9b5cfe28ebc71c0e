"""Whatever slips into a file: it is read, or refused with what to do. Never a traceback, whoever typed it."""

import random
import re
from pathlib import Path

import pytest

from rollout.adapters.documents.drivers import explained
from rollout.adapters.documents.read import inventory_in, read_document, read_inventory, read_playbook
from rollout.model.errors import InvalidFileError

REPOSITORY = Path(__file__).parents[3]
INVENTORY = REPOSITORY / "tests/golden/messages/inventory.yaml"
PLAYBOOK = REPOSITORY / "playbooks/synapse-workers.yaml"
# What YAML makes something of.
SLIPS = (
    *(
        "no",
        "010",
        "0b_",
        "0x",
        "1:30",
        "1_000",
        ".inf",
        "1.0e+999",
        "2026-13-45",
        "=",
        "~",
        "null",
        "true",
        "9" * 5000,
        "-1",
        "90s",
        "50%",
    ),
    *('"', "'", "[", "]", "{", "}", "[[a]]", "{a: b}", "[]", "{}", ": ", "- ", "? ", "\n", "\t", "  ", "#", "|", ">", "\\", ",", "a" * 300),
    *("&a", "*a", "!!int x", "!!float x", "<<: ", "%", "@", "`", '"\\0"', '"\\ud800"', "é", "---\n", "...\n", "\x85", "\u2028"),
)
PLACES = re.compile(r"(?<=: )[^,}\n]+|(?<=\[)[^\],]+|\b\w+(?=:)")
ROUNDS = 150


def slipped(text: str, dice: random.Random) -> str:
    """Return *text* with up to four slips: something typed, deleted, doubled, or in place of a key or value."""
    for _ in range(dice.randint(1, 4)):
        at, other = sorted(dice.randrange(len(text) + 1) for _ in range(2))
        place = dice.choice(list(PLACES.finditer(text)) or [re.match("", text)])
        text = dice.choice(
            [
                text[:at] + dice.choice(SLIPS) + text[at:],
                text[:at] + text[min(other, at + 12) :],
                text[:at] + text[at : min(other, at + 60)] + text[at:],
                text if place is None else text[: place.start()] + dice.choice(SLIPS) + text[place.end() :],
            ]
        )
    return text


@pytest.mark.parametrize("seed", range(4))
def test_every_slip_is_read_or_refused_with_a_remedy(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    good = read_inventory(INVENTORY)
    file = tmp_path / "file.yaml"
    refused: list[InvalidFileError] = []
    for _ in range(ROUNDS):
        kind = dice.choice([INVENTORY, PLAYBOOK])
        file.write_text(slipped(kind.read_text(), dice), encoding="utf-8")
        try:
            if kind is INVENTORY:
                document = read_document(file)
                if (error := explained(document, inventory_in(document))) is not None:
                    refused.append(error)
            else:
                read_playbook(file, good, whole=True)
        except InvalidFileError as refusal:
            refused.append(refusal)
    assert all(error.where.startswith(str(file)) and error.remedy for error in refused)
    assert max(len(str(error)) for error in refused) < 5000
    assert len(refused) > ROUNDS / 2, "or nothing would have been tried"
