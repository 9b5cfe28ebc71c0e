"""A worker that is lent to another host: who may act on it, when it comes back, and what the dead-man makes of it."""

import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.agent import lending
from rollout.agent.book import LEAP, Book, Claim
from rollout.agent.deadman import Duty, sweep
from rollout.agent.fault import LENT, STALE, TAKEN_OVER, Fault
from tests.agent.processes import act, acting, done, is_stopped, lines, until, write
from tests.contracts.server import Says, serving

RESTART = Claim("sync1", 5, token=1, owner="a", runs="2.0.0-0a1b2c3d", what="RESTART of sync1 by a")
AFTER_S = 1.0


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """Nobody has written it yet."""
    return Book(tmp_path / "rollout/ledger.json")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where acts write what they do."""
    return tmp_path / "log"


@pytest.fixture
def health() -> Iterator[str]:
    with serving(Says(b"OK")) as server:
        yield f"{server.url}/health"


def _refused(book: Book, claim: Claim, kind: str) -> Fault:
    with pytest.raises(Fault) as refused, book.acting(claim, 1.0):
        pytest.fail("it was done nevertheless")
    assert refused.value.kind == kind
    return refused.value


def test_nobody_acts_on_one_that_is_lent_until_it_is_given_back(book: Book) -> None:
    """Also by hand; other workers are acted on meanwhile. Who comes too late is told that, and not to wait."""
    lend = lending.lend(book, RESTART, 1.0, ["b"], 30.0)
    assert (lend.token, lend.number) == (1, 5)
    assert 0 < lend.begin_by_s - time.time() <= lending.BEGIN_S
    assert lend.until_s == lend.begin_by_s + 30.0
    fault = _refused(book, replace(RESTART, number=6), LENT)
    assert (fault.number, fault.why) == (5, "RESTART of sync1 by a")
    _refused(book, Claim("sync1", None, owner="by hand"), LENT)
    _refused(book, replace(RESTART, number=4), STALE)
    with book.acting(replace(RESTART, worker="sync2", number=7), 1.0):
        pass
    book.take(2, "b")
    _refused(book, replace(RESTART, number=6), TAKEN_OVER)
    _refused(book, replace(RESTART, number=6, token=2), LENT)
    lending.give_back(book, RESTART, 1, done=False)
    with book.acting(replace(RESTART, number=6, token=2), 1.0):
        pass


def test_whoever_has_settled_one_lend_has_not_settled_another(book: Book) -> None:
    lending.lend(book, RESTART, 1.0, ["b"], 30.0)
    lending.lend(book, replace(RESTART, number=6, settled=5), 1.0, ["b"], 30.0)
    _refused(book, replace(RESTART, number=7, settled=5), LENT)
    # What is given back is not what is lent now.
    lending.give_back(book, RESTART, 1, done=True)
    assert book.read().lent["sync1"]["number"] == 6
    with book.acting(Claim("sync1", None, owner="by hand", settled=6), 1.0) as number:
        assert number == 6 + LEAP
    assert book.read().lent == {}


def test_a_lend_ends_by_itself(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time in which its act has to begin, that of the act, and what two clocks may differ by."""
    lending.lend(book, RESTART, 1.0, ["b"], 30.0)
    now_s, over_s = time.time(), lending.BEGIN_S + 30.0 + lending.SKEW_S
    monkeypatch.setattr("rollout.agent.book.time.time", lambda: now_s + over_s - 1)
    _refused(book, replace(RESTART, number=6), LENT)
    monkeypatch.setattr("rollout.agent.book.time.time", lambda: now_s + over_s + 1)
    with book.acting(replace(RESTART, number=6), 1.0):
        pass


def test_what_it_runs_is_known_once_a_restart_was_done_and_not_while_it_is_under_way(book: Book) -> None:
    """Nor after one of which nobody knows what became of it."""
    lending.lend(book, RESTART, 1.0, ["b"], 30.0)
    assert book.read().runs == {}
    lending.give_back(book, RESTART, 1, done=True)
    assert book.read().runs == {"sync1": "2.0.0-0a1b2c3d"}
    with pytest.raises(Fault), book.acting(replace(RESTART, number=6), 1.0):
        raise Fault("unknown", "nobody knows")
    assert book.read().runs == {}


