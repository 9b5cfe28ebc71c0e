"""Homeservers of which something was read, and what an inventory is derived of that."""

from collections.abc import Mapping
from typing import Any

from rollout.homeservers.synapse.deriving.derive import Derived, derive
from rollout.homeservers.synapse.deriving.sources import Backend, ParsedFile, Place, Proxy, Server, Shared, Sources

HERE = Place("a", 1)
DRIVERS = {"workers": ("supervisor", "systemd_ssh"), "traffic": ("haproxy", "nginx")}
METRICS = {"type": "metrics", "port": 9000}


def http(port: int, *names: str, **others: object) -> dict[str, object]:
    return {"type": "http", "port": port, "resources": [{"names": list(names)}], **others}


def file(name: str, values: Mapping[str, object]) -> ParsedFile:
    return ParsedFile(name, values, {(key,): number for number, key in enumerate(values, start=1)})


def worker(name: str, *listeners: Mapping[str, object], **values: object) -> ParsedFile:
    return file(
        f"/etc/s/workers/{name}.yaml",
        {"worker_app": "synapse.app.generic_worker", "worker_name": name, "worker_listeners": list(listeners), **values},
    )


def sources(*workers: ParsedFile, shared: Mapping[str, object] | None = None, **others: Any) -> Sources:  # noqa: ANN401  (whatever there is)
    values = {
        "server_name": "example.org",
        "enable_metrics": True,
        "listeners": [http(8008, "client", "replication", bind_addresses=["127.0.0.1"]), {"type": "metrics", "port": 8999}],
        "instance_map": {"main": {"host": "127.0.0.1", "port": 8008}},
        **(shared or {}),
    }
    return Sources(Shared((file("/etc/s/homeserver.yaml", values),)), workers, **others)


def derived(*workers: ParsedFile, **others: Any) -> Derived:  # noqa: ANN401  (as above)
    return derive(sources(*workers, **others), DRIVERS)


def entry(found: Derived, name: str) -> dict[str, object]:
    workers = found.content["workers"]
    assert isinstance(workers, dict)
    one = workers[name]
    assert isinstance(one, dict)
    return one


def marks(found: Derived, *at: str) -> list[str]:
    return [f"{'! ' if mark.needed else ''}{mark.why}" for mark in found.marks if mark.at == at]


def contradictions(found: Derived) -> list[str]:
    return [one.what for one in found.contradictions]


def haproxy(*backends: Backend) -> Proxy:
    return Proxy("haproxy", ("haproxy.cfg",), backends, ("/run/h.sock",))


def server(name: str, host: str, port: int) -> Server:
    return Server(name, f"{host}:{port}", HERE, host, port)
