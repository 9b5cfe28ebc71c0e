"""What is said about a file that is wrong: where, what, and what to write instead."""

from pathlib import Path

import pytest

from rollout.adapters.documents.read import read_inventory, read_playbook
from rollout.model.errors import InvalidFileError
from rollout.model.inventory import Inventory

REPOSITORY = Path(__file__).parents[3]

INVENTORY = """\
homeserver: example.org
workers:
  main: {role: main, pool: main, url: "http://h:1", metrics: "http://h:2"}
  sync1: {role: sync, pool: sync, url: "http://h:3", metrics: "http://h:4"}
  sync2:
    role: sync
    pool: sync
    url: "http://h:5"
    metrics: "http://h:6"
    depends_on: [sync1]
pools:
  main: {backend: main}
  sync: {backend: sync}
workers_driver: {driver: supervisor, socket: run/supervisor.sock}
releases_driver: {driver: venv}
traffic_driver: {driver: haproxy}
database_driver: {driver: postgresql, dsn: "file:database.dsn"}
ledger_driver: {driver: file}
"""

PLAYBOOK = """\
name: short
strategy:
  role_order: [sync, [client, pusher]]
  canary: sync1
gates:
  - id: cpu
    metric: poll_cpu_s
    ratio_max: 1.5
    samples_min: 100
"""


def _refused(tmp_path: Path, content: str | bytes, *, playbook: bool = False, inventory: Inventory | None = None) -> InvalidFileError:
    path = tmp_path / "file.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidFileError) as caught:
        read_playbook(path, inventory) if playbook else read_inventory(path)
    assert caught.value.where.startswith(str(path))
    return caught.value


def _where(error: InvalidFileError) -> str:
    """Line and column alone."""
    return error.where.partition(".yaml:")[2]


def _inventory(tmp_path: Path) -> Inventory:
    path = tmp_path / "inventory.yaml"
    path.write_text(INVENTORY, encoding="utf-8")
    return read_inventory(path)


def test_a_good_inventory_is_read(tmp_path: Path) -> None:
    inventory = _inventory(tmp_path)
    assert list(inventory.workers) == ["main", "sync1", "sync2"]
    assert inventory.workers_driver.settings() == {"socket": "run/supervisor.sock"}


def test_a_good_playbook_is_read(tmp_path: Path) -> None:
    path = tmp_path / "playbook.yaml"
    path.write_text(PLAYBOOK, encoding="utf-8")
    playbook = read_playbook(path, _inventory(tmp_path))
    assert playbook.strategy.role_order == ("sync", ("client", "pusher"))
    assert playbook.gates[0].ratio_max == 1.5


@pytest.mark.parametrize("name", ["demo", "synapse-workers"])
def test_our_own_playbooks_are_read(name: str) -> None:
    assert read_playbook(REPOSITORY / "playbooks" / f"{name}.yaml").name == name


@pytest.mark.parametrize(
    ("old", "new", "where", "what", "remedy"),
    [
        ("    role: sync\n", "    rol: sync\n", "6:5", 'unknown key "rol"', "role"),
        ("backend: sync}", "backed: sync}", "13:10", 'unknown key "backed"', "backend"),
        ("    pool: sync\n", "    pool: snyc\n", "7:11", 'there is no pool "snyc"', "sync"),
        ("role: sync, pool", "role: snyc, pool", "4:17", 'there is no role "snyc"', "sync"),
        ("[sync1]", "[sync9]", "10:18", 'there is no worker "sync9"', "sync2"),
        ("[sync1]", "[sync2]", "10:5", "depends_on goes round in a circle: sync2 → sync2", "remove one of them"),
        (
            'url: "http://h:3"',
            "url: 12:30",
            "4:40",
            "YAML reads 12:30 as 750",
            '"12:30" in quotes',
        ),
        (
            "homeserver: example.org",
            "homeserver: no",
            "1:13",
            "YAML reads no as false",
            '"no" in quotes',
        ),
        ("homeserver: example.org", "homeserver: 1.10", "1:13", "homeserver must be text, not the number 1.10", '"1.10" in quotes'),
        (
            "homeserver: example.org",
            "homeserver: 0777",
            "1:13",
            "YAML reads 0777 as 511",
            '"0777" in quotes',
        ),
        ("homeserver: example.org", "homeserver: .inf", "1:13", ".inf is not a finite number", "a number"),
        ("homeserver: example.org", "homeserver:", "1:12", "homeserver must be text, not nothing", "homeserver: …"),
        ("homeserver: example.org", "homeserver: ''", "1:13", "homeserver is empty", "homeserver: …"),
        ("  sync1: {", "  main: {", "4:3", 'the key "main" appears twice: first in line 3', "remove one of them"),
        ("  sync1: {", "  1: {", "4:3", "a key must be text", '"1" in quotes'),
        ("[sync1]", "*all", "10:17", "the alias *all is not supported", "write the value out"),
        ("[sync1]", "!!set {}", "10:17", "the tag !!set is not supported", "the plain value, in quotes if it is text"),
        (
            "[sync1]",
            "!!python/name:os.system x",
            "10:17",
            "the tag !!python/name:os.system is not supported",
            "the plain value, in quotes if it is text",
        ),
        ("[sync1]", "[sync1", "11:6", "not valid YAML", "indentation, brackets and quotes in this line or the one before"),
    ],
)
def test_a_wrong_inventory(tmp_path: Path, old: str, new: str, where: str, what: str, remedy: str) -> None:
    assert old in INVENTORY
    error = _refused(tmp_path, INVENTORY.replace(old, new))
    assert (_where(error), error.what, error.remedy) == (where, what, remedy)


