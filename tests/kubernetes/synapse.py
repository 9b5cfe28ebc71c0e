"""
Real Synapse workers as the pods: the manifests of examples/kubernetes, without an event persister.

Outside the cluster are, on the address that this machine has among pods, what the lab has too: PostgreSQL, Valkey, the users, and a HAProxy
with the lab's routes. It finds pods as it would in a cluster, by the names of Services, and so do workers find main.

Without an event persister it is main that writes events, so what restarting it cuts are its own requests and the sends that are under way.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from kubernetes import utils

from rollout.adapters.releases.venv import VenvReleases
from rollout.lab import cluster, database, templates
from rollout.lab.artefacts import VERSIONS, write_locks
from rollout.lab.bad_releases import make_bad_release
from rollout.lab.paths import Addresses, Lab, create_lab
from rollout.lab.processes import Supervisor, status_of, wait_until
from rollout.lab.programs import find_programs
from rollout.lab.seeding import seed
from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.homeserver import Homeserver, homeserver
from tests.kubernetes.kubelet.node import Kubelet
from tests.kubernetes.names import PORT, ZONE, Names

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/kubernetes"
# Those of the tests on the lab: making them is the slowest part.
VENVS = ROOT / "build/venvs"
OLD, NEW = VERSIONS
BAD = f"{NEW}+errors"

MAIN, SYNC, CLIENT = "synapse-main", "synapse-sync", "synapse-client"
REPLICAS = {MAIN: 1, SYNC: 2, CLIENT: 2}
PODS = {f"{name}-{number}": name.removeprefix("synapse-") for name, many in REPLICAS.items() for number in range(many)}
HTTP, HEALTH, METRICS, REPLICATION = 8008, 8080, 9001, 9093
USERS, ROOMS = 24, 8
BOOT_S = 180


def image_of(version: str) -> str:
    """A tag has no plus."""
    return f"ghcr.io/element-hq/synapse:v{version.replace('+', '-')}"


@dataclass(frozen=True, slots=True)
class Synapse:
    """*site* is what of it is in the cluster, *lab* the rest."""

    site: Homeserver
    lab: Lab

    def versions(self) -> dict[str, str]:
        """Return what each worker itself says that it runs."""
        return {pod: _version(self.site.way_to(pod, METRICS).url) for pod in PODS}


def _version(url: str) -> str:
    page = requests.get(f"{url}/_synapse/metrics", timeout=10).text
    found = re.search(r'^synapse_build_info\{(?:.*,)?version="([^" ]+)', page, re.MULTILINE)
    assert found is not None, page[:1000]
    return found[1]


@contextmanager
def synapse(plane: ControlPlane, kubelet: Kubelet, place: Path) -> Iterator[Synapse]:
    """Bring one up on OLD, with its users, and with images of NEW and BAD; everything is ended and removed afterwards."""
    with plane.api() as api, closing(Names(plane, kubelet)) as names:
        lab = create_lab(place / "lab", Addresses(names.address))
        templates.write_secrets(lab)
        templates.write_configuration(lab, lab.target / "etc/config")
        _install(lab, kubelet)
        try:
            with (
                homeserver(
                    plane,
                    kubelet,
                    place,
                    named_by="app.kubernetes.io/name",
                    selector="app.kubernetes.io/part-of=matrix-stack",
                    ready_s=BOOT_S,
                ) as site,
            ):
                supervisor = Supervisor(lab)
                cluster.start_stores(lab, find_programs(lab), supervisor, _proxy(lab, plane.namespace), print)
                for manifest in _manifests(plane.namespace, names.address):
                    utils.create_from_dict(api, manifest, namespace=plane.namespace, field_manager="helm")  # type: ignore[no-untyped-call]
                # A worker ends at once while there is no schema, which main makes, and is started again ever later.
                _configure(site, lab, MAIN)
                site.await_ready(MAIN)
                for name in (SYNC, CLIENT):
                    _configure(site, lab, name)
                site.await_ready(SYNC, CLIENT)
                database.let_rollout_look(lab, lab.target / "etc/database.dsn")
                supervisor.start("haproxy")
                _seed(lab)
                yield Synapse(site, lab)
        finally:
            cluster.down(lab.target, purge=True)


def _install(lab: Lab, kubelet: Kubelet) -> None:
    """An image is a virtual environment, as the lab makes them."""
    VENVS.mkdir(parents=True, exist_ok=True)
    (lab.target / "venvs").symlink_to(VENVS)
    write_locks(lab.target / "locks")
    make_bad_release(BAD, lab.target / "locks")
    releases = VenvReleases(lab.target, lab.target / "locks", ())
    for version in (OLD, NEW, BAD):
        known = releases.prepare(releases.identify_first(version, lab.target / "etc/config"), cluster.INSTALL_TIMEOUT_S)
        kubelet.image(image_of(version), (lab.target / "releases" / known.id / "venv").resolve())


def _manifests(namespace: str, here: str) -> Iterator[dict[str, Any]]:
    """Read the example's, of as many pods as this machine can bear; they are told names at *here*."""
    names = {
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": [here],
            "searches": [f"{namespace}.{ZONE}"],
            "options": [{"name": "ndots", "value": "5"}],
        },
    }
    for one in yaml.safe_load_all((EXAMPLES / "statefulsets.yaml").read_text()):
        if not one["metadata"]["name"].startswith(tuple(REPLICAS)):
            continue
        one["metadata"]["namespace"] = namespace
        if one["kind"] == "StatefulSet":
            one["spec"]["replicas"] = REPLICAS[one["metadata"]["name"]]
            one["spec"]["template"]["spec"] |= names
        yield one


