"""What a release may be besides a version: the same again, or another configuration; and what is refused before anybody is touched."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollout.lab.demo import observe
from rollout.model.ids import DeployId, WorkerId
from rollout.ports.lease import Claim
from rollout.ports.traffic import Server
from tests.end_to_end.site import Site, cut

pytestmark = pytest.mark.long

CLIENT1 = WorkerId("client1")


def configuration(site: Site, place: Path, change: Callable[[dict[str, Any]], None], file: str = "homeserver.yaml") -> Path:
    """Copy the configuration that client1 runs with, and change one file of it."""
    shutil.copytree((site.lab.target / "current/client1").resolve() / "config", place)
    path = place / file
    path.chmod(0o644)
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    return place


def test_a_configuration_is_rolled_out_and_back(site: Site, tmp_path: Path) -> None:
    release = site.drivers.releases.activations([CLIENT1])[CLIENT1].release
    new = configuration(site, tmp_path / "new", lambda content: content.update(max_upload_size="7M"))
    with site.load() as records:
        there = site.run("deploy", "--config", str(new), "--only", "role=client", "--until", "canary", "--yes")
        running = (site.lab.target / "current/client1").resolve() / "config/homeserver.yaml"
        back = site.run("rollback", "--yes")

    assert (there.code, back.code) == (0, 0), there.text + back.text
    assert yaml.safe_load(running.read_text())["max_upload_size"] == "7M"
    assert site.drivers.releases.activations([CLIENT1])[CLIENT1].release == release
    site.assert_whole()
    assert cut(records) == []


def test_a_worker_that_never_answers_is_rolled_back_by_itself(site: Site, tmp_path: Path) -> None:
    """Synapse finds nothing wrong with a port that nobody looks at; the worker starts, and is never seen."""
    release = site.drivers.releases.activations([CLIENT1])[CLIENT1].release

    def listen_elsewhere(content: dict[str, Any]) -> None:
        for listener in content["worker_listeners"]:
            listener["port"] = 0

    new = configuration(site, tmp_path / "new", listen_elsewhere, "workers/client1.yaml")
    with site.load() as records:
        said = site.run("deploy", "--config", str(new), "--only", "role=client", "--yes")

    assert said.code == 3, said.text
    assert site.last()["outcome"] == "rolled_back"
    assert site.drivers.releases.activations([CLIENT1])[CLIENT1].release == release
    assert site.last()["workers"]["client2"]["attempts"] == 0
    site.assert_whole()
    assert cut(records) == []


def test_what_synapse_refuses_touches_nobody(site: Site, tmp_path: Path) -> None:
    before = site.started()
    new = configuration(site, tmp_path / "new", lambda content: content.update(listeners=5))
    said = site.run("deploy", "--config", str(new), "--yes")

    assert said.code == 5, said.text
    assert "listeners" in said.text
    assert site.started() == before
    assert all(its["drained_at_s"] is None for its in site.last()["workers"].values())
    site.assert_whole()


def test_a_changed_topology_is_refused_with_the_procedure(site: Site, tmp_path: Path) -> None:
    new = configuration(site, tmp_path / "new", lambda content: content["stream_writers"].update(typing=["client1"]))
    said = site.run("plan", "--config", str(new))

    assert said.code == 5, said.text
    assert "stream_writers.typing" in said.text


def test_one_rollout_at_a_time(site: Site) -> None:
    lease = site.drivers.lease
    token = lease.acquire(Claim("somebody@elsewhere", "a rollout of theirs", DeployId("theirs")), 5.0, above=0, take_over=False).token
    try:
        said = site.run("deploy", "--restart", "--yes")
    finally:
        lease.release(token, 5.0)
    assert said.code == 5, said.text
    assert "somebody@elsewhere" in said.text


def test_what_others_drained_stays_drained(site: Site) -> None:
    server = Server("client", "client2")
    site.drivers.traffic.drain(server, 5.0)
    try:
        with site.load() as records:
            said = site.run("deploy", "--restart", "--only", "role=sync", "--until", "canary", "--yes")
        assert said.code == 0, said.text
        assert "client2" in said.text
        assert not site.proxy()["client2"].admitted
        assert cut(records) == []
    finally:
        site.drivers.traffic.admit(server, 100, 5.0)
    site.assert_whole()


@pytest.mark.parametrize("version", ["1.163.2"])
def test_a_saved_plan_is_rolled_out_unless_it_is_stale(site: Site, version: str) -> None:
    saved = site.place / "plan.json"
    planned = site.run("plan", "--to", version, "--only", "role=federation_sender", "-o", str(saved))
    assert planned.code == 0, planned.text
    done = site.run("deploy", str(saved), "--yes")
    assert done.code == 0, done.text
    assert observe(site.lab)["fedsender1"].version == version

    again = site.run("deploy", str(saved), "--yes")

    assert again.code == 5, again.text
    assert "fedsender1" in again.text
