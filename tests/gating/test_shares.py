"""Whether more requests fail than before: how often that is wrong, and how soon it is right."""

import functools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gammaln

from rollout.gating.shares import BAD_SHARES, Count, weigh

# Half an hour of a worker with five requests a second, of which one in a thousand failed.
BEFORE = Count(9.0, 9000.0)
# The least that the prior adds: half a failure among five hundred requests.
PRIOR = (0.5, 500.0)
NOTHING = Count(0.0, 0.0)
RUNS, REQUESTS, BATCH = 4000, 2000, 50
BAD = 0.01

Paths = npt.NDArray[np.int_]


def _sequence_log(hits: int, trials: int, well: tuple[float, float]) -> float:
    """Return the chance of one sequence by scipy's count of hits: all sequences with as many hits are as likely as one another."""
    choose = gammaln(trials + 1) - gammaln(hits + 1) - gammaln(trials - hits + 1)
    return float(stats.betabinom.logpmf(hits, trials, *well) - choose)


def _well(before: Count) -> tuple[float, float]:
    return before.hits + PRIOR[0], before.trials - before.hits + PRIOR[1]


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 30), st.integers(0, 3000))
def test_the_chance_of_what_is_usual_is_beta_binomial(hits: int, misses: int, hits_before: int, misses_before: int) -> None:
    """Against the share that counts as bad, to nine digits of what scipy says."""
    before = Count(float(hits_before), float(hits_before + misses_before))
    trials = hits + misses
    said = weigh(Count(float(hits), float(trials)), before, None, None, BAD)
    well = _well(before)
    # What fails much oftener than is usual is known by itself alone (see below).
    assume(before.trials < 20 or hits_before < 1 + before.trials / 100)
    usual = well[0] / sum(well)
    bad = max(BAD, 2 * usual)
    fixed = hits * math.log(bad) + misses * math.log1p(-bad)
    assert said.usual == pytest.approx(usual)
    assert said.bad == pytest.approx(bad)
    assert said.fewer == pytest.approx(_sequence_log(hits, trials, well) - fixed, rel=1e-9, abs=1e-7)


def test_more_is_the_mean_over_the_bad_shares_over_what_is_usual() -> None:
    """Three failures in forty requests, by hand."""
    bad = [share**3 * (1 - share) ** 37 for share in BAD_SHARES if share >= 2 * 9.5 / 9500.5]
    expected = math.log(sum(bad) / len(bad)) - _sequence_log(3, 40, _well(BEFORE))
    assert weigh(Count(3.0, 40.0), BEFORE, None, None, BAD).more == pytest.approx(expected, rel=1e-9)


def test_the_pool_s_past_counts_with_the_worker_s_own() -> None:
    said = weigh(Count(3.0, 40.0), Count(1.0, 100.0), None, Count(8.0, 8900.0), BAD)
    assert said == weigh(Count(3.0, 40.0), BEFORE, None, None, BAD)


@functools.cache
def _more(hits: int, trials: int) -> float:
    return weigh(Count(float(hits), float(trials)), BEFORE, None, None, BAD).more


