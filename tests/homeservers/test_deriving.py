"""An inventory, derived from what was read: each part by itself, and what contradicts."""

import pytest

from rollout.homeservers.synapse.deriving.listeners import Listener
from rollout.homeservers.synapse.deriving.processes import natural
from rollout.homeservers.synapse.deriving.sources import Backend
from rollout.model.errors import InvalidFileError
from tests.homeservers.derived import HERE, METRICS, contradictions, derived, entry, file, haproxy, http, marks, server, worker


@pytest.mark.parametrize(
    ("listener", "host", "heard"),
    [
        (Listener("http", HERE, 1), "10.0.0.1", True),
        (Listener("http", HERE, 1, addresses=("0.0.0.0",)), "any.example", True),  # noqa: S104  (it is read, not bound)
        (Listener("http", HERE, 1, addresses=("::1", "127.0.0.1")), "localhost", True),
        (Listener("http", HERE, 1, addresses=("127.0.0.1",)), "10.0.0.1", False),
        (Listener("http", HERE, 1, addresses=("127.0.0.1",)), "any.example", False),
        (Listener("http", HERE, 1, addresses=("10.0.0.1",)), "10.0.0.1", True),
        (Listener("http", HERE, 1, addresses=("10.0.0.1",)), "10.0.0.2", False),
        (Listener("http", HERE, 1, addresses=("10.0.0.1",)), "any.example", True),
        (Listener("http", HERE, 1, addresses=("10.0.0.1",)), "localhost", False),
    ],
)
def test_who_hears_whom(listener: Listener, host: str, heard: bool) -> None:  # noqa: FBT001  (an expected value)
    assert listener.hears(host) is heard


@pytest.mark.parametrize(
    ("listener", "host", "url"),
    [
        (Listener("http", HERE, 1), "", "http://127.0.0.1:1"),
        (Listener("http", HERE, 1, addresses=("::1", "127.0.0.1")), "", "http://127.0.0.1:1"),
        (Listener("http", HERE, 1, addresses=("::1",)), "", "http://[::1]:1"),
        (Listener("http", HERE, 1, addresses=("10.0.0.1",), tls=True), "", "https://10.0.0.1:1"),
        (Listener("http", HERE, 1), "w.example", "http://w.example:1"),
    ],
)
def test_addresses(listener: Listener, host: str, url: str) -> None:
    assert listener.url(host) == url


def test_the_listener_for_users_is_asked_if_there_are_several() -> None:
    found = derived(worker("w", http(8081, "replication"), http(8082, "metrics"), http(8083, "client"), METRICS))
    assert entry(found, "w")["url"] == "http://127.0.0.1:8083"


def test_a_page_of_metrics_on_an_http_listener_counts_too() -> None:
    found = derived(worker("w", http(8081, "client", "metrics")))
    assert entry(found, "w")["metrics"] == "http://127.0.0.1:8081/_synapse/metrics"


def test_a_unix_socket_is_no_address() -> None:
    found = derived(worker("w", {"type": "http", "path": "/run/w.sock", "resources": [{"names": ["client"]}]}, METRICS))
    assert entry(found, "w")["url"] is None
    assert "! it listens on a unix socket only" in marks(found, "workers", "w", "url")[0]


def test_the_old_setting_for_mains_metrics_is_heeded() -> None:
    found = derived(shared={"listeners": [http(8008, "client")], "metrics_port": 9092})
    assert entry(found, "main")["metrics"] == "http://127.0.0.1:9092/_synapse/metrics"


def test_the_proxys_word_on_the_machine_counts_before_the_instance_maps() -> None:
    mapped = {"main": {"host": "10.0.0.1", "port": 8008}, "w": {"host": "10.0.0.2", "port": 8081}}
    shared = {"listeners": [http(8008, "client", "replication"), {"type": "metrics", "port": 8999}], "instance_map": mapped}
    writer = worker("w", http(8081, "client", "replication"), METRICS)
    alone = derived(writer, shared=shared)
    assert (entry(alone, "w")["host"], entry(alone, "w")["url"]) == ("10.0.0.2", "http://10.0.0.2:8081")
    behind = derived(writer, shared=shared, proxies=(haproxy(Backend("b", HERE, (server("w", "w.example", 8081),))),))
    assert (entry(behind, "w")["host"], entry(behind, "w")["url"]) == ("w.example", "http://w.example:8081")


