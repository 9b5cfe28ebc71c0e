"""How a forecast is made of few observations, and how steps are added up."""

import hashlib
import json
from dataclasses import replace

import pytest

from rollout.model import codec
from rollout.model.gate import Metric
from rollout.model.ids import Role, StepId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.load import Traffic
from rollout.model.plan import Phase, Plan, Step, StepForecast, Verb, Wave, steps_of
from rollout.model.playbook import Playbook
from rollout.model.sighting import Observation, ProxySighting, Sighting
from rollout.planning.digest import digest_of_plan, digest_of_playbook
from rollout.planning.forecast import (
    DRAIN_S,
    History,
    Spread,
    estimate,
    forecast,
    quantile,
    sessions_of,
    total,
    without_bought,
)
from rollout.planning.planner import make_plan
from tests.planning.homeserver import OLD, SCHEMA, release, sighting

ASSUMED = Spread(10.0, 10.0, 20.0)

NOWHERE = {"driver": "x"}
INVENTORY = Inventory.model_validate(
    {
        "homeserver": "example.org",
        "workers": {
            name: {"role": "sync", "pool": "sync", "url": f"http://127.0.0.1:{port}", "metrics": f"http://127.0.0.1:{port}"}
            for port, name in enumerate(("sync1", "sync2"), 8081)
        },
        "pools": {"sync": {"backend": "sync"}},
        **{f"{port}_driver": NOWHERE for port in ("workers", "releases", "traffic", "metrics", "probe", "ledger")},
    }
)
PLAYBOOK = Playbook.model_validate(
    {
        "name": "p",
        "strategy": {"ramp": {"weights": [25, 50, 100], "step_s": 10}},
        "baseline": {"baseline_s": 100, "sample_s": 5},
        "gates": [{"id": "poll-cpu", "metric": "poll_cpu_s", "ratio_max": 1.5, "samples_min": 100, "soak_s": 30, "deadline_s": 600}],
        "watch": {"watch_s": 60, "window_s": 15},
    }
)


def plan_of(playbook: Playbook = PLAYBOOK) -> Plan:
    """Plan a new version for two sync workers, each with 3 sessions."""
    seen = Observation(1000.0, {WorkerId(name): sighting(OLD) for name in ("sync1", "sync2")}, releases={OLD.id: OLD}, schema=SCHEMA)
    return make_plan(playbook, INVENTORY, seen, release("1.163.2"))


def test_nothing_observed_is_as_assumed() -> None:
    assert estimate([], ASSUMED) == ASSUMED


def test_a_single_observation_meets_the_assumption_half_way() -> None:
    """One rollout may have been an odd one."""
    assert estimate([4.0], ASSUMED) == Spread(7.0, 7.0, 12.0)


def test_two_observations_are_believed_but_for_their_worst() -> None:
    """Of the middle nothing is assumed any more; nine of ten is the larger of the two, and the assumption counts as a third."""
    assert estimate([4.0, 6.0], ASSUMED) == Spread(5.0, 5.0, (2 * 6.0 + 20.0) / 3)


def test_one_bad_night_does_not_become_the_rule() -> None:
    """An observation counts for no more than three times the middle in what is added up, and in full in what may happen."""
    spread = estimate([10.0, 10.0, 10.0, 10.0, 500.0], ASSUMED)
    assert (spread.mean, spread.median) == (14.0, 10.0)
    assert spread.p90 > 400


def test_ten_observations_speak_for_themselves() -> None:
    """Nine of ten is then read off them; that the assumption counts as one more hardly shows."""
    assert estimate([float(second) for second in range(1, 12)], Spread(6, 6, 10)) == Spread(6.0, 6.0, 10.0)


def test_nine_of_ten_is_never_below_what_is_expected() -> None:
    spread = estimate([50.0, 50.0], Spread(1, 1, 1))
    assert spread.p90 >= spread.mean


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 2.5), (0.9, 3.7), (1.0, 4.0)])
def test_quantile_lies_between_two_observations_in_proportion(share: float, value: float) -> None:
    assert quantile([4.0, 1.0, 3.0, 2.0], share) == pytest.approx(value)


def _step(name: str, worker: str) -> Step:
    return Step(
        id=StepId(name),
        verb=Verb.DRAIN,
        worker=WorkerId(worker),
        release=OLD.id,
        needs=(),
        deadline_s=1,
        attempts_max=1,
        undo=None,
        gates=(),
        why="",
    )


def test_workers_of_one_wave_count_as_the_slowest_and_lateness_adds_up_by_squares() -> None:
    """Two waves: one of two workers side by side, of whom only the slower counts, and one of a third."""
    waves = (
        Wave((WorkerId("a"), WorkerId("b")), (_step("a", "a"), _step("b", "b"))),
        Wave((WorkerId("c"),), (_step("c", "c"),)),
    )
    steps = {
        StepId("a"): StepForecast(1, 10, 10, 13),
        StepId("b"): StepForecast(2, 5, 5, 50),
        StepId("c"): StepForecast(3, 20, 20, 24),
    }
    whole = total((Phase("p", "", waves),), steps)
    assert (whole.fixed_s, whole.mean_s, whole.p90_s) == (5, 30, 35)
    assert total((Phase("p", "", waves),), steps, only={StepId("b")}).mean_s == 5


