"""Whole rollouts on two real hosts, over SSH, and what comes between: each fault has its sentence, and nobody stays out."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from rollout.lab.processes import wait_until
from tests.end_to_end.site import Command, begun, intent
from tests.hosts import units
from tests.hosts.agents import TIMER, armed, written
from tests.hosts.bed import hosts
from tests.hosts.small import DYING, GOOD, NEVER, OLD, SOAK_S, STATE, Small
from tests.hosts.small_worker import LIVES_S

REFUSED, ROLLED_BACK = 5, 3
AWAY_S = 60.0
# readmit_after_s, half a minute after the tool's last word, the timer's step and its accuracy; and a busy machine.
READMITTED_S = 90.0
EVERYBODY = {"main": True, "sync1": True, "sync2": True}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with hosts(tmp_path_factory.mktemp("beds"), "a", "b") as bed:
        small = Small(bed, tmp_path_factory.mktemp("small"))
        small.install()
        yield small


@pytest.fixture
def small(installed: Small, tmp_path: Path) -> Iterator[Small]:
    """Everybody is well and in traffic, before and after; the journal is another one."""
    installed.place = tmp_path
    wait_until(lambda: installed.in_traffic() == EVERYBODY, 30, "everybody is in traffic")
    yield installed
    wait_until(lambda: installed.in_traffic() == EVERYBODY, 30, "everybody is in traffic")
    assert written(installed.bed)["marks"] == {}
    assert not armed(installed.bed)


def _other(small: Small) -> str:
    """Name the release that neither of the sync workers runs; a test that failed may have left them on two."""
    ours = {small.runs("sync1"), small.runs("sync2")}
    if len(ours) > 1:
        assert small.run("deploy", "--to", OLD, "--only", "role=sync", "--yes", journal="before.db").code == 0
        return GOOD
    return OLD if ours == {GOOD} else GOOD


def _started(small: Small, before: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the releases that workers were started with since then."""
    return {name: found for name, releases in small.starts().items() if (found := releases[len(before[name]) :])}


def _out(small: Small, command: Command, worker: str) -> None:
    command.await_event(intent("drain", worker))
    wait_until(lambda: not small.in_traffic()[worker], 15, f"{worker} is out")


def test_everybody_gets_the_new_release_and_nothing_is_cut(small: Small) -> None:
    """Main's requests wait in HAProxy, which is told over SSH."""
    before, version = small.starts(), _other(small)
    with small.load() as load:
        done = small.run("deploy", "--to", version, "--yes")
    assert done.code == 0, done.text
    assert _started(small, before) == {"main": [version], "sync1": [version], "sync2": [version]}
    assert load.answered > 200
    assert load.cut == []


def test_one_that_dies_ten_seconds_after_its_start_is_taken_back_and_its_last_words_are_said(small: Small) -> None:
    before, version = small.starts(), small.runs("sync1")
    small.soak(1.5 * LIVES_S)
    try:
        with small.load() as load, small.deploy(DYING) as command:
            done = command.end()
    finally:
        small.soak(SOAK_S)
    assert done.code == ROLLED_BACK, done.text
    assert _started(small, before) == {"sync1": [DYING, version]}
    assert "sync1: its process has ended; its last words: a fault of this release: it ends now" in done.text.replace(
        "it has not answered for 15 s: ", ""
    )
    # It was in traffic when it died, which cuts what it had just then and nothing else.
    assert load.answered > 200
    assert all(said.startswith("sync") for _, said in load.cut)


def test_a_host_is_away_for_a_minute_while_its_worker_is_out(small: Small) -> None:
    """It is waited for, and the one thing that was to be done there is done once."""
    before, version = small.starts(), _other(small)
    with small.load() as load, small.deploy(version) as command:
        _out(small, command, "sync2")
        with small.bed.unplugged("b"):
            time.sleep(AWAY_S)
        done = command.end()
    assert done.code == 0, done.text
    assert units.where(small.bed, "b") in done.text
    assert _started(small, before) == {"sync1": [version], "sync2": [version]}
    assert load.cut == []


