"""The ramp follows how busy a worker is: never more than twice at once, and no more than keeps it below the playbook's utilisation."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.deciding.admission import STEP_MIN, next_weight
from rollout.model.gate import Tally


def _busy(utilisation: float, canary_failures: int = 0) -> Tally:
    return Tally(0, 10, requests=100, cpu_s=10 * utilisation, canaries=canary_failures, canary_failures=canary_failures)


def test_an_idle_worker_gets_twice_as_much_and_a_little() -> None:
    assert next_weight(10, _busy(0.05), None, 0.7) == 25


def test_a_cold_worker_gets_what_keeps_it_below_its_limit() -> None:
    """At 20 % it uses half a core, so 28 % would use 0.7 of one."""
    assert next_weight(20, _busy(0.5), None, 0.7) == 28


def test_a_worker_that_is_over_its_limit_gets_less() -> None:
    assert next_weight(50, _busy(1.0), None, 0.7) == 35


def test_one_that_was_busier_before_may_be_so_again() -> None:
    """Otherwise a worker whose usual load is above the limit would never get it back."""
    assert next_weight(80, _busy(0.72), _busy(0.8), 0.7) == 100
    assert next_weight(80, _busy(0.72), None, 0.7) == 77


def test_failed_canaries_take_some_back() -> None:
    assert next_weight(50, _busy(0.1, canary_failures=1), None, 0.7) == 30


@settings(deadline=None)
@given(st.integers(1, 100), st.floats(0, 5), st.floats(0, 5), st.floats(0.05, 1))
def test_a_weight_is_a_percentage_and_rises_by_doubling_at_most(weight: int, used: float, before: float, most: float) -> None:
    wanted = next_weight(weight, _busy(used), _busy(before), most)
    assert 1 <= wanted <= min(100, 2 * weight + STEP_MIN)
