"""Each ruling, and where it turns into another."""

from dataclasses import replace

import pytest

from rollout.gating.threshold import compare, fails
from rollout.model.gate import Gate, Metric, Ruling, Tally
from tests.gating.evidence_at_hand import ADMITTED_AT_S, gate, histogram, ruled, tally

ERRORS = gate(Metric.ERRORS, max=0.01)
LATENCY = gate(Metric.LATENCY_P95, ratio_max=1.5, slack=0.05)
POLLS = gate(Metric.POLL_CPU, ratio_max=1.5)
WORK = gate(Metric.WORK, ratio_max=3.0)
BACKLOG = gate(Metric.BACKLOG, ratio_max=2.0, slack=50.0, samples_min=1)
LATE_S = ADMITTED_AT_S + 600


def _before(**changed: float | tuple[float, ...]) -> Tally:
    return replace(Tally(0.0, 120.0), **changed)  # type: ignore[arg-type]


# --- PASS


def test_pass_says_its_numbers() -> None:
    verdict = ruled(ERRORS, tally(requests=400.0, errors=2.0))
    assert verdict.ruling is Ruling.PASS
    assert verdict.because == "share of 5xx is 0.5 % over 400 requests, at most 1 % allowed (absolute)"
    assert (verdict.evidence.samples, verdict.evidence.observed, verdict.evidence.threshold) == (400, 0.005, 0.01)


def test_pass_compares_with_its_own_baseline() -> None:
    """p95 of 100 requests that all took 50 to 75 ms is put at 73.75 ms."""
    verdict = ruled(LATENCY, tally(latency=histogram(ms100=100)), baseline=_before(latency=histogram(ms75=100)))
    assert verdict.ruling is Ruling.PASS
    assert verdict.because == "p95 latency is 98.8 ms over 100 requests, at most 161 ms allowed (1.5 × its baseline of 73.8 ms + 50 ms)"
    assert verdict.evidence.compared_with == "its baseline"


@pytest.mark.parametrize(("soaked_s", "ruling"), [(29.0, Ruling.PENDING), (30.0, Ruling.PASS)])
def test_pass_waits_for_the_soak(soaked_s: float, ruling: Ruling) -> None:
    at_s = ADMITTED_AT_S + soaked_s
    verdict = ruled(ERRORS, tally(until_s=at_s, requests=400.0), now_s=at_s)
    assert verdict.ruling is ruling
    assert ruling is Ruling.PASS or verdict.because.endswith("; it has been watched for 29 of 30 s")


@pytest.mark.parametrize(("requests", "ruling"), [(49.0, Ruling.PENDING), (50.0, Ruling.PASS)])
def test_pass_waits_for_enough_samples(requests: float, ruling: Ruling) -> None:
    verdict = ruled(ERRORS, tally(requests=requests))
    assert verdict.ruling is ruling
    assert ruling is Ruling.PASS or verdict.because == "it has 49 of the 50 requests needed"


@pytest.mark.parametrize("metric", list(Metric))
def test_no_traffic_is_never_a_pass(metric: Metric) -> None:
    """Nor a FAIL: it is pending, and in the end no ruling."""
    quiet = gate(metric, ratio_max=2.0, max=1.0, samples_min=1)
    silent = tally(until_s=LATE_S, backlog=0.0)
    assert ruled(quiet, tally(backlog=0.0), baseline=_before(backlog=0.0)).ruling is Ruling.PENDING
    assert ruled(quiet, silent, baseline=_before(backlog=0.0), now_s=LATE_S).ruling is Ruling.INCONCLUSIVE


@pytest.mark.parametrize("on", [POLLS, replace(ERRORS, samples_min=20)])
def test_our_own_canaries_are_no_traffic(on: object) -> None:
    """A sync worker that nobody but us has asked has shown nothing."""
    watched = tally(polls=60.0, canaries=60, poll_cpu_s=0.1)
    verdict = ruled(on, watched, baseline=_before(polls=400.0, poll_cpu_s=1.0))  # type: ignore[arg-type]
    assert verdict.ruling is Ruling.PENDING
    assert verdict.because.startswith("it has 0 of the ")


# --- FAIL


def test_fail_on_errors_beyond_chance() -> None:
    verdict = ruled(ERRORS, tally(requests=100.0, errors=20.0))
    assert verdict.ruling is Ruling.FAIL
    assert verdict.because == "share of 5xx is 20 % over 100 requests, at most 1 % allowed (absolute)"


