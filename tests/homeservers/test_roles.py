"""What each role is for, and what shows that it is well."""

import pytest

from rollout.homeservers.synapse.roles import ROLE_ORDER, ROLES, duty_of, evidence_of
from rollout.model.errors import InvalidFileError
from rollout.model.gate import Metric
from rollout.model.ids import Role
from rollout.model.plan import Duty


def test_order_is_by_what_a_missing_worker_costs_and_main_is_last() -> None:
    ranks = [list(Duty).index(duty_of(role)) for role in ROLE_ORDER]
    assert ranks == sorted(ranks)
    assert (ROLE_ORDER[0], ROLE_ORDER[-1]) == ("client", "main")


def test_sync_workers_are_never_judged_by_how_long_a_long_poll_takes() -> None:
    evidence = evidence_of(Role("sync"))
    assert Metric.LATENCY_P95 not in evidence
    polls = {Metric.POLL_CPU, Metric.POLL_DB, Metric.POLL_SCHEDULING}
    assert {*polls, Metric.CANARY_P95, Metric.CANARY_FAILURES, Metric.ERRORS, Metric.PROXY_FAILURES} == set(evidence)


@pytest.mark.parametrize("role", ["typing", "to_device", "account_data", "presence", "push_rules", "background", "user_dir", "appservice"])
def test_what_there_is_one_of_is_a_singleton(role: str) -> None:
    assert duty_of(Role(role)) is Duty.SINGLETON


@pytest.mark.parametrize("role", ["event_persister", "federation_sender", "pusher"])
def test_what_has_its_share_is_sharded_and_judged_by_its_own_work(role: str) -> None:
    assert duty_of(Role(role)) is Duty.SHARDED
    assert Metric.WORK in evidence_of(Role(role))


def test_of_pushers_those_count_too_that_were_not_taken() -> None:
    assert set(evidence_of(Role("pusher"))) == {Metric.WORK, Metric.PUSH_FAILURES}


def test_every_role_says_why() -> None:
    assert all(facts.why for facts in ROLES.values())


def test_unknown_role_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidFileError, match="there is no role 'event_persistor'") as refusal:
        duty_of(Role("event_persistor"))
    assert refusal.value.remedy == "event_persister"
    assert "federation_sender" in refusal.value.why


def test_role_like_nothing_is_refused_with_all_of_them() -> None:
    with pytest.raises(InvalidFileError) as refusal:
        evidence_of(Role("zzz"))
    assert refusal.value.why.count(",") == len(ROLES) - 1
