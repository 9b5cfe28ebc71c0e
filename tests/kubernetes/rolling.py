"""Running `rollout` on a homeserver of small pods."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from click.testing import CliRunner

from rollout.adapters.documents.read import read_inventory
from rollout.adapters.journal.sql import open_journal
from rollout.adapters.releases import kubernetes
from rollout.interfaces.cli import cli
from rollout.lab.processes import wait_until
from rollout.lab.tool import Running
from rollout.model.event import EffectIntended, Event
from rollout.model.inventory import Inventory
from rollout.model.plan import Verb
from tests.end_to_end.site import COMMAND_TIMEOUT_S, Command, Said
from tests.kubernetes.hand import repeated
from tests.kubernetes.homeserver import IMAGE, Homeserver, Way

WORKERS = {"main-0": "main", "client-0": "client", "client-1": "client", "sync-0": "sync", "sync-1": "sync", "sync-2": "sync"}
OLD, GOOD = "2.0.0", "2.1.0"

PLAYBOOK = """\
name: pods
strategy:
  role_order: [sync, client]
  drain_timeout_s: 30
  boot_timeout_s: 120
  progress_deadline_s: 240
  prepare_timeout_s: 120
  restart_attempts_max: 1
  ramp: {weights: [100], step_s: 0}
capacity: {utilisation_max: 9, p95_ratio_max: null}
baseline: {baseline_s: 2, sample_s: 1}
gates:
  - {id: errors, metric: error_ratio, roles: [sync, client], max: 0.0, samples_min: 3, soak_s: 1, fresh_s: 10, deadline_s: 60}