@pytest.mark.parametrize(("errors", "ruling"), [(0.0, Ruling.PASS), (1.0, Ruling.PENDING), (4.0, Ruling.PENDING), (6.0, Ruling.FAIL)])
def test_a_handful_of_errors_is_neither(errors: float, ruling: Ruling) -> None:
    """Of 50 requests, one error is 2 %: above 1 %, but a release that errs 1 % of the time shows that in four minutes out of ten."""
    assert ruled(ERRORS, tally(requests=50.0, errors=errors)).ruling is ruling


@pytest.mark.parametrize(("failures", "ruling"), [(0, Ruling.PASS), (1, Ruling.PENDING), (10, Ruling.FAIL)])
def test_threshold_of_zero_is_not_failed_by_one_stray_failure(failures: int, ruling: Ruling) -> None:
    strict = gate(Metric.CANARY_FAILURES, max=0.0, samples_min=20)
    assert ruled(strict, tally(canaries=20, canary_failures=failures)).ruling is ruling


def test_fail_may_come_before_the_soak_but_not_before_enough_samples() -> None:
    at_s = ADMITTED_AT_S + 5
    assert ruled(ERRORS, tally(until_s=at_s, requests=50.0, errors=50.0), now_s=at_s).ruling is Ruling.FAIL
    assert ruled(ERRORS, tally(until_s=at_s, requests=49.0, errors=49.0), now_s=at_s).ruling is Ruling.PENDING


def test_fail_of_long_polls_that_err_counts_them() -> None:
    """A sync worker's requests are long-polls; their 5xx are its errors."""
    assert ruled(ERRORS, tally(requests=2.0, polls=98.0, errors=30.0)).ruling is Ruling.FAIL


def test_fail_on_slowness_counts_whole_buckets_only() -> None:
    """Up to 100 ms before; the threshold is 193 ms. Requests of 100 to 250 ms may lie on either side of it, those above can't."""
    before = _before(latency=histogram(ms100=1000))
    unclear = ruled(LATENCY, tally(latency=histogram(ms250=100)), baseline=before)
    assert (unclear.ruling, unclear.because.endswith("; that may still be chance")) == (Ruling.PENDING, True)
    assert ruled(LATENCY, tally(latency=histogram(ms500=100)), baseline=before).ruling is Ruling.FAIL


def test_slow_baseline_of_few_samples_is_not_held_against_it() -> None:
    """With 20 samples the p95 is hardly known: what fails against a long baseline is undecided against a short one."""
    after = tally(latency=histogram(ms75=85, ms500=15))
    short, long = (_before(latency=histogram(ms75=19 * times, ms250=1 * times)) for times in (1, 200))
    assert ruled(LATENCY, after, baseline=long).ruling is Ruling.FAIL
    assert ruled(LATENCY, after, baseline=short).ruling is Ruling.PENDING


@pytest.mark.parametrize(("cost_s", "ruling"), [(0.003, Ruling.PASS), (0.006, Ruling.PENDING), (0.009, Ruling.FAIL)])
def test_mean_costs_have_a_margin(cost_s: float, ruling: Ruling) -> None:
    """3 ms a long-poll before, so 4.5 ms are allowed; 50 long-polls at 6 ms may be chance, at 9 ms they aren't."""
    before = _before(polls=1000.0, poll_cpu_s=3.0)
    assert ruled(POLLS, tally(polls=50.0, poll_cpu_s=50 * cost_s), baseline=before).ruling is ruling


# --- compared with what


def test_load_that_hits_everybody_condemns_nobody() -> None:
    """Twice as slow as before, but so are the peers that were not touched."""
    before, slow = _before(latency=histogram(ms100=1000)), histogram(ms500=1000)
    assert ruled(LATENCY, tally(latency=slow), baseline=before).ruling is Ruling.FAIL
    excused = ruled(LATENCY, tally(latency=slow), baseline=before, controls=tally(latency=slow))
    assert (excused.ruling, excused.evidence.compared_with) == (Ruling.PASS, "its pool now")


def test_absolute_limit_holds_whatever_the_peers_do() -> None:
    both = replace(LATENCY, max=0.25)
    slow = histogram(ms500=1000)
    assert ruled(both, tally(latency=slow), baseline=_before(latency=slow), controls=tally(latency=slow)).ruling is Ruling.FAIL


