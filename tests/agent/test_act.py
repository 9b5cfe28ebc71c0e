"""Compare, store and act: agents that race, wait, are stopped, are killed, and ledgers that are not whole."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from rollout.adapters.traffic.haproxy import Haproxy
from rollout.agent.book import LEAP, Book, locked
from rollout.model.ids import WorkerId
from rollout.ports.traffic import Server
from tests.agent.processes import Agent, act, acting, done, is_stopped, lines, mark, marks, until, waits_at, write
from tests.contracts.proxy import haproxy
from tests.contracts.proxy import until as until_proxy

SYNC1 = WorkerId("sync1")
SERVER = Server("sync", "sync1")
TIMEOUT_S = 5.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is; nobody has written it yet."""
    return tmp_path / "rollout/ledger.json"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where acts write what they do."""
    return tmp_path / "log"


def test_of_two_that_race_with_one_number_exactly_one_acts(path: Path, log: Path) -> None:
    """The other is told that it comes too late, by whom, and which number is the highest."""
    for number in range(1, 6):
        with (
            acting(path, number=number, owner="a", acts=[write(log, f"a{number}")]) as one,
            acting(path, number=number, owner="b", acts=[write(log, f"b{number}")]) as other,
        ):
            said = {"a": one.outcome(), "b": other.outcome()}
        winner, loser = sorted("ab", key=lambda name: str(said[name]["outcome"]))
        assert said[winner] == {"outcome": "done", "number": number}
        assert (said[loser]["outcome"], said[loser]["number"]) == ("stale", number)
        assert f"{number} was done already by {winner}" in said[loser]["what"]
        assert done(log)[number - 1 :] == [f"{winner}{number}"]


def test_acts_on_one_worker_follow_one_another_and_hold_up_no_other(path: Path, log: Path) -> None:
    go = log.with_name("go")
    with acting(path, number=1, acts=[write(log, "restarted", once=go)]) as one:
        until(lambda: bool(lines(log)), "the first has begun")
        with acting(path, number=2, acts=[write(log, "admitted")]) as other:
            until(lambda: waits_at(other.pid, path.with_name("ledger.sync1.lock")), "the second waits")
            assert act(path, number=3, worker="sync2", acts=[write(log, "the other drained")])["outcome"] == "done"
            go.touch()
            assert (one.outcome()["outcome"], other.outcome()["outcome"]) == ("done", "done")
    assert done(log) == ["the other drained", "restarted", "admitted"]


def test_a_worker_that_stays_busy_is_not_waited_for_and_its_holder_is_named(path: Path, log: Path) -> None:
    """It did not happen, the number is not used, and the same act may come again."""
    lock = path.with_name("ledger.sync1.lock")
    with locked(lock, 1.0, "RESTART of sync1 by 20261125-1", where="sync1"):
        began_s = time.monotonic()
        said = act(path, number=9, wait_s=0.3, acts=[write(log, "too early")])
        assert time.monotonic() - began_s < 5
    assert said["outcome"] == "transient"
    assert f"process {os.getpid()} since" in said["why"]
    assert "RESTART of sync1 by 20261125-1" in said["why"]
    assert lines(log) == []
    assert act(path, number=9, acts=[write(log, "now")])["outcome"] == "done"


def test_one_that_was_stopped_before_it_compared_finds_out_that_somebody_took_over(tmp_path: Path, path: Path) -> None:
    """SIGSTOP while it waits for the worker; a higher token admits it; woken, it is refused, and the proxy never hears of its drain."""
    with haproxy(tmp_path) as proxy:
        driver = Haproxy((proxy.admin,), proxy.master)
        until_proxy(lambda: driver.look({SYNC1: SERVER}, TIMEOUT_S)[SYNC1].up)
        drain, admit = list(driver.drain_acts(SERVER, TIMEOUT_S)), list(driver.admit_acts(SERVER, 100, TIMEOUT_S))
        lock = path.with_name("ledger.sync1.lock")
        with ExitStack() as stack:
            somebody = stack.enter_context(ExitStack())
            somebody.enter_context(locked(lock, 1.0, "acts", where="sync1"))
            late = stack.enter_context(acting(path, number=70, token=1, owner="a", mark=mark(), acts=drain))
            until(lambda: waits_at(late.pid, lock), "it waits")
            os.kill(late.pid, signal.SIGSTOP)
            until(lambda: is_stopped(late.pid), "it is stopped")
            somebody.close()
            assert Agent("take", str(path), "2", "b").outcome() == {"outcome": "done"}
            assert act(path, number=3, token=2, owner="b", clears=True, acts=admit) == {"outcome": "done", "number": 3}
            os.kill(late.pid, signal.SIGCONT)
            said = late.outcome()
        assert (said["outcome"], said["where"]) == ("taken_over", "sync1")
        assert "b has taken over" in said["what"]
        assert driver.look({SYNC1: SERVER}, TIMEOUT_S)[SYNC1].admitted
        assert marks(path) == {}


def test_one_that_is_killed_while_it_acts_leaves_its_mark_and_its_number_and_no_lock(path: Path, log: Path) -> None:
    """Between storing and the end of its acts: whoever comes next knows that it is ours, and may bring it back at once."""
    with acting(path, number=5, mark=mark(), acts=[write(log, "first", after_s=3), write(log, "second")]) as one:
        until(lambda: bool(lines(log)), "it acts")
        one.kill()
    assert marks(path)["sync1"]["number"] == 5
    assert act(path, number=5, owner="b", acts=[write(log, "b")])["outcome"] == "stale"
    assert act(path, number=6, owner="b", clears=True, acts=[write(log, "admitted")]) == {"outcome": "done", "number": 6}
    assert marks(path) == {}
    assert "second" not in done(log)


def test_a_mark_is_cleared_after_the_acts_and_not_if_one_fails(path: Path, log: Path) -> None:
    """What fails keeps those behind it from being done."""
    act(path, number=1, mark=mark())
    fails = {"kind": "command", "argv": ["sh", "-c", "echo the proxy is away; exit 3"], "timeout_s": 5.0}
    said = act(path, number=2, clears=True, acts=[fails, write(log, "behind it")])
    assert (said["outcome"], said["what"], said["why"]) == ("permanent", "sh ended with status 3", "the proxy is away")
    assert (list(marks(path)), lines(log)) == (["sync1"], [])
    assert act(path, number=2, clears=True, acts=[write(log, "admitted")])["outcome"] == "done"
    assert marks(path) == {}


def test_a_command_that_takes_too_long_is_ended_and_in_doubt(path: Path, log: Path) -> None:
    script = "sleep 30; echo late >> $0"
    began_s = time.monotonic()
    said = act(path, number=1, acts=[{"kind": "command", "argv": ["sh", "-c", script, str(log)], "timeout_s": 0.3}])
    assert (said["outcome"], said["what"]) == ("unknown", "sh took longer than 0 s")
    assert time.monotonic() - began_s < 10
    assert lines(log) == []


def test_nothing_is_done_of_what_it_doesn_t_know(path: Path, log: Path) -> None:
    """An agent that is older than the tool refuses before it acts, and no number is used."""
    said = act(path, number=1, mark=mark(), acts=[write(log, "drained"), {"kind": "teleport"}])
    assert (said["outcome"], said["what"]) == ("permanent", "the agent doesn't know how to do 'teleport'")
    said = act(path, number=1, mark=mark(), acts=[write(log, "drained")], colour="green")
    assert (said["outcome"], said["what"]) == ("permanent", "the agent doesn't understand what it is told")
    assert lines(log) == []
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "\0" * 300, "null", "[]", "{}", "torn", '{"numbers": {}, "marks": {"sync1": 7}}'])
def test_a_ledger_that_is_not_whole_stops_everything_and_is_left_as_it_is(path: Path, log: Path, content: str) -> None:
    """An empty one would say that nothing is ours."""
    act(path, number=7, mark=mark())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "torn" else content.encode())
    left = path.read_bytes()
    said = act(path, number=8, acts=[write(log, "done")])
    assert (said["outcome"], said["what"]) == ("permanent", "the ledger is not one")
    assert (path.read_bytes(), lines(log)) == (left, [])
    for command in (("take", str(path), "3"), ("beat", str(path), "3", "1e12"), ("marks", str(path))):
        assert Agent(*command).outcome()["what"] == "the ledger is not one"


def test_what_somebody_left_half_written_is_no_ledger(path: Path) -> None:
    """Killed while it wrote: the ledger is what it was before."""
    act(path, number=7, mark=mark())
    path.with_suffix(".half").write_text('{"numbers": {"sync1"')
    assert act(path, number=6, owner="b")["outcome"] == "stale"
    assert act(path, number=8)["outcome"] == "done"
    assert list(marks(path)) == ["sync1"]


def test_on_a_full_disk_nothing_is_done(path: Path, log: Path) -> None:
    """What can't be written down first is not done; it may be well again later."""
    act(path, number=1, mark=mark())
    half = path.with_suffix(".half")
    half.symlink_to("/dev/full")
    said = act(path, number=2, acts=[write(log, "done")])
    assert said["outcome"] == "transient"
    assert "No space left" in said["why"]
    assert lines(log) == []
    half.unlink()
    assert act(path, number=2, acts=[write(log, "done")])["outcome"] == "done"


