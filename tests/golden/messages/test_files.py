"""
What is said of files that are wrong.

Each case is an inventory or a playbook with one thing wrong, which its first line names; beside it stands what `rollout check` prints.
Files that can't be told apart by eye are made here. After a change on purpose: `pytest tests/golden --update-golden`, and read the diff.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from rollout.interfaces.cli import cli
from rollout.lab.paths import NOBODY
from tests.golden.messages.golden import HERE, matches

INVENTORY = HERE / "inventory.yaml"
PLAYBOOK = HERE / "playbook.yaml"
GOOD = PLAYBOOK.read_bytes()
INVALID_FILE = 2
# A message that has to be scrolled isn't read.
LINES_MAX = 20

Make = Callable[[Path], object]

MADE: dict[str, Make] = {
    "absent": lambda _: None,
    "directory": lambda path: path.mkdir(),
    "empty": lambda path: path.touch(),
    "fifty_megabytes": lambda path: path.write_bytes(b"# a comment\n" * 4_400_000),
    "not_utf8": lambda path: path.write_bytes(b"name: caf\xe9\n"),
    "utf16": lambda path: path.write_bytes("name: golden\n".encode("utf-16")),
    "null_bytes": lambda path: path.write_bytes(b"name: gol\x00den\n"),
    "control_character": lambda path: path.write_bytes(b"name: golden\nstrategy: {canary: \x1b[2J}\n"),
    "deep": lambda path: path.write_bytes(b"name: " + b"[" * 100_000),
    "no_number_of_python": lambda path: path.write_bytes(b"name: golden\nstrategy: {drain_timeout_s: 0x" + b"f" * 10_000 + b"}\n"),
    "fifo": os.mkfifo,
    "many_entries": lambda path: path.write_bytes(b"name: golden\nliveness_only:\n" + b"- sync\n" * 140_000 + b"strategy: 3\n"),
    "bom_and_crlf": lambda path: path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n") + b"strategy: {canari: client1}\r\n"),
}
# What a file that a secret refers to may hold.
SECRETS: dict[str, bytes] = {"secret_empty": b"\n", "secret_too_long": b"x" * 70_000, "secret_not_utf8": b"hunter2\xff"}
PLANS: dict[str, Make] = {
    "plan_absent": lambda _: None,
    "plan_empty": lambda path: path.touch(),
    "plan_of_yaml": lambda path: path.write_bytes(GOOD),
    "plan_of_nothing": lambda path: path.write_bytes(b"{}"),
    "plan_deep": lambda path: path.write_bytes(b"[" * 100_000),
    "plan_huge_number": lambda path: path.write_bytes(b'{"digest": ' + b"9" * 10_000 + b"}"),
    "plan_not_utf8": lambda path: path.write_bytes(b'{"digest": "\xff"}'),
    "plan_fifty_megabytes": lambda path: path.write_bytes(b" " * 50_000_000),
    "plan_fifo": os.mkfifo,
}
CASES = sorted(f"{path.parent.name}/{path.stem}" for path in (*HERE.glob("inventory/*.yaml"), *HERE.glob("playbook/*.yaml")))


@pytest.fixture(autouse=True)
def nothing_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it would be, if anything were: the journal and everything that the inventory names by a relative path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROLLOUT_JOURNAL", str(tmp_path / "journal.db"))


def place(directory: Path, case: str) -> tuple[Path, Path]:
    """Lay a case and the good file that it goes with side by side."""
    inventory, playbook = (Path(shutil.copy(good, directory)) for good in (INVENTORY, PLAYBOOK))
    bad = HERE / f"{case}.yaml"
    shutil.copy(bad, inventory if bad.parent.name == "inventory" else playbook)
    return inventory, playbook


def check(inventory: Path, playbook: Path) -> tuple[int, str]:
    """Run `rollout check`; return its exit code and what it said that was wrong."""
    done = CliRunner().invoke(cli, ["check", "-i", str(inventory), "-p", str(playbook)])
    return done.exit_code, done.stderr


@pytest.mark.parametrize("case", CASES)
def test_a_file_with_something_wrong(case: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Said with line, column and remedy; and nothing was touched."""
    inventory, playbook = place(tmp_path, case)
    code, said = check(inventory, playbook)
    assert code == INVALID_FILE, said
    assert {path.name for path in tmp_path.iterdir()} == {"inventory.yaml", "playbook.yaml"}
    matches(request, case, said, {f"{tmp_path}/": ""})
    assert re.match(rf"rollout: {tmp_path}/\w+\.yaml:\d+:\d+: \S", said)
    assert re.search(r"^    try: \S", said, re.MULTILINE)
    assert "hunter2" not in said
    assert said.count("\n") <= LINES_MAX


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("which", ["-i", "-p"])
def test_a_file_that_is_no_text(name: str, which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Inventory or playbook, it is the same; and it doesn't take long."""
    bad = tmp_path / "bad.yaml"
    MADE[name](bad)
    # Of the processor's time: a machine that is busy with something else is no reason.
    began_s = time.process_time()
    code, said = check(bad, PLAYBOOK) if which == "-i" else check(INVENTORY, bad)
    assert time.process_time() - began_s < 10
    assert code == INVALID_FILE, said
    if which == "-p":
        matches(request, f"made/{name}", said, {f"{tmp_path}/": ""})
    assert re.search(r"^    try: \S", said, re.MULTILINE)
    assert "Traceback" not in said


def test_fifty_megabytes_are_not_read_to_their_end(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    with bad.open("wb") as file:
        file.truncate(50_000_000)
    began_s = time.monotonic()
    code, said = check(INVENTORY, bad)
    assert time.monotonic() - began_s < 5
    assert (code, "larger than 1,000,000 bytes" in said) == (INVALID_FILE, True)


def test_a_mark_at_the_beginning_and_the_line_ends_of_windows_are_accepted(tmp_path: Path) -> None:
    for name, good in (("inventory.yaml", INVENTORY), ("playbook.yaml", PLAYBOOK)):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + good.read_bytes().replace(b"\n", b"\r\n"))
    assert check(tmp_path / "inventory.yaml", tmp_path / "playbook.yaml") == (0, "")


def test_a_pool_of_one_without_a_hold_is_accepted_with_its_price(tmp_path: Path) -> None:
    """Unless the playbook asks for it by name; with a hold nothing is cut."""
    held = tmp_path / "inventory.yaml"
    held.write_text(INVENTORY.read_text(encoding="utf-8").replace("{backend: main}", "{backend: main, hold: true}"), encoding="utf-8")
    done = CliRunner().invoke(cli, ["check", "-i", str(held), "-p", str(PLAYBOOK)])
    assert done.exit_code == 0
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("pool ")]
    assert line.startswith(
        "pool sync: requests will be cut while sync1, its only worker, is out; `hold: true` in the inventory and hold.lua"
    )