def test_a_drain_is_forecast_by_the_sessions_of_now() -> None:
    """The last of n idle long-polls is expected after n/(n+1) of thirty seconds; what they took before scales that."""
    plan = plan_of()
    step = StepId("sync1/drain")
    assert plan.forecast.steps[step].mean_s == pytest.approx(DRAIN_S * 3 / 4)
    seen = History(rollouts=2, beyond={(Verb.DRAIN, Role("sync"), ""): (0.1, 0.2, 0.3)})
    assert forecast(plan, {WorkerId("sync1"): 9}, seen).steps[step].mean_s == pytest.approx(0.2 * DRAIN_S * 9 / 10)
    assert forecast(plan, {WorkerId("sync1"): 1}, seen).steps[step].mean_s == pytest.approx(0.2 * DRAIN_S / 2)


def test_a_soak_lasts_until_its_samples_have_come() -> None:
    """A hundred long-polls at two a second take fifty seconds; at ten a second the soak's own thirty are longer; unknown is enough."""
    plan = plan_of()
    step = StepId("sync1/soak")

    def soak(rate: float | None) -> StepForecast:
        rates = {} if rate is None else {(Role("sync"), Metric.POLL_CPU): rate}
        return forecast(plan, {}, History(rollouts=1, samples_per_s=rates)).steps[step]

    assert (soak(2.0).fixed_s, soak(2.0).mean_s) == (30, 50 + 5)
    assert soak(10.0).mean_s == soak(None).mean_s == 30 + 5


def test_fixed_times_are_the_playbooks_own() -> None:
    """Baseline, two ramps, two soaks, watch; a baseline that is there already is not taken again."""
    plan = plan_of()
    assert plan.forecast.fixed_s == 100 + 2 * (20 + 30) + 60
    there = History(surveyed=frozenset(plan.from_releases))
    assert forecast(plan, {}, there).fixed_s == plan.forecast.fixed_s - 100


def test_the_plan_names_what_it_rests_on() -> None:
    """What has been seen, what is assumed, and why nothing could be read."""
    plan = plan_of()
    assert plan.forecast.basis.startswith("assuming 30 s × n ÷ (n + 1) to drain n sessions, 10 s to boot")
    drained = History(rollouts=3, beyond={(Verb.DRAIN, Role("sync"), ""): (0.1, 0.2)})
    said = forecast(plan, {}, drained)
    assert said.basis.startswith("as in the last 3 rollouts: drains; assuming 10 s to boot")
    assert "drains: 4 seen in 3 rollouts" in said.bases
    assert "the disk is gone" in forecast(plan, {}, History(unread="the disk is gone")).basis


def test_plans_that_were_saved_before_still_load_and_keep_their_digest() -> None:
    """A plan without windows or canary requests, and whose forecast is a duration alone, is the same plan."""
    plan = plan_of()
    plain = json.loads(codec.dump_json(plan))
    for later in ("windows", "buying", "profile"):
        del plain[later]
    plain["forecast"] = {"duration_s": 425.0, "evidence_s": {"sync1": 50.0}, "basis": "assuming"}
    loaded = codec.load_plan(json.dumps(plain))
    assert digest_of_plan(loaded) == plan.digest
    covered = {name: value for name, value in plain.items() if name not in {"digest", "forecast", "headroom", "notes"}}
    del covered["basis"]["made_at_s"]
    assert (
        plan.digest == hashlib.sha256(json.dumps(covered, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
    )
    assert (loaded.forecast.p90_s, loaded.forecast.steps, loaded.windows) == (None, {}, None)


def test_windows_are_part_of_what_a_plan_and_a_playbook_are() -> None:
    """A saved plan can't be given other hours."""
    nights = PLAYBOOK.model_copy(update={"windows": Playbook.model_validate({"name": "p", "windows": {"not_after": "06:00"}}).windows})
    plan = plan_of(nights)
    assert plan.windows is not None
    assert (plan.windows.last_start, plan.windows.not_after) == ("06:00", "06:00")
    assert digest_of_plan(replace(plan, windows=replace(plan.windows, not_after="18:00"))) != plan.digest
    assert digest_of_playbook(nights) != digest_of_playbook(PLAYBOOK)


def test_every_step_of_the_way_there_has_a_forecast() -> None:
    plan = plan_of()
    assert set(plan.forecast.steps) == {step.id for step in steps_of(plan.phases)}
    assert all(0 <= one.fixed_s <= one.median_s <= one.p90_s for one in plan.forecast.steps.values())


def test_who_has_no_sessions_is_drained_at_once() -> None:
    """Nobody is waited for; and an unseen number of sessions is not taken for none."""
    plan = plan_of()
    assert forecast(plan, {WorkerId("sync1"): 0}).steps[StepId("sync1/drain")].mean_s == 1
    assert forecast(plan, {}).steps[StepId("sync1/drain")].mean_s == DRAIN_S


def test_sessions_that_could_not_be_counted_are_left_out() -> None:
    """A proxy that was reloaded may not know."""
    seen = Observation(
        1.0, {WorkerId("sync1"): Sighting(proxy=ProxySighting(admitted=True, weight=100, up=True, sessions=None, requests=0, cuts=0))}
    )
    assert sessions_of(seen) == {}


def test_what_was_bought_is_no_traffic_of_users() -> None:
    """A client worker's are among its ordinary requests, a sync worker's among its long-polls."""
    measured = Traffic(1.25, 3.0)
    assert without_bought(measured, 1.0, Role("client")) == Traffic(0.25, 3.0)
    assert without_bought(measured, 1.0, Role("sync")) == Traffic(1.25, 2.0)
    assert without_bought(measured, 5.0, Role("sync")) == Traffic(1.25, 0.0)