def _paths(shares: npt.NDArray[np.float64], seed: int, batch: int = BATCH, requests: int = REQUESTS) -> Paths:
    """Return how many have failed at each look, a row for each share."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.binomial(batch, np.repeat(shares[:, None], requests // batch, axis=1)), axis=1)


def _highest(paths: Paths, batch: int = BATCH) -> npt.NDArray[np.float64]:
    """Return the most that ever spoke against each."""
    return np.array([max(_more(int(hits), batch * (look + 1)) for look, hits in enumerate(row)) for row in paths])


@pytest.mark.parametrize("drawn", ["from what is known", "the usual one"])
@pytest.mark.parametrize("p", [0.05, 0.01])
def test_a_good_worker_is_ever_condemned_no_oftener_than_the_odds_say(drawn: str, p: float) -> None:
    """Looked at after each of forty batches: in 4,000 runs as many as p allows, with the chance of that itself at one in ten thousand."""
    well = _well(BEFORE)
    rng = np.random.default_rng(816)
    shares = rng.beta(*well, RUNS) if drawn == "from what is known" else np.full(RUNS, well[0] / sum(well))
    condemned = int((_highest(_paths(shares, 817)) >= math.log(1 / p)).sum())
    assert condemned <= stats.binom.ppf(0.9999, RUNS, p)
    # It is a test all the same: what never says anything would be as right.
    assert condemned > 0


@pytest.mark.parametrize(("share", "within"), [(0.05, 200), (0.01, 1600)])
def test_what_fails_is_found_soon(share: float, within: int) -> None:
    """At odds of 200 nine in ten are found within so many requests, and half within two thirds of that."""
    paths = _paths(np.full(400, share), 818, batch=10, requests=within)
    found = np.maximum.accumulate(
        np.array([[_more(int(hits), 10 * (look + 1)) >= math.log(200) for look, hits in enumerate(row)] for row in paths]), axis=1
    )
    assert found[:, -1].mean() >= 0.9
    assert found[:, within // 15].mean() >= 0.5


def test_a_pool_that_fails_likewise_excuses() -> None:
    """A database that is away fails requests everywhere. Alone, or with a pool that is as well as ever, it is the worker."""
    seen, pool_before = Count(20.0, 400.0), Count(45.0, 45000.0)
    alone = weigh(seen, BEFORE, None, pool_before, BAD).more
    well = weigh(seen, BEFORE, Count(2.0, 2000.0), pool_before, BAD).more
    failing = weigh(seen, BEFORE, Count(100.0, 2000.0), pool_before, BAD).more
    assert alone > math.log(1e6)
    assert well == alone
    assert failing < 0
    assert weigh(Count(200.0, 400.0), BEFORE, Count(100.0, 2000.0), pool_before, BAD).more > math.log(1e6)


def test_one_failure_in_the_pool_excuses_nobody() -> None:
    """What fails at everybody must show at the others by itself, twenty times as likely as chance."""
    seen, pool_before = Count(6.0, 60.0), Count(45.0, 45000.0)
    assert weigh(seen, BEFORE, Count(1.0, 60.0), pool_before, BAD).more == weigh(seen, BEFORE, None, pool_before, BAD).more


def test_few_failures_in_many_requests_speak_against_what_would_be_bad() -> None:
    """Three hundred requests without one failure are twenty times as likely at one in a thousand as at one in a hundred."""
    assert weigh(Count(0.0, 250.0), BEFORE, None, None, BAD).fewer < math.log(20) < weigh(Count(0.0, 350.0), BEFORE, None, None, BAD).fewer


@pytest.mark.parametrize("bad", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("before", [NOTHING, BEFORE, Count(10_000.0, 10_000.0), Count(400.0, 800.0)])
@pytest.mark.parametrize("pool", [None, NOTHING, Count(50.0, 50.0)])
@pytest.mark.parametrize("seen", [NOTHING, Count(0.0, 1.0), Count(40.0, 40.0), Count(1.0, 5000.0)])
def test_no_count_is_too_strange(seen: Count, pool: Count | None, before: Count, bad: float) -> None:
    """Nothing seen, everything failed, and a worker of which all failed before: an answer, and a finite one."""
    said = weigh(seen, before, pool, None, bad)
    assert math.isfinite(said.more)
    assert math.isfinite(said.fewer)
    assert 0 < said.bad < 1
    if seen == NOTHING:
        assert said.more <= 0
        assert said.fewer == pytest.approx(0)


@pytest.mark.parametrize("canaries", [24.0, 5000.0])
def test_who_failed_every_time_before_is_not_condemned_for_it(canaries: float) -> None:
    """A canary request whose user is gone fails before and after; that is no release's fault. Nor is it shown to be well."""
    said = weigh(Count(40.0, 40.0), Count(canaries, canaries), None, None, 0.05)
    assert abs(said.more) < math.log(2)
    assert abs(said.fewer) < math.log(2)
    assert said.usual > 0.97


@pytest.mark.parametrize(("hits", "of", "before"), [(0, 40, 2000), (20, 40, 2000), (190, 200, 800), (198, 200, 800)])
def test_who_failed_every_time_before_is_not_condemned_for_failing_less(hits: int, of: int, before: int) -> None:
    """The user of the canary requests was made anew: "nearly always" is a bad share, and likelier than "always" then."""
    assert weigh(Count(float(hits), float(of)), Count(float(before), float(before)), None, None, BAD).more <= 0.0


def test_who_failed_in_half_of_all_is_condemned_for_failing_nearly_always() -> None:
    assert weigh(Count(98.0, 100.0), Count(500.0, 1000.0), None, None, BAD).more > math.log(24_800)


def test_a_handful_that_failed_before_excuses_nobody() -> None:
    """Two of two: what homeservers usually do says more than that."""
    assert weigh(Count(8.0, 40.0), Count(2.0, 2.0), None, None, 0.05).more > math.log(200)


def test_without_any_past_what_fails_every_time_is_condemned() -> None:
    assert weigh(Count(40.0, 40.0), NOTHING, None, None, 0.05).more > math.log(1e6)


@pytest.mark.parametrize("hits", [100.0, 150.0, 188.0, 200.0])
def test_who_fails_less_than_its_pool_does_now_is_not_condemned(hits: float) -> None:
    """Where everything fails, who fails at three of four had been, and who fails nearly always had not."""
    everything = Count(103.0, 103.0)
    found = weigh(Count(hits, 200.0), Count(0.0, 146.0), everything, everything, 0.05)
    assert found.more < math.log(20.0)
