"""Running `rollout` on real Synapse workers in pods: the inventory and the playbook for Kubernetes that the examples have, on this bed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

from rollout.lab.load.clients import Rates
from rollout.lab.load.process import LoadProcess, LoadReport
from rollout.model.event import EffectIntended, StepFinished
from tests.kubernetes.rolling import Rolling
from tests.kubernetes.synapse import BAD, EXAMPLES, HEALTH, METRICS, NEW, OLD, PODS, ROOT, Synapse, image_of

# What two cores bear beside five workers and a database.
RATES = Rates(sends=0.8, reads=8.0, initial_syncs=1.0, main=5.0, sliding_users=8)
# HAProxy asks for names twice a second, and they are half a second old at most.
SETTLE_S = 3.0

# The playbook's own figures are for a homeserver with users, and take hours; what is wanted of a release is less strict by what a machine
# that does other things besides adds.
SOON = {"samples_min": 40, "soak_s": 8, "fresh_s": 15, "deadline_s": 240}
GATES = {
    "errors": {"max": 0.0},
    "latency": {"ratio_max": 10.0, "slack": 2.0},
    "poll-cpu": {"ratio_max": 10.0, "slack": 0.1},
}
STRATEGY = {"boot_timeout_s": 180, "progress_deadline_s": 300, "prepare_timeout_s": 120}
OTHERS = {
    # How full a worker is says little where all share two cores.
    "capacity": {"utilisation_max": 9, "p95_ratio_max": None},
    "baseline": {"baseline_s": 15, "sample_s": 1},
    "recovery": {"share_min": 0.2, "level_ratio_max": 10.0, "recovery_s": 60, "deadline_s": 240},
    "watch": {"watch_s": 10, "window_s": 10},
    # Those of a database that has just been made take a minute or two.
    "background_updates": "warn",
}


@dataclass(slots=True)
class RollingSynapse(Rolling):
    """A homeserver of PODS, and the tool."""

    synapse: Synapse = field(kw_only=True)

    def install(self) -> None:
        """Write inventory and playbook."""
        playbook = yaml.safe_load((ROOT / "playbooks/synapse-kubernetes.yaml").read_text())
        playbook["strategy"] |= STRATEGY
        playbook["gates"] = [{**gate, **SOON, **GATES[gate["id"]]} for gate in playbook["gates"] if gate["id"] in GATES]
        (self.place / "playbook.yaml").write_text(yaml.safe_dump({**playbook, **OTHERS}, sort_keys=False))
        self.write_inventory()
        self._as_an_account()

    def write_inventory(self, **drivers: Mapping[str, object]) -> None:
        """Take the example's: who is there, by ways that lead from here to pods, and how this cluster is reached."""
        content: dict[str, Any] = yaml.safe_load((EXAMPLES / "inventory.yaml").read_text())
        content["workers"] = {pod: entry for pod, entry in content["workers"].items() if pod in PODS}
        for pod, entry in content["workers"].items():
            entry |= {"url": self.site.way_to(pod, HEALTH).url, "metrics": f"{self.site.way_to(pod, METRICS).url}/_synapse/metrics"}
        more: dict[str, Mapping[str, object]] = {
            "workers_driver": {**self.site.settings(), **({"kubeconfig": self.kubeconfig} if self.kubeconfig else {})},
            "releases_driver": {"images": {version: image_of(version) for version in (OLD, NEW, BAD)}},
            "traffic_driver": {"settle_s": SETTLE_S},
            "database_driver": {"dsn": f"file:{self.synapse.lab.target}/etc/database.dsn"},
        }
        for name, said in {**more, **drivers}.items():
            content[name] = {**content[name], **said}
        self.inventory.write_text(yaml.safe_dump(content, sort_keys=False))

    @contextmanager
    def load(self) -> Iterator[list[LoadReport]]:
        """Let users use it; what became of every request is in the list once the block is left."""
        seen: list[LoadReport] = []
        with LoadProcess(self.synapse.lab, self.place / f"load-{self.runs}", RATES) as load:
            yield seen
            seen.append(load.stop())

    def was_away(self, worker: str) -> tuple[float, float]:
        """Return from when to when nobody could reach a worker that wasn't drained: until it answered, and everybody had heard of that."""
        events = self.events()
        began_s = next(one.at_s for one in events if isinstance(one, EffectIntended) and one.effect.worker == worker)
        answered_s = next(one.at_s for one in events if isinstance(one, StepFinished) and one.step_id == f"{worker}/await_healthy")
        return began_s, answered_s + SETTLE_S
