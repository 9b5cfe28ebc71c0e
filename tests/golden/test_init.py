"""
The inventories that `rollout init` makes of whole configurations, as printed text: three layouts that people have, and one in which
everything contradicts.

Each folder of tests/golden/init is what would be below `/`. Nothing in them was copied; what they are true to is said at the top of each
homeserver.yaml. After a change on purpose: `pytest tests/golden/test_init.py --update-golden`, and read the diff.
"""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rollout.adapters.documents.read import read_inventory
from rollout.interfaces.cli import cli, init
from rollout.model.errors import InvalidFileError

HERE = Path(__file__).parent / "init"
CONTRADICTORY = ("contradictory/homeserver.yaml", "--haproxy", "contradictory/haproxy.cfg", "--units", "contradictory/units")
LAYOUTS = {"synapse_docs": (), "debian": (), "docker_ansible": (), "contradictory": CONTRADICTORY}
# Everything that may not come out has this in it.
SECRET = "not-for-you"
# A key without a value: a section, or what must be filled in.
BLANK = re.compile(r"^( *)[\w.-]+:(\s+#.*)?$")


@pytest.fixture
def ran(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Result]:
    """The layout, and what the command said of it."""
    layout: str = request.param
    # Relative, so that lines are folded alike wherever this is.
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(init, "ROOT", Path(layout))
    # A driver more changes what is marked, and nothing of what is derived.
    monkeypatch.setattr(init, "DRIVERS", {"workers": ("supervisor", "systemd_ssh"), "traffic": ("haproxy",)})
    return layout, CliRunner().invoke(cli, ["init", *LAYOUTS[layout]])


each_layout = pytest.mark.parametrize("ran", LAYOUTS, indirect=True)


@each_layout
@pytest.mark.parametrize("stream", ["inventory.yaml", "said.txt"])
def test_it_reads_as_approved(ran: tuple[str, Result], stream: str, request: pytest.FixtureRequest) -> None:
    layout, done = ran
    assert done.exit_code == 0, done.output
    printed = done.stdout if stream == "inventory.yaml" else done.stderr
    golden = HERE / f"{layout}.{stream}"
    if request.config.getoption("--update-golden", default=False):
        golden.write_text(printed, encoding="utf-8")
    assert printed == golden.read_text(encoding="utf-8")


@each_layout
def test_no_secret_comes_out(ran: tuple[str, Result]) -> None:
    layout, done = ran
    files = [path for path in (HERE / layout).rglob("*") if path.is_file()]
    assert any(SECRET in path.read_text() for path in files), "nothing would be found"
    assert SECRET not in done.stdout
    assert SECRET not in done.stderr


@each_layout
def test_check_refuses_it_only_where_something_is_marked_as_needed(ran: tuple[str, Result], tmp_path: Path) -> None:
    """What is empty is marked; nothing is refused but what is marked; and with that filled in there is nothing left to refuse."""
    lines = ran[1].stdout.splitlines()
    needed = [index for index in range(len(lines)) if _is_marked(lines, index)]
    path = tmp_path / "inventory.yaml"
    path.write_text(ran[1].stdout)
    assert {index for index in range(len(lines)) if _is_blank(lines, index)} <= {*needed}
    assert _refused(path) <= {*needed}
    for index in needed:
        key = lines[index].partition(":")[0]
        if _is_blank(lines, index) or "http" in lines[index]:
            lines[index] = f"{key}: {'client' if key.strip() == 'role' else f'http://filled.in:{1 + index}'}"
    path.write_text("\n".join(lines))
    assert _refused(path) == set()
    assert read_inventory(path).homeserver == "example.org"


def _refused(path: Path) -> set[int]:
    """The lines that are refused, from 0 (the first ten); of a driver's settings only the driver knows what it needs."""
    try:
        read_inventory(path)
    except InvalidFileError as error:
        return {int(line) - 1 for line in re.findall(rf"{re.escape(str(path))}:(\d+):", str(error))}
    return set()


def _is_blank(lines: list[str], index: int) -> bool:
    """Whether nothing stands there, not even in the lines below it."""
    if not (match := BLANK.match(lines[index])):
        return False
    below = next((line for line in lines[index + 1 :] if line.strip() and not line.lstrip().startswith("#")), "")
    return len(below) - len(below.lstrip()) <= len(match[1])


def _is_marked(lines: list[str], index: int) -> bool:
    """Whether a comment right above it says that it must be filled in."""
    if not lines[index].strip() or lines[index].lstrip().startswith("#"):
        return False
    above = []
    while index > 0 and lines[index - 1].lstrip().startswith("#"):
        index -= 1
        above.append(lines[index].lstrip())
    return any(line.startswith("# ? ! ") for line in above)