watch: {watch_s: 2, window_s: 2}
guards: []
accept_hazards: []
liveness_only: [main]
"""


@dataclass(slots=True)
class Rolling:
    """
    A homeserver with WORKERS, and the tool. Of the roles *by_deployments* each worker is the one pod of a Deployment of its name. *traffic*
    is what lets requests in, if not the pools' own Services; with *holds* main is behind it, too, and held while it restarts.
    """

    site: Homeserver
    place: Path
    journal: str = "journal.db"
    kubeconfig: str = ""
    runs: int = 0
    patience_s: float = COMMAND_TIMEOUT_S
    by_deployments: frozenset[str] = frozenset()
    traffic: Mapping[str, object] | None = None
    holds: bool = False
    playbook: str = PLAYBOOK
    _log: Path = Path()

    @property
    def inventory(self) -> Path:
        return self.place / "inventory.yaml"

    @property
    def read(self) -> Inventory:
        return read_inventory(self.inventory)

    def install(self) -> None:
        """Make the StatefulSets and Deployments, and write inventory and playbook."""
        for role, many in {"main": 1, "client": 2, "sync": 3}.items():
            has = self.site.has_deployments if role in self.by_deployments else self.site.has
            has(role, many, OLD, service=role != "main" and self.traffic is None, budget=None if role == "main" else 1)
        places = {pod: self.place_of(pod) for pod in WORKERS}
        self.site.await_ready(*dict.fromkeys(WORKERS[pod] if place == pod else place for pod, place in places.items()))
        (self.place / "playbook.yaml").write_text(self.playbook)
        self.write_inventory()
        self._as_an_account()
        self._learn()

    def place_of(self, worker: str) -> str:
        """Return how the inventory calls a worker's pod."""
        return f"deployment/{worker}" if WORKERS[worker] in self.by_deployments else worker

    def _as_an_account(self) -> None:
        """From now on be an account that may do what `rollout rbac` prints, and nothing else."""
        said = CliRunner().invoke(cli, ["rbac", "-i", str(self.inventory)], catch_exceptions=False).stdout
        (role,) = [one for one in yaml.safe_load_all(said) if one["kind"] == "Role"]
        self.kubeconfig = str(self.site.plane.account("rollout", role["rules"]))
        self.write_inventory()

    @contextmanager
    def by_a_way_of_its_own(self) -> Iterator[Way]:
        """Let the tool reach the API server by a way that nobody else takes."""
        settings = yaml.safe_load(Path(self.kubeconfig).read_text())
        cluster = settings["clusters"][0]["cluster"]
        server = urlsplit(cluster["server"])
        with closing(Way(lambda: (server.hostname or "", server.port or 443))) as way:
            # Whose certificate it is, if it has one, doesn't change.
            cluster |= {"server": f"{server.scheme}://127.0.0.1:{way.port}", "tls-server-name": server.hostname}
            before, place = self.kubeconfig, self.place / "kubeconfig-way"
            place.write_text(yaml.safe_dump(settings))
            self.kubeconfig = str(place)
            self.write_inventory()
            yield way
            self.kubeconfig = before

    def _learn(self) -> None:
        """Have what runs say what it is, as an earlier rollout would have: no table knows the schema of these releases."""
        releases = kubernetes.build(self.read.releases_driver.settings(), self.read)
        (base,) = releases.prepared().values()
        releases.prepare(base, 60)

    def write_inventory(self, **drivers: Mapping[str, object]) -> None:
        """Write it down, with further settings by driver."""
        urls = {pod: self.site.way_to(self.place_of(pod)).url for pod in WORKERS}
        pods = {pod: place for pod in WORKERS if (place := self.place_of(pod)) != pod}
        behind = {role for role in WORKERS.values() if role != "main" or self.holds}
        workers = {
            pod: {"role": role, "url": urls[pod], "metrics": f"{urls[pod]}/_synapse/metrics", **({"pool": role} if role in behind else {})}
            for pod, role in WORKERS.items()
        }
        named: dict[str, dict[str, Any]] = {
            "workers_driver": {
                "driver": "kubernetes",
                **self.site.settings(),
                **({"kubeconfig": self.kubeconfig} if self.kubeconfig else {}),
                **({"pods": pods} if pods else {}),
            },
            "releases_driver": {"driver": "kubernetes", "image": IMAGE, "facts": ["facts"], "migrate": ["migrate"]},
            "traffic_driver": dict(self.traffic or {"driver": "kubernetes", "settle_s": 0.5}),
            "ledger_driver": {"driver": "kubernetes"},
            "lease_driver": {"driver": "kubernetes"},
        }
        for name, more in drivers.items():
            named[name] = {**named[name], **more}
        homeserver = {
            "homeserver": "example.org",
            "kind": "synapse",
            "workers": workers,
            "pools": {role: {"backend": role, **({"hold": True} if role == "main" else {})} for role in sorted(behind)},
            **named,
        }
        self.inventory.write_text(yaml.safe_dump(homeserver, sort_keys=False))

    def start(self, *arguments: str, journal: str = "") -> Command:
        """Start `rollout`; use the answer in a `with` block."""
        self.runs += 1
        log = self.place / f"{self.runs}-{arguments[0]}.log"
        log.touch()
        self._log = log
        environment = {
            **os.environ,
            "ROLLOUT_INVENTORY": str(self.inventory),
            "ROLLOUT_PLAYBOOK": str(self.place / "playbook.yaml"),
            "ROLLOUT_JOURNAL": str(self.place / (journal or self.journal)),
            "ROLLOUT_MEASURE_S": "1",
        }
        return Command(Running([sys.executable, "-m", "rollout", *arguments], environment, log), log)

    def await_text(self, text: str) -> None:
        """Return as soon as the command that was started last has said it."""
        wait_until(lambda: text in self._log.read_text(), 240, f"it says {text!r}")

    def run(self, *arguments: str, journal: str = "") -> Said:
        """Run it to its end."""
        with self.start(*arguments, journal=journal) as command:
            return command.end(self.patience_s)

    def events(self) -> list[Event]:
        """Return what the newest rollout's journal says."""
        journal = open_journal(str(self.place / self.journal))
        line = journal.deploys("example.org", 1)[0]
        return [event for _, event in journal.events(line.deploy_id)]

    def restarted(self) -> list[str]:
        """Return who was restarted, in order."""
        return [
            str(event.effect.worker) for event in self.events() if isinstance(event, EffectIntended) and event.effect.verb is Verb.RESTART
        ]


@dataclass(slots=True)
class Watched:
    """What was seen of a StatefulSet's pods: how many were Ready at least, by name."""

    ready_min: dict[str, int] = field(default_factory=dict)


@contextmanager
def watched(site: Homeserver, *names: str) -> Iterator[Watched]:
    """Look at StatefulSets all the time."""
    it = Watched()

    def look() -> None:
        for name in names:
            try:
                ready = site.set(name).status.ready_replicas or 0
            except Exception:  # noqa: BLE001, S112  (an API server that is away says nothing)
                continue
            it.ready_min[name] = min(ready, it.ready_min.get(name, ready))

    with repeated(look, 0.2):
        yield it