def test_where_two_machines_use_a_port_the_name_of_the_server_decides() -> None:
    backend = Backend("b", HERE, (server("w2", "10.0.0.2", 8081), server("w1", "10.0.0.1", 8081)), ("/_matrix/client",))
    found = derived(worker("w1", http(8081, "client"), METRICS), worker("w2", http(8081, "client"), METRICS), proxies=(haproxy(backend),))
    assert [entry(found, name)["url"] for name in ("w1", "w2")] == ["http://10.0.0.1:8081", "http://10.0.0.2:8081"]


def test_who_may_be_several_is_said_to_be() -> None:
    backend = Backend("b", HERE, (server("x", "10.0.0.2", 8081),), ("/_matrix/client",))
    found = derived(worker("w1", http(8081, "client"), METRICS), worker("w2", http(8081, "client"), METRICS), proxies=(haproxy(backend),))
    assert '"x" (10.0.0.2:8081) in backend b may be w1 or w2: all of them listen on that port' in contradictions(found)


def test_a_server_that_is_called_as_a_worker_is_and_isnt_there() -> None:
    backend = Backend("b", HERE, (server("x", "w", 9999),))
    found = derived(worker("w", http(8081, "client"), METRICS), worker("x", http(9999, "client"), METRICS), proxies=(haproxy(backend),))
    assert '"x" (w:9999) in backend b is called as the worker "w" is, which has no such listener' in contradictions(found)


def test_a_listener_that_only_its_own_machine_hears_is_marked() -> None:
    mapped = {"main": {"host": "127.0.0.1", "port": 8008}, "w": {"host": "10.0.0.2", "port": 8081}}
    private = worker("w", http(8081, "replication", bind_addresses=["127.0.0.1"]), METRICS)
    found = derived(private, shared={"instance_map": mapped, "stream_writers": {"events": "w"}})
    assert "this listener is heard on 127.0.0.1 of its machine alone" in marks(found, "workers", "w", "url")[0]


def test_a_server_of_another_name_is_called_by_that() -> None:
    backend = Backend("b", HERE, (server("one", "127.0.0.1", 8081),))
    found = derived(worker("w", http(8081, "client"), METRICS), proxies=(haproxy(backend),))
    assert entry(found, "w")["server"] == "one"


def test_other_sites_behind_the_proxy_are_left_alone() -> None:
    backend = Backend("element", HERE, (server("web", "127.0.0.1", 3000),), ("/", "/element"))
    assert contradictions(derived(proxies=(haproxy(backend),))) == []


def test_a_worker_in_two_backends_is_in_the_pool_of_its_role_and_the_other_is_said() -> None:
    here = server("w", "127.0.0.1", 8081)
    backends = (
        Backend("initial", HERE, (here,), ("/_matrix/client/v3/login",)),
        Backend("sync", HERE, (here,), ("^/_matrix/client/v3/sync$",)),
    )
    found = derived(worker("w", http(8081, "client"), METRICS), proxies=(haproxy(*backends),))
    assert entry(found, "w")["pool"] == "sync"
    assert found.content["pools"] == {"sync": {"backend": "sync"}}
    assert "it is in initial as w (a:1) too" in marks(found, "workers", "w", "pool")[0]


def test_holding_and_routing_come_from_the_proxy() -> None:
    backend = Backend("b", HERE, (server("main", "127.0.0.1", 8008),), held=True, routing="hash", catches_all=True)
    assert derived(proxies=(haproxy(backend),)).content["pools"] == {"b": {"backend": "b", "hold": True, "routing": "hash"}}