def test_the_dead_man_waits_until_a_lend_is_over(book: Book, log: Path, health: str) -> None:
    """It reaches no other host: what is on its way there may still stop the worker, which must not be admitted then."""
    back = {"acts": [write(log, "admitted")], "health": health, "link": None, "after_s": 0.0}
    mark = {"release": "2.0.0-0a1b2c3d", "why": "sync first", "condemned": None, "back": back}
    with book.acting(Claim("sync1", 4, token=1, owner="a", mark=mark), 1.0):
        pass
    lending.lend(book, RESTART, 1.0, ["b"], 30.0)
    said: list[str] = []
    duty = Duty("example.org", AFTER_S)
    assert sweep(book, duty, time.time() + 2 * AFTER_S, said.append)
    assert (lines(log), said) == ([], [])
    lending.give_back(book, RESTART, 1, done=False)
    assert not sweep(book, duty, time.time() + 2 * AFTER_S, said.append)
    assert done(log) == ["admitted"]


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (True, "sync1: it runs 2.0.0-0a1b2c3d, which was being taken back"),
        (False, "sync1: 2.0.0-0a1b2c3d was being taken back from it, and what it runs can't be seen"),
    ],
)
def test_one_without_a_link_here_runs_what_it_was_last_restarted_to_run(
    book: Book, log: Path, health: str, *, ended: bool, told: str
) -> None:
    back = {"acts": [write(log, "admitted")], "health": health, "link": None, "after_s": 0.0}
    mark = {"release": "1.0.0-00000000", "why": "back", "condemned": "2.0.0-0a1b2c3d", "back": back}
    lending.lend(book, RESTART, 1.0, ["b"], 30.0)
    lending.give_back(book, RESTART, 1, done=ended)
    with book.acting(Claim("sync1", 6, token=1, owner="a", mark=mark), 1.0):
        pass
    said: list[str] = []
    duty = Duty("example.org", AFTER_S)
    assert sweep(book, duty, time.time() + 2 * AFTER_S, said.append)
    assert said == [told]
    with book.acting(replace(RESTART, number=7, runs="1.0.0-00000000"), 1.0):
        pass
    assert not sweep(book, duty, time.time() + 2 * AFTER_S, said.append)
    assert done(log) == ["admitted"]


def test_an_act_that_comes_after_its_time_is_not_begun(book: Book, log: Path) -> None:
    """Nothing is written down; the same may come again in time."""
    said = act(book.path, number=5, begin_by_s=time.time() - 3, acts=[write(log, "restarted")])
    assert said["outcome"] == "transient"
    assert re.fullmatch(r"effect 5 comes \d+ s too late to be begun", said["what"])
    assert lines(log) == []
    assert act(book.path, number=5, begin_by_s=time.time() + 30, acts=[write(log, "restarted")])["outcome"] == "done"


@pytest.mark.parametrize("bound", ["until_s", "within_s"])
def test_an_agent_that_was_stopped_and_is_woken_after_its_time_does_nothing_more(book: Book, log: Path, bound: str) -> None:
    """Its own alarm is the first thing that it meets: whoever waited for the lend to be over may have admitted the worker."""
    acts = [write(log, "first", after_s=0.5), write(log, "second")]
    end_s = {"until_s": time.time() + 2.5, "within_s": 2.5}[bound]
    with acting(book.path, number=5, acts=acts, **{bound: end_s}) as one:
        until(lambda: bool(lines(log)), "it acts")
        os.kill(one.pid, signal.SIGSTOP)
        until(lambda: is_stopped(one.pid), "it is stopped")
        time.sleep(3)
        os.kill(one.pid, signal.SIGCONT)
        one.process.communicate(timeout=10)
        assert one.process.returncode == -signal.SIGALRM
    assert "second" not in done(log)