def test_the_good_files_are_good() -> None:
    """Or each case would be refused for any reason."""
    assert check(INVENTORY, PLAYBOOK) == (0, "")


def test_a_file_without_permission(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    bad = tmp_path / "bad.yaml"
    bad.touch(mode=0)
    # What the command needs is imported now: whoever takes root's place may not be allowed to read even that.
    assert check(INVENTORY, PLAYBOOK) == (0, "")
    myself = os.geteuid()
    if myself == 0:
        os.seteuid(NOBODY)
    try:
        code, said = check(bad, PLAYBOOK)
    finally:
        os.seteuid(myself)
    assert code == INVALID_FILE
    matches(request, "made/no_permission", said, {f"{tmp_path}/": ""})


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_can_not_be_used(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Said where the reference stands, and without what the file holds."""
    (tmp_path / "secret").write_bytes(SECRETS[name])
    inventory = tmp_path / "inventory.yaml"
    inventory.write_bytes(INVENTORY.read_bytes() + b"probe_driver: {driver: http, as_token: file:secret, user: '@warm:example.org'}\n")
    code, said = check(inventory, PLAYBOOK)
    assert code == INVALID_FILE, said
    matches(request, f"made/{name}", said, {f"{tmp_path}/": ""})
    assert "hunter2" not in said


def test_a_secret_that_is_a_pipe_without_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secret")
    inventory = tmp_path / "inventory.yaml"
    inventory.write_bytes(INVENTORY.read_bytes() + b"database_driver: {driver: postgresql, dsn: file:secret}\n")
    began_s = time.monotonic()
    code, said = check(inventory, PLAYBOOK)
    assert time.monotonic() - began_s < 6
    assert (code, "file:secret: it is a pipe, and nobody writes into it" in said) == (INVALID_FILE, True)


ADDRESS = "https://hooks.example.org/services/hunter2"


@pytest.mark.parametrize(
    "section",
    [
        f"notifier_driver: {{driver: webhook, url: {ADDRESS}, heartbeat: {ADDRESS}, colour: blue}}",
        f"notifier_driver: {{driver: webhook, ulr: {ADDRESS}}}",
        f"notifier_driver: {{driver: {ADDRESS}}}",
        f"notifier_driver: {{driver: [{ADDRESS}]}}",
        f"notifier_driver: {ADDRESS}",
        f"notifier_driver: [{ADDRESS}]",
        f"notifier_drivr: {{driver: webhook, url: {ADDRESS}}}",
        f"notifier: {{driver: webhook, url: {ADDRESS}}}",
        f"notifier_driver: {{driver: webhook, url: env:HOME, url: {ADDRESS}}}",
        "probe_driver: {driver: http, as_token: [hunter2]}",
        "probe_driver: {driver: http, as_token: {hunter2: x}}",
        "probe_driver: {driver: http, as_token: *hunter2}",
        "probe_driver: {driver: http, as_token: !hunter2 x}",
        "probe_driver:\n  driver: http\n  as_token: >\n    hunter2\n    hunter2",
        "as_token: [hunter2]",
        'database_driver: {driver: postgresql, dsn: "env:host=x password=hunter2"}',
        'database_driver: {driver: postgresql, dsn: "file:x password=hunter2"}',
        "database_driver:\n  driver: postgresql\n  dsn: |\n    host=h password=hunter2\n   bad",
        "database_driver:\n  driver: postgresql\n  dsn:\n    - host=h\n     hunter2 : x: y",
        'database_driver: {driver: postgresql, dsn: "host=x password=hunter2\\q"}',
        "history_driver: {driver: prometheus, url: 'http://h:9090', token: hunter2}",
        "history_driver: {driver: prometheus, url: 'http://me:hunter2@h:9090'}",
        "history_driver: {driver: prometheus, url: 'http://h:9090', user: me, password: [hunter2]}",
        "workers: {main: {password: hunter2}}",
        'kind: "host=x password=hunter2"',
    ],
)
def test_no_secret_is_ever_repeated(section: str, tmp_path: Path) -> None:
    """However wrong the section is that it stands in."""
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(f"{INVENTORY.read_text(encoding='utf-8')}{section}\n", encoding="utf-8")
    code, said = check(inventory, PLAYBOOK)
    assert code == INVALID_FILE
    assert re.search(r"^rollout: .*inventory.yaml:\d+:\d+: ", said)
    assert "hunter2" not in said


@pytest.mark.parametrize("name", PLANS)
def test_a_file_that_is_no_saved_plan(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Said before anybody else is kept out, and without waiting for what never comes."""
    bad = tmp_path / "plan.json"
    PLANS[name](bad)
    began_s = time.monotonic()
    done = CliRunner().invoke(cli, ["deploy", "-i", str(INVENTORY), "--journal", str(tmp_path / "journal.db"), str(bad), "--yes"])
    assert time.monotonic() - began_s < 6
    assert done.exit_code == INVALID_FILE, done.output
    matches(request, f"made/{name}", done.stderr, {f"{tmp_path}/": ""})
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("journal.db")} <= {"plan.json"}


@pytest.mark.parametrize("changed", ["", "sockets: []"])
def test_what_a_command_prints_is_read_as_a_file(changed: str, tmp_path: Path) -> None:
    """`-i <(…)`: it can be read only once, also when a driver doesn't accept its settings."""
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(INVENTORY.read_text(encoding="utf-8").replace("sockets: [run/haproxy.sock]", changed or "sockets: [x]"))
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m rollout check -i <(sleep 0.5; cat {inventory}) -p <(cat {PLAYBOOK})"],
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == (INVALID_FILE if changed else 0), done.stderr
    assert bool(re.search(r":14:44: sockets is empty$", done.stderr, re.MULTILINE)) == bool(changed)


@pytest.mark.parametrize("case", ["inventory/several_kinds", "inventory/secret_in_plain", "playbook/seconds_with_a_unit"])
@pytest.mark.parametrize("command", [("plan", "--restart"), ("deploy", "--restart", "--yes"), ("check",)], ids=lambda command: command[0])
def test_every_command_says_the_same(case: str, command: tuple[str, ...], tmp_path: Path) -> None:
    """A real process, as a person or CI would run it."""
    inventory, playbook = place(tmp_path, case)
    done = subprocess.run(
        [sys.executable, "-m", "rollout", *command, "-i", inventory, "-p", playbook],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == INVALID_FILE
    assert done.stderr.replace(f"{tmp_path}/", "") == (HERE / f"{case}.txt").read_text(encoding="utf-8")
    # The journal is the tool's own; no ledger, lock or release of the homeserver's was made.
    assert {path.name for path in tmp_path.iterdir()} - {"journal.db"} == {"inventory.yaml", "playbook.yaml"}


def test_every_text_has_its_case() -> None:
    texts = {f"{path.parent.name}/{path.stem}" for folder in ("inventory", "playbook", "made") for path in (HERE / folder).glob("*.txt")}
    assert texts == {*CASES, *(f"made/{name}" for name in (*MADE, *SECRETS, *PLANS)), "made/no_permission"}
