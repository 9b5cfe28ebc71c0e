"""What a gate can't see, by the same arithmetic that rules."""

import random
from pathlib import Path

import pytest
import yaml

from rollout.gating.detectable import Facing, at_traffic, detectable, unwatched
from rollout.gating.windows import BURSTS
from rollout.model.gate import Metric, Ruling
from rollout.model.plan import Watch
from rollout.model.playbook import Playbook
from rollout.planning.evidence import resolved
from tests.gating.evidence_at_hand import gate, ruled, tally

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
SHARE = (
    "gate: with 50 canary requests, a share of failed canary requests that is 5.8 points above the allowed one (the baseline × 2) may pass"
)


@pytest.mark.parametrize(
    ("metric", "limits", "sentence"),
    [
        (Metric.ERRORS, {"max": 0.01}, "gate: with 50 requests, a share of 5xx below 5.8 % may pass"),
        (
            Metric.CANARY_FAILURES,
            {"ratio_max": 2.0},
            SHARE,
        ),
        (
            Metric.LATENCY_P95,
            {"ratio_max": 1.5, "slack": 0.05},
            "gate: with 50 requests, up to 12 % of them may take longer than the baseline × 1.5 + 50 ms",
        ),
        (
            Metric.POLL_CPU,
            {"ratio_max": 2.0},
            "gate: with 50 long-polls, 1.3 × the allowed CPU time per long-poll (the baseline × 2) may pass",
        ),
        (Metric.WORK, {"ratio_max": 3.0, "slack": 0.1}, "gate: a fall that leaves at least the baseline ÷ 3 - 0.1 per s is not seen"),
        (Metric.BACKLOG, {"max": 100.0}, "gate: what waits for long but is never more than 100 waiting is not seen"),
    ],
)
def test_sentence(metric: Metric, limits: dict[str, float], sentence: str) -> None:
    assert detectable(gate(metric, **limits)) == sentence


def test_more_traffic_sees_more() -> None:
    """Two requests a second for the soak are no more than the minimum; for ten minutes they are 1,200."""
    errors = gate(Metric.ERRORS, max=0.01)
    assert detectable(errors, 2.0) == "gate: with 60 requests, a share of 5xx below 4.9 % may pass"
    assert detectable(errors, 2.0, 600.0) == "gate: with 1200 requests, a share of 5xx below 1.6 % may pass"


def test_too_little_traffic_is_said() -> None:
    assert (
        detectable(gate(Metric.ERRORS, max=0.01), 0.05) == "gate: no ruling, only about 30 of the 50 requests needed come within its 600 s"
    )


def test_what_is_said_to_pass_is_what_passes() -> None:
    """At 5.8 % of errors, about one gate in twenty of 50 requests passes at its first look."""
    randomness = random.Random(58)
    on = gate(Metric.ERRORS, max=0.01)
    passed = sum(
        ruled(on, tally(requests=50.0, errors=float(sum(randomness.random() < 0.058 for _ in range(50))))).ruling is Ruling.PASS
        for _ in range(2000)
    )
    assert 60 <= passed <= 140


def test_a_watch_that_is_too_short_for_our_own_requests_is_said() -> None:
    """Fifty canary requests, one every five seconds, take 250 s: two such windows don't end in 300 s."""
    said = "a last watch of 300 s is too short for two windows of 250 s: what is bad only then is not seen"
    assert unwatched(gate(Metric.CANARY_FAILURES, max=0.0), Watch(300.0, 60.0), 5.0) == said
    assert unwatched(gate(Metric.CANARY_FAILURES, max=0.0), Watch(500.0, 60.0), 5.0) == ""
    assert unwatched(gate(Metric.ERRORS, max=0.0), Watch(300.0, 60.0), 5.0) == ""
    assert unwatched(gate(Metric.ERRORS, max=0.0), Watch(100.0, 58.0), 5.0).startswith("a last watch of 100 s is too short for two")
    assert unwatched(gate(Metric.WORK, max=0.0), Watch(300.0, 60.0), 5.0).startswith("not looked at again")


@pytest.mark.parametrize("name", ["synapse-workers", "demo"])
def test_the_gates_of_our_own_playbooks_fit_their_watch(name: str) -> None:
    playbook = Playbook.model_validate(yaml.safe_load((PLAYBOOKS / f"{name}.yaml").read_text(encoding="utf-8")))
    watch = Watch(playbook.watch.watch_s, playbook.watch.window_s)
    gates = [resolved(entry) for entry in playbook.gates if entry.metric not in BURSTS]
    assert [unwatched(one, watch, playbook.baseline.sample_s) for one in gates] == [""] * len(gates)