@pytest.mark.parametrize(
    ("old", "new", "where", "what", "remedy"),
    [
        ("  canary:", "  canari:", "4:3", 'unknown key "canari"', "canary"),
        ("    ratio_max: 1.5", "    ratiomax: 1.5", "8:5", 'unknown key "ratiomax"', "ratio_max"),
        ("ratio_max: 1.5", "ratio_max: '1.5'", "8:16", 'ratio_max must be a number, not the text "1.5"', "1.5"),
        (
            "samples_min: 100",
            "samples_min: 0100",
            "9:18",
            "YAML reads 0100 as 64",
            "100",
        ),
        (
            "samples_min: 100",
            "samples_min: 1_000",
            "9:18",
            "YAML reads 1_000 as 1000",
            "1000",
        ),
        (
            "samples_min: 100",
            "samples_min: yes",
            "9:18",
            "YAML reads yes as true",
            "a number",
        ),
        (
            "samples_min: 100",
            "samples_min: true",
            "9:18",
            "samples_min must be a whole number, not the truth value true",
            "50, which it is if left out",
        ),
        ("samples_min: 100", "samples_min: 0", "9:18", "samples_min must be 1 or more, not 0", "50, which it is if left out"),
        ("[client, pusher]", "[client, pushr]", "3:31", 'there is no role "pushr"', "pusher"),
        ("canary: sync1", "canary: sync9", "4:11", 'there is no worker "sync9"', "sync2"),
        (
            "    ratio_max: 1.5\n",
            "    max: 1\n    roles: [pusher]\n",
            "7:13",
            "poll_cpu_s says nothing about the role pusher",
            "work_per_s or push_failure_ratio",
        ),
        ("    ratio_max: 1.5\n", "", "6:5", 'the gate "cpu" has no threshold', "ratio_max (times the baseline) or max (absolute)"),
    ],
)
def test_a_wrong_playbook(tmp_path: Path, old: str, new: str, where: str, what: str, remedy: str) -> None:
    assert old in PLAYBOOK
    error = _refused(tmp_path, PLAYBOOK.replace(old, new), playbook=True, inventory=_inventory(tmp_path))
    assert (_where(error), error.what, error.remedy) == (where, what, remedy)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b"# only a comment\n", "the file is empty"),
        (b"- a list\n", "the top of the file is a mapping (`key: value`), not a list"),
        (b"a: 1\n---\nb: 2\n", "not valid YAML"),
        (b"a: \x07\n", "a character that is no text: 0x07"),
        (b"name: caf\xe9\n", "not UTF-8"),
        (b"a: " + b"[" * 5000, "nested more than 32 deep"),
        (b"# " + b"x" * 1_000_000, "the file is larger than 1,000,000 bytes"),
    ],
)
def test_not_a_document_at_all(tmp_path: Path, content: bytes, what: str) -> None:
    assert _refused(tmp_path, content).what == what


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="no such file"):
        read_inventory(tmp_path / "none.yaml")
    with pytest.raises(InvalidFileError, match="is a directory"):
        read_inventory(tmp_path)


def test_the_message_shows_the_line_and_every_other_problem(tmp_path: Path) -> None:
    """One look, one round of corrections."""
    broken = PLAYBOOK.replace("canary: sync1", "canari: sync1").replace("samples_min: 100", "samples_min: many")
    error = _refused(tmp_path, broken, playbook=True)
    assert str(error).splitlines() == [
        f'{tmp_path}/file.yaml:4:3: unknown key "canari"',
        "    │   canari: sync1",
        f'    also {tmp_path}/file.yaml:9:18: samples_min must be a whole number, not the text "many" (try: 50, which it is if left out)',
        "    try: canary",
    ]


def test_a_secret_that_stands_in_the_file_is_not_repeated(tmp_path: Path) -> None:
    """Secrets are references, but the line that is shown may hold one all the same."""
    broken = INVENTORY.replace('{driver: postgresql, dsn: "file:database.dsn"}', "{dsn: 'postgresql://u:hunter2@h/d'}")
    error = _refused(tmp_path, broken)
    assert error.what == '"driver" is missing'
    assert "hunter2" not in str(error)
    assert "dsn: …" in str(error)