def test_peers_serve_where_there_is_no_baseline() -> None:
    assert ruled(POLLS, tally(polls=60.0, poll_cpu_s=0.1), controls=tally(polls=60.0, poll_cpu_s=0.1)).ruling is Ruling.PASS


def test_nothing_to_compare_with_is_no_ruling() -> None:
    lonely = tally(polls=60.0, poll_cpu_s=0.1)
    pending = ruled(POLLS, lonely, baseline=_before(polls=3.0, poll_cpu_s=0.1))
    assert pending.ruling is Ruling.PENDING
    assert pending.because == "neither its baseline nor its pool has the 20 long-polls that a comparison needs"
    assert ruled(POLLS, replace(lonely, until_s=LATE_S), now_s=LATE_S).ruling is Ruling.INCONCLUSIVE


def test_what_its_pool_did_before_stands_for_a_past_of_too_few_samples() -> None:
    """40 ms a long-poll: good beside a pool of 50 ms, and bad beside one of 5 ms."""
    after, little = tally(polls=60.0, poll_cpu_s=2.4), _before(polls=3.0, poll_cpu_s=0.3)
    dear, cheap = _before(polls=1000.0, poll_cpu_s=50.0), _before(polls=1000.0, poll_cpu_s=5.0)
    for own in (little, None):
        as_good = ruled(POLLS, after, baseline=own, pool=dear)
        assert (as_good.ruling, as_good.evidence.compared_with) == (Ruling.PASS, "its pool's baseline")
        assert ruled(POLLS, after, baseline=own, pool=cheap).ruling is Ruling.FAIL
        assert (
            fails(POLLS, after=after, baseline=own, controls=None, pool=dear),
            fails(POLLS, after=after, baseline=own, controls=None, pool=cheap),
        ) == (False, True)
    assert ruled(POLLS, after, baseline=little, pool=little).ruling is Ruling.PENDING


def test_who_has_a_past_of_its_own_is_not_excused_by_its_pools() -> None:
    enough, dear = _before(polls=1000.0, poll_cpu_s=5.0), _before(polls=1000.0, poll_cpu_s=50.0)
    assert ruled(POLLS, tally(polls=60.0, poll_cpu_s=2.4), baseline=enough, pool=dear).ruling is Ruling.FAIL


@pytest.mark.parametrize(("before_s", "now_s", "ruling"), [(0.05, 0.005, "pass"), (0.005, 0.05, "pass"), (0.005, 0.005, "fail")])
def test_of_its_pools_past_and_present_the_worse_counts(before_s: float, now_s: float, ruling: str) -> None:
    """As of its own: 40 ms a long-poll are good beside whoever took 50 ms."""
    after, little = tally(polls=60.0, poll_cpu_s=2.4), _before(polls=3.0, poll_cpu_s=0.3)
    pool, controls = (_before(polls=1000.0, poll_cpu_s=1000 * each_s) for each_s in (before_s, now_s))
    assert ruled(POLLS, after, baseline=little, pool=pool, controls=controls).ruling == ruling


@pytest.mark.parametrize("on", [WORK, BACKLOG], ids=["work", "backlog"])
def test_what_each_does_by_itself_is_not_compared_with_what_several_did(on: Gate) -> None:
    """Three that do as much as this one did three times as much together."""
    after, little = tally(work=30.0, backlog=200.0), _before(work=1.0)
    assert ruled(on, after, baseline=little, pool=_before(work=9000.0, backlog=1.0)).ruling is Ruling.PENDING


# --- work and backlog


@pytest.mark.parametrize(
    ("work", "ruling"), [(600.0, Ruling.PASS), (250.0, Ruling.PASS), (150.0, Ruling.PENDING), (20.0, Ruling.FAIL), (0.0, Ruling.FAIL)]
)
def test_less_work_is_worse(work: float, ruling: Ruling) -> None:
    """10 a second before; a third of that must remain, which is 200 in the minute."""
    assert ruled(WORK, tally(work=work), baseline=_before(work=1200.0)).ruling is ruling


def test_work_says_its_numbers() -> None:
    verdict = ruled(replace(WORK, slack=0.5), tally(work=20.0), baseline=_before(work=1200.0))
    assert verdict.because == (
        "work done is 0.333 per s over 20 units of work, at least 2.83 per s allowed (its baseline of 10 per s ÷ 3 - 0.5 per s)"
    )


