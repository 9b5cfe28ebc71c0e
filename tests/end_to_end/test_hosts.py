"""
Two hosts with systemd, reached over SSH, with a cluster spread over both: behind HAProxy, and behind nginx.

They are set up by the files of examples/systemd-haproxy and examples/systemd-nginx.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from rollout.lab import cluster
from rollout.lab.artefacts import VERSIONS
from rollout.lab.bad_releases import GOOD
from rollout.lab.demo import observe
from rollout.lab.load.clients import Rates
from rollout.lab.load.records import Record
from rollout.lab.paths import WORKERS, Lab
from rollout.lab.processes import wait_until
from tests.documentation.test_commands import commands
from tests.end_to_end.conftest import VENVS
from tests.end_to_end.site import Site, cut
from tests.hosts.cluster import HAPROXY, NGINX, ROOT, Cluster, Front, cluster_on_hosts

pytestmark = pytest.mark.two_hosts

PLAYBOOK = Path(__file__).parent / "hosts.yaml"
BAD = f"{GOOD}+errors"
# Less than on the lab: the hosts' systemd, sshd and the tool's connections are on the same cores.
RATES = Rates(sends=0.8, reads=8.0, initial_syncs=0.5, main=12.0)
REQUESTS_MIN = 300
# On b.
RESTARTED = "client2"


class TwoHosts(Site):
    """A site whose tool runs on one of the hosts."""

    def __init__(self, there: Cluster, lab: Lab, place: Path) -> None:
        super().__init__(lab, place, playbook=PLAYBOOK, journal=lab.target / "journal.db", where=there.tool(), rates=RATES)
        self.there = there

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return what `rollout status` says of each worker."""
        seen: dict[str, dict[str, Any]] = self.tool.ask("status")["workers"]
        return seen

    def assert_whole(self) -> None:
        """Everybody runs and takes full traffic, and no mark of ours is left."""
        wait_until(lambda: all(one["up"] for one in self.workers().values() if one["pool"]), 30.0, "the proxy has seen everybody up")
        for worker, one in self.workers().items():
            assert (one["running"], one["healthy"], one["drained_by_us"], one["drained_by_others"]) == (True, True, False, False), worker
            assert not one["pool"] or (one["admitted"], one["weight"], one["held"]) == (True, 100, False), worker

    def restarts(self) -> dict[str, str]:
        """Return systemd's word on who runs: the main process of each worker's unit."""
        return {worker: self.there.main_pid(worker) for worker in WORKERS}


@pytest.fixture(scope="module", params=[HAPROXY, NGINX], ids=lambda front: front.name)
def hosts(request: pytest.FixtureRequest) -> Iterator[tuple[Cluster, Lab]]:
    front: Front = request.param
    with cluster_on_hosts(ROOT / "build/hosts" / front.name, front, VERSIONS[0], VENVS) as (there, lab):
        # Now, while nobody uses it.
        for version in (VERSIONS[1], BAD):
            cluster.install(lab, version)
        yield there, lab


@pytest.fixture
def two(hosts: tuple[Cluster, Lab], tmp_path: Path) -> TwoHosts:
    return TwoHosts(*hosts, tmp_path)


def requests_answered(lab: Lab) -> dict[str, float]:
    """Return how many requests each worker says that it has answered."""
    with requests.Session() as session:
        session.trust_env = False
        pages = {worker: session.get(lab.metrics_url(worker), timeout=10).text for worker in WORKERS}
    counted = re.compile(r"^synapse_http_server_requests_received_total\{.*\} (\S+)$", re.MULTILINE)
    return {worker: sum(map(float, counted.findall(page))) for worker, page in pages.items()}


def test_the_cluster_works_over_both_hosts(two: TwoHosts) -> None:
    """
    Every worker is found over SSH, and has its share; what is sent at one host arrives at the other, and at the peer.

    And the load sees what is cut, or a count of nought would say nothing.
    """
    before = requests_answered(two.lab)
    with two.load() as records:
        two.there.restart(RESTARTED)
        wait_until(lambda: two.workers()[RESTARTED]["healthy"], 60.0, f"{RESTARTED} answers again")
    after = requests_answered(two.lab)
    assert {two.there.host_of(worker) for worker in WORKERS} == {"a", "b"}
    assert all(after[worker] > before[worker] for worker in WORKERS if worker not in {RESTARTED, "fedsender1"}), after
    assert len(cut(records)) >= 3
    two.assert_whole()


def test_what_the_example_says_can_be_typed(two: TwoHosts) -> None:
    """On the host that `rollout` is on, where the example has its files."""
    typed = commands(two.there.front.example / "README.md")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = [*two.there.tool(), f"PATH={path}", "bash", "-ec", "\n".join(typed)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lab.localhost has 7 workers" in done.stdout
    assert len(re.findall(r"^\S+ .* well ", done.stdout, re.MULTILINE)) == len(WORKERS)


def test_it_is_rolled_to_a_new_release(two: TwoHosts) -> None:
    before, pids = observe(two.lab), two.restarts()
    with two.load() as records:
        said = two.run("deploy", "--to", VERSIONS[1], "--yes")
    assert said.code == 0, said.text
    assert {seen.version for seen in before.values()} == {VERSIONS[0]}
    assert {worker: seen.version for worker, seen in observe(two.lab).items()} == dict.fromkeys(WORKERS, VERSIONS[1])
    # Each by its own unit, once.
    assert all(pid != pids[worker] for worker, pid in two.restarts().items())
    assert {worker: its["attempts"] for worker, its in two.last()["workers"].items()} == dict.fromkeys(WORKERS, 1)
    two.assert_whole()
    assert cut(records) == []
    assert_main_was_held(records)


def test_a_bad_release_is_rolled_back(two: TwoHosts) -> None:
    before, pids = observe(two.lab), two.restarts()
    with two.load() as records:
        said = two.run("deploy", "--to", BAD, "--yes")
    assert said.code == 3, said.text
    account = two.last()
    assert account["outcome"] == "rolled_back"
    # It met the canary alone, which is back on what it ran before.
    assert len(account["touched"]) == 1
    assert {worker: seen.version for worker, seen in observe(two.lab).items()} == {worker: seen.version for worker, seen in before.items()}
    assert {worker for worker, pid in two.restarts().items() if pid != pids[worker]} == set(account["touched"])
    two.assert_whole()
    # What the release itself answered, where it was let in, is no cut.
    assert [record for record in cut(records) if record.outcome != "release_error"] == []
    assert any(record.outcome == "release_error" for record in records)
    assert [record for record in records if record.pool == "main" and record.outcome == "cut"] == []


def assert_main_was_held(records: list[Record]) -> None:
    """What comes for main while it restarts waits in the proxy, and is answered."""
    main = [record for record in records if record.pool == "main"]
    assert len(main) > REQUESTS_MIN
    assert [record for record in main if record.outcome not in {"ok", "ended"}] == []
