"""A worker must come back to its share of the pool's load and to its level; late but improving is waited for, up to a deadline."""

from rollout.gating.recovery import rule
from rollout.gating.windows import WINDOWS_KEPT, Window, completed_per_s, extend
from rollout.model.gate import Recovery, Ruling, Tally, Verdict

TARGET = Recovery(share_min=0.5, level_ratio_max=2.0, recovery_s=60, deadline_s=300, window_s=15, samples_min=20)
# 4 ms of CPU per request.
BASELINE = Tally(-300, 0, requests=3000, cpu_s=12.0)


def _window(rate: float, *, peers: tuple[float, ...] = (10.0,), cost_s: float = 0.004, at_s: float = 0.0, seconds: float = 15.0) -> Window:
    requests = rate * seconds
    return Window(Tally(at_s, at_s + seconds, requests=requests, cpu_s=requests * cost_s), peers)


def _rule(*windows: Window, now_s: float = 30.0, unmeasured: str | None = None) -> Verdict:
    return rule(TARGET, windows, BASELINE, unmeasured=unmeasured, admitted_at_s=0.0, now_s=now_s)


def test_a_worker_with_its_share_at_its_level_has_recovered() -> None:
    verdict = _rule(_window(9.0))
    assert verdict.ruling is Ruling.PASS
    assert verdict.because == (
        "it completes 90% of what the others of its pool do (at least 50%) at 1 × the CPU per request that it took before (at most 2 ×)"
    )


def test_a_worker_without_its_share_is_waited_for_then_fails() -> None:
    assert _rule(_window(3.0)).ruling is Ruling.PENDING
    verdict = _rule(_window(3.0), _window(3.0), now_s=61.0)
    assert verdict.ruling is Ruling.FAIL
    assert verdict.because.startswith("after 61 s it completes 30% of what the others of its pool do")


def test_a_worker_whose_requests_are_dear_fails_though_it_has_its_share() -> None:
    assert _rule(*[_window(10.0, cost_s=0.012)] * 2, now_s=61.0).ruling is Ruling.FAIL


def test_late_but_improving_is_pending_until_the_deadline() -> None:
    """A cold cache gets cheaper with every window: that is recovery under way, and ends one day."""
    windows = (_window(10.0, cost_s=0.020), _window(10.0, cost_s=0.012))
    verdict = _rule(*windows, now_s=90.0)
    assert verdict.ruling is Ruling.PENDING
    assert verdict.because.startswith("recovering, late but improving")
    assert _rule(*windows, now_s=301.0).ruling is Ruling.FAIL


def test_one_window_alone_does_not_show_whether_it_improves() -> None:
    assert _rule(_window(10.0, cost_s=0.020), now_s=61.0).ruling is Ruling.PENDING


def test_late_and_no_better_than_before_fails() -> None:
    assert _rule(_window(10.0, cost_s=0.0121), _window(10.0, cost_s=0.012), now_s=90.0).ruling is Ruling.FAIL


def test_evening_traffic_that_falls_everywhere_condemns_nobody() -> None:
    """The share is of what the pool does now, not of what the worker did before."""
    assert _rule(_window(2.0, peers=(2.0, 2.2, 1.9))).ruling is Ruling.PASS


def test_a_worker_that_was_sent_nothing_does_not_pass() -> None:
    assert _rule(_window(0.0), _window(0.0), now_s=61.0).ruling is Ruling.FAIL


def test_a_pool_that_is_asked_nothing_decides_nothing() -> None:
    quiet = _window(0.5, peers=(0.5,))
    assert _rule(quiet).ruling is Ruling.PENDING
    assert _rule(quiet, now_s=61.0).ruling is Ruling.INCONCLUSIVE


def test_what_cannot_be_measured_is_neither_well_nor_ill() -> None:
    assert _rule(_window(9.0), unmeasured="connection refused").ruling is Ruling.UNMEASURABLE
    assert _rule(now_s=61.0).ruling is Ruling.UNMEASURABLE
    assert _rule(_window(9.0, peers=())).ruling is Ruling.UNMEASURABLE
    assert _rule().ruling is Ruling.PENDING


def test_an_unknown_past_leaves_the_share_to_decide() -> None:
    verdict = rule(TARGET, (_window(9.0),), None, unmeasured=None, admitted_at_s=0.0, now_s=30.0)
    assert verdict.ruling is Ruling.PASS
    assert "what a request cost it before isn't known" in verdict.because


def test_windows_are_filled_one_after_the_other_and_only_the_last_are_kept() -> None:
    windows: tuple[Window, ...] = ()
    for start in range(0, 100, 5):
        own, peer = Tally(start, start + 5, requests=50), Tally(start, start + 5, requests=100)
        windows = extend(windows, own, (completed_per_s(peer),), TARGET.window_s)
    assert len(windows) == WINDOWS_KEPT
    assert [window.own.until_s - window.own.since_s for window in windows] == [15, 15, 10]
    assert all(window.peers_per_s == (20.0,) for window in windows)
