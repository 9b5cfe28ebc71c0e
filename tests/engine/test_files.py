"""File handles: their level, and where their growth leads. Unknown of one worker is unknown."""

import pytest

from rollout.engine.files import ASK_AGAIN_S, FILES_PROJECTED, FILES_USED, FRESH_S, Files
from rollout.homeservers.synapse.metrics import Counters
from rollout.model.ids import WorkerId

SYNC1, SYNC2 = WorkerId("sync1"), WorkerId("sync2")


def _page(files: float, started_at_s: float = 0.0, most: float = 1000.0) -> Counters:
    return Counters("1.163.2", started_at_s, open_files=files, files_max=most)


def _measured(*seen: tuple[float, float], started_at_s: float = 0.0) -> Files:
    files = Files()
    for at_s, number in seen:
        files.record(SYNC1, at_s, _page(number, started_at_s))
    return files


def _guards(files: Files, now_s: float, *workers: WorkerId) -> dict[str, tuple[float | None, str]]:
    return {reading.guard: (reading.value, reading.detail) for reading in files.guards(workers or (SYNC1,), now_s)}


def test_growth_leads_somewhere_in_ten_minutes() -> None:
    """100 are open, one more each second: 700 of 1,000 in ten minutes."""
    found = _guards(_measured(*((float(at), 40.0 + at) for at in range(0, 61, 5))), 60.0)
    assert found[FILES_USED] == (0.1, "sync1: 100 of 1000, growing by 1 a second")
    assert found[FILES_PROJECTED][0] == pytest.approx(0.7)


def test_what_grows_less_and_less_is_no_leak() -> None:
    """Users who come back after a restart: 300 in the first half minute, and five in the second."""
    found = _guards(_measured((0, 50), (15, 250), (30, 350), (45, 353), (60, 355)), 60.0)
    assert found[FILES_PROJECTED][0] == pytest.approx((355 + 600 * 5 / 30) / 1000)


def test_what_gets_fewer_is_as_full_as_it_is() -> None:
    assert _guards(_measured((0, 500), (60, 300)), 60.0)[FILES_PROJECTED][0] == pytest.approx(0.3)


def test_a_short_time_says_nothing_about_growth() -> None:
    """Which is unknown, and not nothing; the level is known at once."""
    files = _measured((0, 100), (5, 200))
    found = _guards(files, 5.0)
    assert found[FILES_USED][0] == pytest.approx(0.2)
    assert found[FILES_PROJECTED] == (None, "sync1: measured for 5 s, and 30 s are needed to say how they grow")
    assert [reading.short for reading in files.guards([SYNC1], 5.0)] == [False, True]


def test_another_process_begins_anew() -> None:
    files = _measured(*((float(at), 40.0 + 10 * at) for at in range(0, 61, 5)))
    files.record(SYNC1, 65.0, _page(30.0, started_at_s=62.0))
    assert _guards(files, 65.0)[FILES_PROJECTED][0] is None


def test_unknown_of_one_is_unknown() -> None:
    """One that was never measured, one whose page can't be read any more, and one that nobody has looked at for a while."""
    files = _measured((0, 100), (60, 100))
    assert _guards(files, 60.0, SYNC1, SYNC2)[FILES_USED] == (None, "sync2: not measured lately")
    assert _guards(files, 61.0 + FRESH_S)[FILES_USED] == (None, "sync1: not measured lately")
    files.record(SYNC1, 61.0, "connection refused")
    assert _guards(files, 61.0)[FILES_USED] == (None, "sync1: connection refused")
    files.record(SYNC1, 62.0, _page(120))
    assert _guards(files, 62.0)[FILES_USED][0] == pytest.approx(0.12)


def test_who_was_asked_in_vain_is_left_in_peace_for_a_while() -> None:
    files = _measured((0, 100))
    assert files.stale([SYNC1, SYNC2], FRESH_S) == [SYNC2]
    files.record(SYNC2, FRESH_S, "no answer in time")
    assert files.stale([SYNC1, SYNC2], FRESH_S + 1) == [SYNC1]
    assert files.stale([SYNC2], FRESH_S + ASK_AGAIN_S) == [SYNC2]
