"""
Of 300 rollouts of 30 good workers none is to be taken back, with whatever a shared database does meanwhile.

None of 300 shows, with 95 % confidence, that it is less than one in a hundred (0.994 %; Clopper and Pearson), as the default budget says.
`make bench-long` counts thousands.
"""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests.benchmarks.gates import contest, long, nulls, rollouts, traces
from tests.benchmarks.gates.nulls import Outcome, Part
from tests.benchmarks.gates.scenarios import LEVELS
from tests.benchmarks.gates.seeds import Purpose

EACH = 60
# CI has time to look at them every 15 s, as often as a Prometheus usually does; every 5 s, as a rollout does, takes `make long`.
SELDOM = 3
PARTS = list(nulls.parts(EACH))


def _named(part: Part) -> str:
    return f"{part.level:g}-{part.first}"


@pytest.mark.parametrize("every", [pytest.param(1, id="5s", marks=pytest.mark.long), pytest.param(SELDOM, id="15s")])
@pytest.mark.parametrize("part", PARTS, ids=_named)
def test_no_rollout_of_good_workers_is_taken_back(part: Part, every: int) -> None:
    """Ten of the 300, by themselves so that they spread over processors."""
    assert nulls.watch(part, Purpose.REGRESSION, every=every) == Outcome(part.level, nulls.PART, alone=0, together=0, in_the_dark=0)


def test_these_are_300_and_none_of_300_is_less_than_one_in_a_hundred() -> None:
    assert len(PARTS) * nulls.PART == 300
    assert len(set(PARTS)) == len(PARTS)
    assert contest.upper_bound(0, 300) == pytest.approx(0.00994, abs=1e-5)


def test_incidents_are_shared_and_are_in_most_of_these_rollouts() -> None:
    """All are as slow at the same time, so that a worker's incidents are those of the next one, 300 s earlier by its own clock."""
    drawn = [rollouts.traces(Purpose.REGRESSION, 5.0, run, nulls.WORKERS) for run in range(5)]
    assert sum(any(restart.truth.incidents for restart in restarts) for restarts in drawn) >= 3
    for restarts in drawn:
        for one, following in pairwise(restarts):
            assert [incident.from_s - 300 for incident in one.truth.incidents] == [
                incident.from_s for incident in following.truth.incidents
            ]


def test_a_boundary_that_is_no_boundary_would_show() -> None:
    """Where 2 : 1 against a good worker is enough, most of the very same rollouts are taken back."""
    assert nulls.watch(PARTS[LEVELS.index(5.0)], Purpose.REGRESSION, odds=2.0, every=SELDOM).alone >= 5


def test_scrapes_that_are_made_seldom_bring_the_same() -> None:
    """Of whom one is missed brings nothing; the next brings it besides."""
    often = rollouts.traces(Purpose.REGRESSION, 5.0, 0, 2)[0]
    rarely = traces.seldom(often, SELDOM)
    assert [one.at_s for one in rarely.scrapes] == [one.at_s for one in often.scrapes][SELDOM - 1 :: SELDOM]
    for get in (lambda one: one.own, lambda one: one.controls):
        sums = [sum(one.requests for one in map(get, those.scrapes) if one is not None) for those in (often, rarely)]
        assert sums[0] == pytest.approx(sums[1])
        assert sums[0] > 0


def test_counts_add_up_by_level_and_over_all_with_their_bound() -> None:
    """By hand: 3 of 20, and 0.344 is the share of which 3 of 20 or fewer are as likely as 1 in 20 (R: binom.test)."""
    done = [Outcome(5.0, 10, 1, 1, 0), Outcome(5.0, 10, 0, 0, 1), Outcome(0.2, 10, 0, 0, 0)]
    first, last, everything = nulls.rows(done)
    assert first == {
        "req/s": "0.2",
        "runs": 10,
        "taken back": 0,
        "by one alone": 0,
        "by all together": 0,
        "in the dark": 0,
        "at most": 0.25887,
    }
    assert last == {
        "req/s": "5",
        "runs": 20,
        "taken back": 3,
        "by one alone": 1,
        "by all together": 1,
        "in the dark": 1,
        "at most": 0.34366,
    }
    assert (everything["req/s"], everything["runs"], everything["taken back"]) == ("all", 30, 3)


def test_what_was_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    """Not what another commit has done, nor a line that was cut off; what is done is done once."""
    wanted = list(nulls.parts(20))
    kept = tmp_path / "kept.jsonl"
    begun: list[Part] = []

    def work(part: Part) -> Outcome:
        begun.append(part)
        return Outcome(part.level, 10, alone=len(begun), together=0, in_the_dark=0)

    first = long.measure(wanted, work, "abc", kept, 1, lambda: len(begun) < 4)
    assert list(first) == begun == wanted[:4]
    kept.write_text(kept.read_text()[:-9])
    assert long.measure(wanted, work, "abc", kept, 1, lambda: True) == {
        part: Outcome(part.level, 10, alone, 0, 0) for part, alone in zip(wanted, [1, 2, 3, *range(5, 12)], strict=True)
    }
    assert begun == [*wanted[:4], *wanted[3:]]
    assert long.measure(wanted, work, "def", kept, 1, lambda: False) == {}
    found = long.measure(wanted, work, "abc", kept, 1, lambda: False)
    assert len(found) == 10
    result = long.result(found, "abc")
    assert json.loads(json.dumps(result)) == {
        "commit": "abc",
        "purpose": "evaluation",
        "seeds": {f"{level:g}": "runs 0 to 19" for level in LEVELS},
        "rollouts": nulls.rows(found.values()),
    }
