"""An inventory, derived from what was read: what each worker's role is."""

import pytest

from rollout.homeservers.synapse.deriving.role_of import of_routes
from rollout.homeservers.synapse.deriving.sources import Backend
from tests.homeservers.derived import HERE, METRICS, derived, entry, haproxy, http, marks, server, worker


@pytest.mark.parametrize(
    ("shared", "role"),
    [
        ({"stream_writers": {"events": "w"}}, "event_persister"),
        ({"stream_writers": {"events": ["other", "w"]}}, "event_persister"),
        ({"stream_writers": {"typing": ["w"]}}, "typing"),
        ({"stream_writers": {"device_lists": ["w"]}}, "device_lists"),
        ({"stream_writers": {"quarantined_media_changes": ["w"]}}, "quarantined_media"),
        ({"stream_writers": {"typing": "w", "events": "w"}}, "stream_writer"),
        ({"stream_writers": {"something_newer": "w"}}, "stream_writer"),
        ({"federation_sender_instances": ["w"]}, "federation_sender"),
        ({"pusher_instances": ["w"]}, "pusher"),
        ({"update_user_directory_from_worker": "w"}, "user_dir"),
        ({"notify_appservices_from_worker": "w"}, "appservice"),
        ({"run_background_tasks_on": "w"}, "background"),
        ({"media_instance_running_background_jobs": "w"}, "media"),
    ],
)
def test_what_the_shared_settings_give_by_name(shared: dict[str, object], role: str) -> None:
    found = derived(worker("w", http(8081, "client"), METRICS), shared=shared)
    assert entry(found, "w")["role"] == role
    assert marks(found, "workers", "w", "role") == []


@pytest.mark.parametrize(
    ("app", "role"),
    [
        ("federation_sender", "federation_sender"),
        ("pusher", "pusher"),
        ("appservice", "appservice"),
        ("user_dir", "user_dir"),
        ("media_repository", "media"),
        ("synchrotron", "sync"),
        ("federation_reader", "federation_reader"),
        ("client_reader", "client"),
        ("frontend_proxy", "client"),
    ],
)
def test_kinds_of_workers_from_before(app: str, role: str) -> None:
    assert entry(derived(worker("w", METRICS, worker_app=f"synapse.app.{app}")), "w")["role"] == role


def test_of_several_roles_the_one_whose_pause_is_felt_most_is_taken_and_the_others_are_said() -> None:
    shared = {"federation_sender_instances": ["w"], "run_background_tasks_on": "w", "notify_appservices_from_worker": "w"}
    found = derived(worker("w", METRICS), shared=shared)
    # Of the two singletons the one of which something can be measured.
    assert entry(found, "w")["role"] == "appservice"
    (said,) = marks(found, "workers", "w", "role")
    assert said.startswith("it is background and federation_sender too")


@pytest.mark.parametrize(
    ("routes", "roles"),
    [
        (["^/_matrix/client/(r0|v3)/sync$"], ["sync"]),
        (["^/_matrix/client/(api/v1|r0|v3)/events$"], ["sync"]),
        (["^/_matrix/client/(api/v1|r0|v3)/rooms/[^/]+/initialSync$"], ["sync"]),
        (["^/_matrix/client/unstable/org.matrix.simplified_msc3575/sync$"], ["client"]),
        (["^/_matrix/client/v3/rooms/.*/event/", "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"], ["client"]),
        (["^/_matrix/client/v3/keys/upload"], ["client"]),
        (["^/_matrix/federation/v1/get_missing_events/", "^/_matrix/key/v2/query"], ["federation_reader"]),
        (["/_matrix/media/", "^/_matrix/client/v1/media/", "^/_matrix/federation/v1/media/"], ["media"]),
        (["/_matrix/client/v3/login", "^/_matrix/client/v3/sync$"], ["sync", "client"]),
        (["^/_matrix/(client|federation)/"], ["client", "federation_reader"]),
        (["^(/_matrix|/_synapse/client)"], ["client"]),
        (["/element", "/"], []),
    ],
)
def test_whose_work_a_path_is(routes: list[str], roles: list[str]) -> None:
    assert list(of_routes(routes)) == roles


def test_a_worker_for_anything_is_what_the_proxy_makes_of_it() -> None:
    backend = Backend("pool", HERE, (server("w", "127.0.0.1", 8081),), ("^/_matrix/client/v3/sync$",))
    found = derived(worker("w", http(8081, "client", "federation"), METRICS), proxies=(haproxy(backend),))
    assert entry(found, "w")["role"] == "sync"
    assert entry(found, "w")["pool"] == "pool"
    assert marks(found, "workers", "w", "role") == []


def test_without_a_proxy_its_listener_says_what_it_may_be() -> None:
    reader = derived(worker("w", http(8081, "federation"), METRICS))
    assert entry(reader, "w")["role"] == "federation_reader"
    client = derived(worker("w", http(8081, "client", "federation"), METRICS))
    assert entry(client, "w")["role"] == "client"
    assert marks(client, "workers", "w", "role") == [
        "the proxy's configuration leads nobody to it: client was taken, for its listener serves that"
    ]


def test_a_worker_that_does_nothing_has_no_role() -> None:
    found = derived(worker("w", http(8081), METRICS))
    assert entry(found, "w")["role"] is None
    assert marks(found, "workers", "w", "role") == ["! no shared setting names it, and it serves neither clients nor federation"]