# At odds of 6,000; nobody passes with fewer than the fifty requests that the gate asks for.
TIME = (
    "gate: a time of 2 × after about 58, 1.5 × after about 214, 1.2 × after about 2717 requests, "
    "not before about 4 min, since until then it may be a recovery; "
    "a good worker passes after about 50"
)


def test_a_sequential_gate_says_after_how_many_it_sees_what() -> None:
    """Before any rate is known, in requests; a limit of its own is what a good worker passes by."""
    slow, failing = gate(Metric.LATENCY_P95, odds=6000.0), gate(Metric.ERRORS, odds=6000.0)
    assert detectable(slow) == TIME
    assert detectable(gate(Metric.LATENCY_P95, odds=6000.0, ratio_max=2.0)) == TIME
    assert (
        detectable(failing) == "gate: a share of 5xx of 5% after about 86, 1% after about 903 requests; a good worker passes after about 58"
    )
    assert detectable(gate(Metric.POLL_CPU, odds=6000.0)) == TIME.replace("time", "cost").replace("requests", "long-polls")


def test_a_sequential_gate_says_what_it_sees_in_time() -> None:
    """With a rate, in seconds and minutes; what would take longer than its deadline it does not see."""
    errors = gate(Metric.ERRORS, odds=6000.0)
    said = "gate: with 5 requests a second it sees 5% in about 17 s, 1% in about 3 min; a good worker passes in about 60 s"
    assert detectable(errors, 5.0) == said
    assert detectable(errors, 0.01).startswith("gate: with 0.01 requests a second it sees nothing of the kind, not 5% or 1%; a good worker")
    seldom = detectable(gate(Metric.LATENCY_P95, odds=6000.0), 0.2)
    assert seldom == "gate: with 0.2 requests a second it sees 2 × in about 9 min, not 1.5 × or 1.2 ×; a good worker passes in about 4 min"


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_whatever_its_limit_a_sequential_gate_says_something(limit: float) -> None:
    assert detectable(gate(Metric.ERRORS, odds=6000.0, max=limit), 5.0).startswith(
        "gate: with 5 requests a second it sees 5% in about 17 s"
    )


# One of twelve, each seven minutes after the one before.
LITTLE = Facing(per_s=0.4, baseline_s=300.0, alone=False, workers=12, turn_s=420.0, watch_s=900.0)
PATIENT = {"odds": 6200.0, "deadline_s": 1200.0, "samples_min": 30, "soak_s": 30.0}


def test_at_the_traffic_of_a_worker_it_says_what_only_several_show() -> None:
    """What takes longer than the deadline may still be seen when all that have passed are looked at together."""
    said = at_traffic(gate(Metric.LATENCY_P95, **PATIENT), 6200.0, LITTLE)
    assert said == (
        "2 × in about 7 min, 1.5 × not per worker but together by worker 3, 1.2 × not per worker but together by worker 10; "
        "a good one passes in about 3 min"
    )
    few = at_traffic(gate(Metric.LATENCY_P95, **PATIENT), 6200.0, LITTLE._replace(workers=2, watch_s=60.0))
    assert few.startswith("2 × in about 7 min, 1.5 × not per worker but together by the end of the watch, 1.2 × not per worker; ")


def test_who_is_alone_sees_less_and_later() -> None:
    """
    Up to 1.35 × counts as good there; what is bad and isn't seen in time doesn't pass. A bad hour is the same for all: together they see no
    fifth more either.
    """
    alone = LITTLE._replace(per_s=5.0, alone=True)
    said = at_traffic(gate(Metric.LATENCY_P95, **PATIENT), 6200.0, alone)
    assert said.startswith("2 × in about 7 min, 1.5 × not per worker, but it doesn't pass, 1.2 × not per worker; ")
    assert at_traffic(gate(Metric.LATENCY_P95, **PATIENT), 6200.0, alone._replace(alone=False)).startswith(
        "2 × in about 4 min, 1.5 × in about 6"
    )


def test_shares_at_the_traffic_of_a_worker() -> None:
    """By requests alone, whoever else there is; and where even a good one would not pass in time, that is said."""
    said = at_traffic(gate(Metric.ERRORS, **PATIENT), 6200.0, LITTLE)
    assert said == "5% in about 4 min, 1% not per worker; a good one passes in about 2 min"
    seldom = at_traffic(gate(Metric.ERRORS, **PATIENT), 6200.0, LITTLE._replace(per_s=0.01))
    assert (
        seldom == "5% not per worker, but it doesn't pass, 1% not per worker; no ruling: even a good one has yet to pass after its 1200 s"
    )
