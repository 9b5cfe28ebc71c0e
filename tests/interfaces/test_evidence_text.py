"""What a plan says of its gates: who is told of together, and what stands in for peers."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from rollout.adapters.documents.read import read_inventory, read_playbook
from rollout.gating.detectable import unwatched
from rollout.interfaces.evidence_text import gate_lines
from rollout.model.buying import Buying
from rollout.model.ids import Role, WorkerId
from rollout.model.load import Traffic
from rollout.model.plan import Plan, Step, Watch
from rollout.model.playbook import Playbook
from rollout.planning.evidence import resolved
from tests.simulation.stages import PLAYBOOK, seven_workers

ROOT = Path(__file__).parents[2]
CLIENT1, CLIENT2 = WorkerId("client1"), WorkerId("client2")


def _plan(**latency: Any) -> Plan:  # noqa: ANN401  (keys of a gate)
    """Both gates of the two clients are sequential."""
    timing = {"samples_min": 50, "soak_s": 10, "deadline_s": 1200, "test": "sequential"}
    gates = [{"id": "errors", "metric": "error_ratio", **timing}, {"id": "latency", "metric": "latency_p95_s", **timing, **latency}]
    plain = PLAYBOOK.model_dump(mode="json")
    return seven_workers().plan(Playbook.model_validate({**plain, "gates": gates}))


def _asked(plan: Plan, **per_s: float) -> list[str]:
    traffic = {WorkerId(worker): Traffic(rate, 0.0) for worker, rate in per_s.items()}
    return list(gate_lines(replace(plan, forecast=replace(plan.forecast, traffic=traffic))))


def test_workers_of_a_role_with_about_the_same_traffic_are_told_of_together_but_for_who_is_alone() -> None:
    """The second client has nobody left to compare with, which makes no difference for errors."""
    lines = _asked(_plan(), client1=4.0, client2=4.1)
    assert any(
        line.startswith("errors of client1, client2 at 4 requests a second, if 0.1 % of them fail usually: 5% in about ") for line in lines
    )
    said = [line for line in lines if line.startswith("latency of")]
    assert [line.partition(":")[0] for line in said] == [
        "latency of client1 at 4 requests a second",
        "latency of client2 at 4.1 requests a second",
    ]
    first, second = said
    assert "2 × in about 8 min" in first
    assert "1.5 × in about" in first
    assert "1.5 × not per worker, but it doesn't pass" in second


def test_nothing_is_said_at_a_traffic_that_nobody_has_measured() -> None:
    """As long as one of them isn't known, what is seen of little and of much is said for all."""
    plan = _plan()
    nothing, some = _asked(plan), _asked(plan, client1=4.0)
    assert any(line.startswith("latency: at 1 request a second 2 × in about") for line in nothing)
    assert not any(line.startswith("latency of") for line in nothing)
    assert any(line.startswith("latency of client1 at 4 requests a second") for line in some)
    assert any(line.startswith("latency: at 1 request a second 2 × in about") for line in some)


def test_long_polls_are_requests_at_the_proxy_too() -> None:
    """A sync worker answers little else, and what is bought for the other gates goes past the proxy."""
    plain = PLAYBOOK.model_dump(mode="json")
    gate = {"id": "proxy", "metric": "proxy_failure_ratio", "samples_min": 50, "soak_s": 10, "deadline_s": 1200, "test": "sequential"}
    plan = seven_workers().plan(Playbook.model_validate({**plain, "gates": [*plain["gates"], gate]}))
    traffic = {worker: Traffic(0.0, 4.0) for worker in (WorkerId("sync1"), WorkerId("sync2"))}
    lines = list(gate_lines(replace(plan, forecast=replace(plan.forecast, traffic=traffic))))
    assert any(line.startswith("proxy of sync1, sync2 at 4 requests at the proxy a second: 5% in about ") for line in lines), lines


def test_the_last_watch_of_the_demonstration_has_time_for_two_windows() -> None:
    playbook = read_playbook(ROOT / "playbooks/demo.yaml", read_inventory(ROOT / "examples/lab/inventory.yaml"))
    watch = Watch(playbook.watch.watch_s, playbook.watch.window_s)
    said = [unwatched(resolved(entry, 1.0), watch, playbook.baseline.sample_s) for entry in playbook.gates]
    assert [why for why in said if "too short" in why] == []
    shorter = replace(watch, watch_s=watch.watch_s / 2)
    assert any("too short for two windows" in unwatched(resolved(entry, 1.0), shorter, 1.0) for entry in playbook.gates)