def test_a_ledger_of_an_older_rollout_is_read(path: Path) -> None:
    """It knows no tokens, owners or ways back."""
    path.parent.mkdir()
    old = {"number": 7, "release": "2.0.0-0a1b2c3d", "why": "sync first", "at_s": 1.0, "condemned": None}
    path.write_text(json.dumps({"numbers": {"sync1": 7}, "marks": {"sync1": old}}))
    assert Agent("marks", str(path)).outcome()["marks"]["sync1"] == old
    assert act(path, number=6, owner="b")["outcome"] == "stale"
    assert act(path, number=8, owner="b", clears=True)["outcome"] == "done"
    assert marks(path) == {}


def test_the_next_number_is_given_under_the_lock(path: Path) -> None:
    """Five at once, and everybody has one of its own; what a rollout had on its way comes too late afterwards."""
    act(path, number=7, mark=mark())
    agents = [Agent("act", str(path), order={"worker": f"w{n}", "number": None, "acts": [], "wait_s": 5.0}) for n in range(5)]
    numbers = sorted(one.outcome()["number"] for one in agents)
    assert numbers == [7 + LEAP * n for n in range(1, 6)]
    assert Book(path).read().token == 0


def test_the_folder_alone_is_enough(tmp_path: Path, path: Path, log: Path) -> None:
    """Copied to where nothing of rollout is, and run by a bare Python, it acts as here."""
    elsewhere = tmp_path / "host/rollout/agent"
    shutil.copytree(Path(sys.modules["rollout.agent"].__path__[0]), elsewhere, ignore=shutil.ignore_patterns("__pycache__"))
    order = json.dumps({"worker": "sync1", "number": 1, "acts": [write(log, "done")], "wait_s": 1.0})
    command = [sys.executable, "-I", "-S", str(elsewhere / "agent.py"), "act", str(path)]
    said = subprocess.run(
        command, input=order, capture_output=True, text=True, timeout=20, check=True, env={"PATH": "/usr/bin:/bin"}, cwd="/"
    )
    assert json.loads(said.stdout) == {"outcome": "done", "number": 1}
    assert done(log) == ["done"]


def test_it_is_told_how_it_is_called(path: Path) -> None:
    for wrong in ((), ("act",), ("teleport", str(path)), ("take", str(path), "much")):
        done = subprocess.run(
            [sys.executable, "-I", "-S", sys.modules["rollout.agent.agent"].__file__ or "", *wrong],
            input="{}",
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert "agent.py act LEDGER" in done.stderr


def test_it_costs_little(path: Path) -> None:
    """Every effect pays for a start: less than three times the CPU of a Python that imports what nothing does without."""

    def cost_s(*command: str, order: str = "") -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, input=order, capture_output=True, text=True, timeout=20, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare = (sys.executable, "-I", "-S")
    program = sys.modules["rollout.agent.agent"].__file__ or ""
    ours_s, least_s = [], []
    for number in range(1, 8):
        order = json.dumps({"worker": "sync1", "number": number, "acts": [], "wait_s": 1.0})
        ours_s.append(cost_s(*bare, program, "act", str(path), order=order))
        least_s.append(cost_s(*bare, "-c", "import json, subprocess"))
    assert Book(path).read().numbers == {"sync1": 7}
    assert min(ours_s) < 3 * min(least_s), (ours_s, least_s)
