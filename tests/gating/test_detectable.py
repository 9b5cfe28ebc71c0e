"""What a gate can't see, by the same arithmetic that rules."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rollout.gating.detectable import USUAL, at_traffic, detectable, passes_in_time, unwatched
from rollout.gating.foreseen import Facing
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


def test_before_any_traffic_is_known_little_and_much_of_it_stand_for_all() -> None:
    """What is seen goes by what users ask, and how much that is nobody knows yet."""
    slow = detectable(gate(Metric.LATENCY_P95, odds=6000.0, deadline_s=1200.0))
    assert slow == (
        "gate: at 1 request a second 2 × in about 14 min, 1.5 × not per worker, but it doesn't pass, 1.2 × not per worker; "
        "a good one passes in about 3.5 min; at 20 2 × in about 6 min, 1.5 × in about 9 min, 1.2 × not per worker; "
        "a good one passes in about 2.5 min"
    )
    failing = detectable(gate(Metric.ERRORS, odds=6000.0, deadline_s=1200.0))
    assert failing.startswith("gate: at 1 request a second 5% in about ")
    assert detectable(gate(Metric.POLL_CPU, odds=6000.0)).startswith("gate: at 1 long-poll a second ")
    assert detectable(gate(Metric.PROXY_FAILURES, odds=6000.0)).startswith("gate: at 1 request at the proxy a second ")


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_whatever_its_limit_a_sequential_gate_says_something(limit: float) -> None:
    said = detectable(gate(Metric.ERRORS, odds=6000.0, max=limit))
    assert said.startswith("gate: at 1 request a second 5%")
    assert "; at 20 5%" in said


# One of twelve, each seven minutes after the one before, in a pool of four.
LITTLE = Facing(per_s=0.4, baseline_s=300.0, peers_per_s=1.2, workers=12, pool=4, turn_s=420.0, watch_s=900.0, usual=USUAL)
PATIENT = {"odds": 6200.0, "deadline_s": 1200.0, "samples_min": 30, "soak_s": 30.0}


def test_at_the_traffic_of_a_worker_it_says_what_is_seen_and_what_is_not() -> None:
    """Not even together, where those who are so slow hardly pass; of two there is no together before the watch."""
    said = at_traffic(gate(Metric.LATENCY_P95, **PATIENT), 6200.0, LITTLE)
    assert said == ("2 × in about 14 min, 1.5 × and 1.2 × not per worker, not together either; a good one passes in about 3 min")
    one = at_traffic(gate(Metric.LATENCY_P95, **PATIENT), 6200.0, LITTLE._replace(workers=1))
    assert one.startswith("2 × in about 14 min, 1.5 × and 1.2 × not per worker; ")


def test_what_several_show_is_said_where_there_is_enough_to_see() -> None:
    """With a limit that lets them pass; where little is asked nothing of the kind is promised, and in the end there is the watch."""
    limited = gate(Metric.LATENCY_P95, **PATIENT, ratio_max=2.0)
    much = LITTLE._replace(per_s=5.0, peers_per_s=55.0, pool=12)
    said = at_traffic(limited, 6200.0, much)
    assert "1.5 × not per worker but together by worker 3, 1.2 × not per worker but together by worker 6; " in said
    assert "together by" not in at_traffic(limited, 6200.0, much._replace(per_s=0.9))
    assert "1.5 × not per worker but together by the end of the watch, 1.2 × not per worker, not" in at_traffic(
        limited, 6200.0, much._replace(workers=2)
    )
    shadow = at_traffic(replace(limited, acts=False), 6200.0, much)
    assert "1.5 × and 1.2 × not per worker; " in shadow


def test_who_is_alone_sees_less_and_later() -> None:
    """
    Up to 1.35 × counts as good there; what is bad and isn't seen in time doesn't pass. A bad hour is the same for all: together they see no
    fifth more either.
    """
    alone = LITTLE._replace(per_s=5.0, peers_per_s=0.0)
    said = at_traffic(gate(Metric.LATENCY_P95, **PATIENT), 6200.0, alone)
    assert said.startswith("2 × in about 11 min, 1.5 × not per worker, but it doesn't pass, 1.2 × not per worker, not together either; ")
    assert at_traffic(gate(Metric.LATENCY_P95, **PATIENT), 6200.0, alone._replace(peers_per_s=25.0)).startswith(
        "2 × in about 7 min, 1.5 × in about 10"
    )


def test_shares_at_the_traffic_of_a_worker() -> None:
    """By requests alone; and where even a good one would not pass in time, that is said."""
    said = at_traffic(gate(Metric.ERRORS, **PATIENT), 6200.0, LITTLE)
    assert said == "5% in about 6 min, 1% not per worker; a good one passes in about 3 min"
    seldom = gate(Metric.ERRORS, **PATIENT), 6200.0, LITTLE._replace(per_s=0.01)
    assert (
        at_traffic(*seldom)
        == "5% not per worker, but it doesn't pass, 1% not per worker; no ruling: even a good one has yet to pass after its 1200 s"
    )
    assert not passes_in_time(*seldom)
    assert passes_in_time(gate(Metric.ERRORS, **PATIENT), 6200.0, LITTLE)


def test_what_usually_fails_is_not_called_bad() -> None:
    """Where 1 % fail anyway, 5 % take longer to be told from that, and 1 % is nothing to be seen; of who fails at 5 % nothing is left."""
    much = LITTLE._replace(per_s=5.0, baseline_s=1800.0)
    assert at_traffic(gate(Metric.ERRORS, **PATIENT), 6200.0, much).startswith("5% in about 20 s, 1% in about 3.5 min; ")
    assert at_traffic(gate(Metric.ERRORS, **PATIENT), 6200.0, much._replace(usual=0.01)).startswith("5% in about 60 s; ")
    assert at_traffic(gate(Metric.ERRORS, **PATIENT), 6200.0, much._replace(usual=0.05)).startswith("a good one passes in")


def test_the_example_in_the_documentation_is_what_is_said() -> None:
    """Twelve clients of one pool, with two gates each."""
    page = " ".join((PLAYBOOKS.parent / "docs/gates.md").read_text(encoding="utf-8").split())
    facing = Facing(0.41, 300.0, 4.5, 12, 12, 420.0, 900.0, USUAL)
    assert f"at 0.41 requests a second: {at_traffic(gate(Metric.LATENCY_P95, **PATIENT), 10_400.0, facing)}" in page
    limited = at_traffic(gate(Metric.LATENCY_P95, ratio_max=2.0, **PATIENT), 10_400.0, facing._replace(per_s=5.0, peers_per_s=50.0))
    assert "1.5 × not per worker but together by worker 3" in limited