def _configure(site: Homeserver, lab: Lab, name: str) -> None:
    """Write the Secret that the pods of a StatefulSet wait for: the lab's configuration, and what is elsewhere in a cluster."""
    etc = lab.target / "etc"
    shared = yaml.safe_load((etc / "config/homeserver.yaml").read_text())
    # Nobody but main writes, and sends.
    for key in ("stream_writers", "send_federation", "federation_sender_instances"):
        del shared[key]
    shared |= {
        "listeners": [*_listeners(), _listener(REPLICATION, "replication")],
        "instance_map": {"main": {"host": f"{MAIN}-0.{MAIN}", "port": REPLICATION}},
        "signing_key_path": "/conf/signing.key",
        "log_config": "/conf/log.yaml",
        "app_service_config_files": ["/conf/application_service.yaml"],
    }
    files = {"homeserver.yaml": yaml.safe_dump(shared)}
    files |= {one: (etc / one).read_text() for one in ("signing.key", "log.yaml", "application_service.yaml")}
    for pod in PODS:
        if pod.startswith(f"{name}-") and name != MAIN:
            own = {"worker_app": "synapse.app.generic_worker", "worker_name": pod, "worker_listeners": _listeners()}
            files[f"{pod}.yaml"] = yaml.safe_dump({**own, "worker_log_config": "/conf/log.yaml"})
    data = {one: base64.b64encode(text.encode()).decode() for one, text in files.items()}
    site.core.create_namespaced_secret(site.plane.namespace, {"metadata": {"name": name}, "data": data}, field_manager="helm")


def _listener(port: int, *names: str) -> dict[str, object]:
    return {"type": "http", "port": port, "resources": [{"names": list(names)}]}


def _listeners() -> list[dict[str, object]]:
    return [_listener(HTTP, "client", "federation"), _listener(HEALTH, "health"), {"type": "metrics", "port": METRICS}]


def _proxy(lab: Lab, namespace: str) -> str:
    """Write HAProxy's configuration: whoever is behind a Service's name is a server, and who isn't any more ends what was begun."""
    servers = {
        name.removeprefix("synapse-"): f"    server-template pod {many} {name}-http.{namespace}.{ZONE}:{HTTP}"
        " check resolvers cluster resolve-prefer ipv4 init-addr none"
        for name, many in REPLICAS.items()
    }
    resolvers = f"""
resolvers cluster
    nameserver here {lab.addresses.here}:{PORT}
    timeout resolve 500ms
    timeout retry 500ms
    hold valid 500ms
    hold nx 0s
    hold obsolete 0s
"""
    return templates.haproxy(lab, servers) + resolvers


def _seed(lab: Lab) -> None:
    wanted: Mapping[str, int] = {"versions": 200, "v3/sync": 401, "v3/login": 200}
    for path, status in wanted.items():
        url = f"{lab.base_url}/_matrix/client/{path}"
        wait_until(lambda url=url, status=status: status_of(url) == status, 30, f"{path} is answered {status}")  # type: ignore[misc]
    seed(lab, USERS, ROOMS)
    # No other server is in them, and none is waited for.
    lab.users.write_text(json.dumps({**json.loads(lab.users.read_text()), "rooms": []}))