# Every key that is read, in the shared files and in a worker's.
KEYS = (
    "worker_app", "worker_name", "worker_listeners", "listeners", "instance_map", "database", "stream_writers", "send_federation",
    "federation_sender_instances", "start_pushers", "pusher_instances", "run_background_tasks_on", "notify_appservices",
    "notify_appservices_from_worker", "update_user_directory", "update_user_directory_from_worker", "enable_media_repo", "enable_metrics",
    "media_instance_running_background_jobs", "metrics_port",
)  # fmt: skip
ODD: tuple[object, ...] = (
    None, True, 0, -1, 1.5, "", "x", [], {}, [None], [[]], [{}], {"main": None}, {"x": {}}, {"name": []}, {"events": {}},
    {"events": [None]},
    [{"type": "http", "port": "x", "resources": 1}], [{"type": None, "port": True, "bind_addresses": 5, "resources": [None, {"names": 5}]}],
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_values_of_another_kind_are_left_to_synapse(key: str) -> None:
    """It refuses them itself, in its own words; here they are nothing."""
    for value in ODD:
        found = derived(worker("w", http(8081, "client"), METRICS), worker("v", **{key: value}), shared={key: value})
        assert entry(found, "main")["role"] == "main"


def test_the_database_is_a_reference_and_what_is_known_of_it_a_hint() -> None:
    found = derived(shared={"database": {"name": "psycopg2", "args": {"host": "db", "database": "synapse"}}})
    assert found.content["database_driver"] == {"driver": "postgresql", "dsn": "file:/etc/rollout/database.dsn"}
    assert any("host=db dbname=synapse" in mark.look for mark in found.marks)


@pytest.mark.parametrize(
    ("shared", "what"),
    [
        (
            {"instance_map": {"main": {"host": "h", "port": 1}}},
            'instance_map says that "main" is at port 1, and its http listeners are at 8008',
        ),
        ({"stream_writers": {"typing": ["w", "x"]}}, "typing has 2 writers (w, x), and may have one"),
        ({"stream_writers": {"events": ["w"]}}, '"w" writes events, and isn\'t in instance_map, where others would find it'),
        ({"pusher_instances": ["x"]}, 'pusher_instances names "x", which has no worker file'),
        ({"instance_map": {"w": {"host": "h", "port": 8081}}}, "instance_map has no main, so no worker finds it"),
        ({"database": {"name": "sqlite3"}}, "workers need PostgreSQL, and the database is sqlite3"),
        ({"enable_metrics": False}, '"w" has a metrics listener, and enable_metrics is not true, so its page is empty'),
    ],
)
def test_contradictions_of_the_shared_settings(shared: dict[str, object], what: str) -> None:
    found = contradictions(derived(worker("w", http(8081, "client", "replication"), METRICS), shared=shared))
    assert any(one.startswith(what) for one in found), found
    whole = contradictions(derived(worker("w", http(8081, "client", "replication"), METRICS)))
    assert not any(one.startswith(what) for one in whole), whole


def test_two_processes_on_one_port() -> None:
    loopback = {"bind_addresses": ["127.0.0.1"]}
    same = derived(worker("a", http(8008, "client"), METRICS), worker("b", http(2, "client", **loopback), http(2, "client", **loopback)))
    assert contradictions(same) == [
        '"a" listens on port 8008, and so does "main" (/etc/s/homeserver.yaml:3)',
        '"b" listens on port 2, and so does another listener of it (/etc/s/workers/b.yaml:3)',
    ]
    apart = derived(worker("a", http(8081, bind_addresses=["10.0.0.1"]), METRICS), worker("b", http(8081, bind_addresses=["10.0.0.2"])))
    assert contradictions(apart) == []


def test_workers_of_others_are_left_out() -> None:
    found = derived(
        worker("a", server_name="b.org"), worker("b", instance_map={"main": {"host": "h", "port": 1}}), file("log.yaml", {}), worker("main")
    )
    assert list(found.content["workers"]) == ["main"]  # type: ignore[call-overload]
    assert [one.split(":")[0] for one in contradictions(found)] == [
        "this is a worker of b.org, not of example.org",
        "this worker's main process is at h",
        "a worker is called main, as the main process is",
    ]


def test_a_worker_of_whom_only_others_speak_is_not_forgotten() -> None:
    """It may run on another machine, and nobody would roll it."""
    mapped = {"main": {"host": "127.0.0.1", "port": 8008}, "w": {"host": "10.0.0.2", "port": 9101}}
    found = derived(shared={"instance_map": mapped, "stream_writers": {"events": ["w"]}})
    assert entry(found, "w") == {"role": "event_persister", "host": "10.0.0.2", "url": "http://10.0.0.2:9101", "metrics": None}


def test_no_name_is_no_homeserver() -> None:
    with pytest.raises(InvalidFileError, match="no server_name"):
        derived(shared={"server_name": None})


def test_names_are_sorted_as_people_count() -> None:
    assert sorted(["sync10", "sync2", "a", "10", "sync"], key=natural) == ["10", "a", "sync", "sync2", "sync10"]
