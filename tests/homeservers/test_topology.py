"""Who does what, read out of a configuration, and what a change of it is called."""

from typing import Any

import pytest

from rollout.homeservers.synapse.topology import explain_difference, procedure, read_modules, read_topology

CONFIG: dict[str, Any] = {
    "instance_map": {"main": {"host": "127.0.0.1", "port": 29093}, "event_persister1": {"path": "/run/persister"}},
    "stream_writers": {"events": ["event_persister1", "event_persister2"], "typing": "main"},
    "send_federation": False,
    "federation_sender_instances": ["fedsender2", "fedsender1"],
    "redis": {"enabled": True, "host": "127.0.0.1", "password": "hidden"},
    "modules": [{"module": "b.B", "config": {}}, {"module": "a.A"}],
}
REORDERED = ": the same names, but the place in the list decides who does what"


def test_topology_of_a_worker_cluster() -> None:
    found = read_topology(CONFIG)
    assert found["instance_map.main"] == ("http://127.0.0.1:29093",)
    assert found["instance_map.event_persister1"] == ("unix:/run/persister",)
    assert found["stream_writers.events"] == ("event_persister1", "event_persister2")
    assert found["stream_writers.typing"] == found["stream_writers.push_rules"] == ("main",)
    assert found["federation_sender_instances"] == ("fedsender2", "fedsender1")
    assert found["pusher_instances"] == ("main",)
    assert found["redis"] == ("127.0.0.1:6379/0",)


def test_secrets_stay_where_they_are() -> None:
    assert "hidden" not in repr(read_topology(CONFIG))


@pytest.mark.parametrize(
    "same",
    [
        {"stream_writers": {"events": ["event_persister1", "event_persister2"]}},
        {"stream_writers": {"events": ("event_persister1", "event_persister2"), "typing": ["master"]}},
        {"start_pushers": True},
        {"pusher_instances": ["main"]},
        {"run_background_tasks_on": None},
        {"update_user_directory": True},
        {"log_config": "elsewhere", "enable_registration": True},
        {"redis": {"enabled": True, "host": "127.0.0.1", "port": 6379, "password": "another"}},
    ],
)
def test_writing_a_default_down_is_no_change(same: dict[str, Any]) -> None:
    assert explain_difference(read_topology(CONFIG), read_topology({**CONFIG, **same})) == ()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"federation_sender_instances": ["fedsender1", "fedsender2"]},
            "federation_sender_instances would change from [fedsender2, fedsender1] to [fedsender1, fedsender2]" + REORDERED,
        ),
        (
            {"stream_writers": {"events": "event_persister1"}},
            "stream_writers.events would change from [event_persister1, event_persister2] to [event_persister1]",
        ),
        ({"start_pushers": False}, "pusher_instances would change from [main] to []"),
        ({"notify_appservices_from_worker": "as1"}, "notify_appservices_from_worker would change from [main] to [as1]"),
        ({"media_instance_running_background_jobs": "m1"}, "media_instance_running_background_jobs would change from nothing to [m1]"),
        ({"enable_media_repo": False}, "enable_media_repo would change from nothing to [false]"),
        ({"redis": {"enabled": True, "path": "/run/valkey"}}, "redis would change from [127.0.0.1:6379/0] to [/run/valkey/0]"),
        (
            {"instance_map": {**CONFIG["instance_map"], "main": {"host": "127.0.0.1", "port": 1, "tls": True}}},
            "instance_map.main would change from [http://127.0.0.1:29093] to [https://127.0.0.1:1]",
        ),
    ],
)
def test_change_is_recognised(changed: dict[str, Any], sentence: str) -> None:
    assert explain_difference(read_topology(CONFIG), read_topology({**CONFIG, **changed})) == (sentence,)


@pytest.mark.parametrize("stream", ["receipts", "thread_subscriptions"])
def test_order_is_no_change_where_synapse_has_no_use_for_it(stream: str) -> None:
    one, other = (read_topology({"stream_writers": {stream: names}}) for names in (["a", "b"], ["b", "a"]))
    assert one == other


def test_first_writer_of_device_lists_is_no_other() -> None:
    one, other = (read_topology({"stream_writers": {"device_lists": names}}) for names in (["a", "b"], ["b", "a"]))
    assert one != other


@pytest.mark.parametrize(
    "config", [{}, {"instance_map": None, "stream_writers": None, "redis": None, "modules": None}, {"stream_writers": []}]
)
def test_configuration_without_workers_gives_all_to_main(config: dict[str, Any]) -> None:
    found = read_topology(config)
    assert set(found.values()) == {("main",)}
    assert len(found) == 15
    assert read_modules(config) == ()


def test_modules_keep_their_order() -> None:
    """Their callbacks are asked one after the other."""
    assert read_modules(CONFIG) == ("b.B", "a.A")


def test_procedure_names_what_to_do_instead() -> None:
    assert "start together" in procedure()