def test_a_connection_is_lost_in_the_middle_of_a_restart(small: Small) -> None:
    """What became of it isn't known, so it is looked at, and not done again."""
    before, version = small.starts(), _other(small)

    def asked() -> int:
        return small.bed.run("b", "cat", f"{STATE}/done").count(f" sync2 {version}")

    earlier, slow = asked(), (f"{STATE}/slow-set", f"{STATE}/slow-back")
    small.bed.run("b", "touch", *slow)
    try:
        with small.load() as load, small.deploy(version) as command:
            command.await_event(intent("restart", "sync2"))
            wait_until(lambda: asked() > earlier, 15, "it is under way")
            small.bed.signal_sessions("b", "KILL")
            done = command.end()
    finally:
        small.bed.run("b", "rm", *slow)
    assert done.code == 0, done.text
    assert "may or may not have happened" in done.text
    assert "was seen to have happened" in done.text
    assert _started(small, before) == {"sync1": [version], "sync2": [version]}
    assert load.cut == []


@contextmanager
def _another_key(small: Small) -> Iterator[None]:
    known = small.bed.known_hosts
    right = known.read_text()
    known.write_text(right.replace(small.bed.host_key("b"), small.bed.host_key("a")))
    try:
        yield
    finally:
        known.write_text(right)


@contextmanager
def _no_rules(small: Small) -> Iterator[None]:
    small.bed.run("b", "mv", "/etc/sudoers.d/rollout", "/etc/sudoers-of-rollout")
    try:
        yield
    finally:
        small.bed.run("b", "mv", "/etc/sudoers-of-rollout", "/etc/sudoers.d/rollout")


@contextmanager
def _hanging(small: Small) -> Iterator[None]:
    init = small.bed.init("b")
    os.kill(init, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(init, signal.SIGCONT)


@contextmanager
def _no_room(small: Small) -> Iterator[None]:
    small.write_inventory(room_bytes=10**18)
    try:
        yield
    finally:
        small.write_inventory()


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (lambda small: small.bed.unplugged("b"), "the host can't be reached"),
        (_another_key, "the host's key has changed"),
        (_no_rules, "sudo does not let"),
        (_hanging, "no answer"),
        (_no_room, "1000000000000 MB are needed"),
    ],
    ids=["unreachable", "another key", "no sudo", "systemd hangs", "disk full"],
)
def test_what_is_wrong_beforehand_is_said_and_nobody_is_touched(
    small: Small, trouble: Callable[[Small], AbstractContextManager[None]], says: str
) -> None:
    before = small.starts()
    with trouble(small), small.deploy(NEVER) as command:
        done = command.end()
    assert done.code == REFUSED, done.text
    assert says in done.text
    assert small.starts() == before
    assert not any(intent(verb, worker)(event) for event in command.events() for verb in ("drain", "restart") for worker in EVERYBODY)


def test_a_second_person_is_refused_with_the_name_of_the_first(small: Small) -> None:
    before, version = small.starts(), _other(small)
    with small.load(), small.deploy(version) as command:
        command.await_event(begun("sync1/soak"))
        second = small.run("deploy", "--to", version, "--yes", journal="other.db")
        done = command.end()
    assert second.code == REFUSED, second.text
    assert small.who in second.text
    assert done.code == 0, done.text
    assert _started(small, before) == {"sync1": [version], "sync2": [version]}


def test_the_tool_s_machine_is_lost_for_good_while_a_worker_is_out(small: Small) -> None:
    """The timer on the proxy's host admits it; who comes back goes on."""
    before, version = small.starts(), _other(small)
    with small.load() as load:
        with small.deploy(version) as command:
            _out(small, command, "sync2")
            command.send(signal.SIGKILL)
        assert armed(small.bed)
        wait_until(lambda: small.in_traffic()["sync2"] and written(small.bed)["marks"] == {}, READMITTED_S, "it is admitted again")
        wait_until(lambda: TIMER not in small.bed.run("a", "systemctl", "list-timers", "--all", "--no-pager"), 30, "the timer has gone")
        resumed = small.run("resume")
    assert resumed.code == 0, resumed.text
    assert _started(small, before) == {"sync1": [version], "sync2": [version]}
    assert load.cut == []