def test_least_work_may_be_absolute() -> None:
    least = gate(Metric.WORK, max=10.0)
    assert ruled(least, tally(work=700.0)).ruling is Ruling.PASS
    assert ruled(least, tally(work=0.0)).ruling is Ruling.FAIL


def test_backlog_may_go_down_until_the_deadline() -> None:
    """It piled up while the worker was out."""
    before = _before(backlog=10.0, work=100.0)
    high = tally(backlog=900.0, work=40.0)
    falling = ruled(BACKLOG, high, baseline=before)
    assert falling.ruling is Ruling.PENDING
    assert falling.because.endswith(
        "70 waiting allowed (2 × its baseline of 10 waiting + 50 waiting); what piled up while it was out may still be going down"
    )
    assert ruled(BACKLOG, replace(high, until_s=LATE_S), baseline=before, now_s=LATE_S).ruling is Ruling.FAIL
    assert ruled(BACKLOG, replace(high, backlog=60.0), baseline=before).ruling is Ruling.PASS


def test_backlog_that_is_not_on_the_page_is_unmeasurable() -> None:
    verdict = ruled(BACKLOG, tally(work=40.0), baseline=_before(backlog=10.0))
    assert (verdict.ruling, verdict.because) == (Ruling.UNMEASURABLE, "its metrics page shows no backlog")


# --- UNMEASURABLE


def test_what_can_not_be_measured_now_is_unmeasurable_whatever_was_seen_before() -> None:
    for errors in (0.0, 400.0):
        verdict = ruled(ERRORS, tally(requests=400.0, errors=errors), unmeasured="connection refused")
        assert (verdict.ruling, verdict.because) == (Ruling.UNMEASURABLE, "it could not be measured: connection refused")


@pytest.mark.parametrize(("age_s", "ruling"), [(20.0, Ruling.PASS), (20.5, Ruling.UNMEASURABLE)])
def test_old_data_says_nothing_about_now(age_s: float, ruling: Ruling) -> None:
    assert ruled(ERRORS, tally(requests=400.0), now_s=ADMITTED_AT_S + 60 + age_s).ruling is ruling


@pytest.mark.parametrize(("waited_s", "ruling"), [(5.0, Ruling.PENDING), (25.0, Ruling.UNMEASURABLE)])
def test_first_measurement_is_waited_for_but_not_for_ever(waited_s: float, ruling: Ruling) -> None:
    assert ruled(ERRORS, None, now_s=ADMITTED_AT_S + waited_s).ruling is ruling


@pytest.mark.parametrize(
    "impossible",
    [{"requests": float("nan")}, {"requests": -1.0}, {"requests": 60.0, "errors": 61.0}, {"latency": (1.0,)}, {"work": float("inf")}],
)
def test_numbers_that_can_not_be_true_are_unmeasurable(impossible: dict[str, float]) -> None:
    verdict = ruled(ERRORS, tally(**impossible))
    assert (verdict.ruling, verdict.because) == (Ruling.UNMEASURABLE, "what was measured of it can't be true")


# --- INCONCLUSIVE


@pytest.mark.parametrize(("soaked_s", "ruling"), [(599.0, Ruling.PENDING), (600.0, Ruling.INCONCLUSIVE)])
@pytest.mark.parametrize("seen", [{"requests": 5.0}, {"requests": 100.0, "errors": 3.0}])
def test_doubt_ends_at_the_deadline(soaked_s: float, ruling: Ruling, seen: dict[str, float]) -> None:
    at_s = ADMITTED_AT_S + soaked_s
    assert ruled(ERRORS, tally(until_s=at_s, **seen), now_s=at_s).ruling is ruling


def test_gate_without_a_threshold_never_rules() -> None:
    verdict = ruled(gate(Metric.ERRORS), tally(requests=400.0))
    assert (verdict.ruling, verdict.because) == (Ruling.PENDING, "the gate has no threshold")


# --- kept from one decision to the next


def test_what_was_compared_is_kept_for_as_long_as_the_tallies_are_the_same() -> None:
    """The same objects, not equal ones: whoever has measured anew has made a new one."""
    after, baseline, controls = tally(requests=400.0), _before(requests=400.0), tally(requests=800.0)
    once = compare(ERRORS, after, baseline, controls, None)
    assert once.is_of(after, baseline, controls)
    assert not once.is_of(replace(after), baseline, controls)
    assert not once.is_of(after, replace(baseline), controls)
    assert not once.is_of(after, baseline, None)