def test_what_stands_in_for_peers_is_said() -> None:
    """Alone in its pool, or its pool's last: its own past, with a wider margin, and what limits there are."""
    lines = [line for line in _asked(_plan()) if "nobody of the pool is left" in line]
    assert len(lines) == 1
    names, _, rest = lines[0].partition(":")
    assert "client2" in names
    assert "client1" not in names
    assert "its own past alone, of which up to 1.35 × counts as good" in rest


def test_that_a_first_rollout_sees_later_is_said() -> None:
    said = "latency: in a first rollout, which knows of no recovery yet, up to half as long again"
    assert said in _asked(_plan(), client1=4.0, client2=4.0)
    plan = _plan()
    levels = {name: replace(gate, odds=gate.odds if name == "errors" else None) for name, gate in plan.gates.items()}
    assert not any("first rollout" in line for line in _asked(replace(plan, gates=levels), client1=4.0))


def test_a_worker_that_nobody_asked_may_have_no_ruling() -> None:
    said = _asked(_plan(), client1=0.0, client2=4.0)
    assert "latency of client1: nothing came while that was measured, so there may be no ruling" in said


BUYS = "users ask too little; evidence can be bought there with requests of our own (canary_requests: {per_s: 1})"


def test_where_users_ask_too_little_canary_requests_are_offered() -> None:
    """Nothing at all, or so little that not even a good one passes in time; not where they ask enough, and not where they are bought."""
    plan = _plan()
    assert f"client1: {BUYS}" in _asked(plan, client1=0.0, client2=4.0)
    assert f"client1, client2: {BUYS}" in _asked(plan, client1=0.01, client2=0.02)
    assert not any(BUYS in line for line in _asked(plan, client1=4.0, client2=4.0))
    assert not any(BUYS in line for line in _asked(plan))
    bought = replace(plan, buying=Buying(0.01, 20_000, 0.5, (CLIENT1, CLIENT2)))
    assert not any(BUYS in line for line in _asked(bought, client1=0.0, client2=4.0))


def _only(step: Step, gates: Collection[str]) -> Step:
    return replace(step, gates=tuple(gate for gate in step.gates if gate in gates))


def test_canary_requests_are_not_offered_where_nobody_can_be_asked_or_where_they_show_nothing() -> None:
    """A federation sender serves no client, and a sync worker's canaries are long-polls: a gate on ordinary requests doesn't see them."""
    plan = _plan()
    for role, gates in (("federation_sender", {"errors", "latency"}), ("sync", {"latency"})):
        workers = tuple(replace(worker, role=Role(role)) for worker in plan.workers)
        its = {name: gate for name, gate in plan.gates.items() if name in gates}
        phases = tuple(
            replace(phase, waves=tuple(replace(wave, steps=tuple(_only(step, gates) for step in wave.steps)) for wave in phase.waves))
            for phase in plan.phases
        )
        lines = _asked(replace(plan, workers=workers, gates=its, phases=phases), client1=0.0, client2=0.0)
        assert any("there may be no ruling" in line for line in lines)
        assert not any(BUYS in line for line in lines)


def test_the_usual_share_of_failures_is_the_known_one() -> None:
    """Where 2 % fail anyway, that is what a worker is compared with, and workers who fail as often are told of together."""
    plan = _plan()
    known = {CLIENT1: Traffic(4.0, 0.0, 0.02), CLIENT2: Traffic(4.0, 0.0, 0.0)}
    lines = [line for line in gate_lines(replace(plan, forecast=replace(plan.forecast, traffic=known))) if line.startswith("errors of")]
    assert [line.partition(" in about")[0] for line in lines] == [
        "errors of client1 at 4 requests a second, of which 2 % fail now: 5%",
        "errors of client2 at 4 requests a second, of which 0 % fail now: 5%",
    ]


def test_who_is_left_with_peers_of_whom_nobody_asks_anything_is_alone() -> None:
    """Nothing is compared with nothing, whoever stands in the pool."""
    lines = _asked(_plan(), client1=4.0, client2=0.0)
    (names,) = (line.partition(":")[0] for line in lines if "nobody of the pool is left to compare with" in line)
    assert {"client1", "client2"} <= set(names.split(", "))
