"""`rollout check`, where metrics come from a real Prometheus: whether gates would find them too old between two scrapes."""

import json
from collections.abc import Iterator

import pytest

from tests.contracts.prometheus import Running, Target, prometheus
from tests.contracts.server import Says, serving
from tests.interfaces.homeserver import PLAYBOOK, Homeserver

GATE = PLAYBOOK["gates"][0]  # type: ignore[index]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that scrapes both workers every second."""
    with prometheus(tmp_path_factory.mktemp("prometheus"), {"client1": Target(), "client2": Target()}) as found:
        yield found


def _scraped(site: Homeserver, url: str, addresses: dict[str, str]) -> None:
    inventory = json.loads(site.inventory.read_text())
    for worker, address in addresses.items():
        inventory["workers"][worker]["metrics"] = f"http://{address}/_synapse/metrics"
    site.inventory.write_text(json.dumps(inventory | {"metrics_driver": {"driver": "prometheus", "url": url}}))


def _addresses(running: Running) -> dict[str, str]:
    return {name: target.address for name, target in running.targets.items()}


@pytest.mark.parametrize(("fresh_s", "told"), [(1.9, True), (2.0, False)])
def test_a_gate_that_waits_for_less_than_two_scrapes_is_told(site: Homeserver, running: Running, fresh_s: float, *, told: bool) -> None:
    _scraped(site, running.url, _addresses(running))
    site.playbook.write_text(json.dumps(PLAYBOOK | {"gates": [GATE | {"fresh_s": fresh_s}]}))
    done = site.run("check")
    sentence = "gate errors: client1 is scraped every 1 s, and its fresh_s of 1.9 s is shorter than two of these"
    assert done.exit_code == 0, done.output
    assert (sentence in done.output) is told
    assert ("try fresh_s: 3" in done.output) is told
    assert "isn't known" not in done.output


def test_a_worker_that_is_not_scraped_is_told(site: Homeserver, running: Running) -> None:
    _scraped(site, running.url, {"client1": running.targets["client1"].address, "client2": "127.0.0.1:9"})
    done = site.run("check")
    assert "whether fresh_s of the gates is long enough for client2 isn't known: Prometheus has no target for it" in done.output


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Says(b"not found\n", status=404), "it was answered 404"),
        (Says(json.dumps({"status": "success", "data": {"activeTargets": [{"labels": {}}]}}).encode()), "can't be used"),
        (Says(b"<html>"), "it is a page of HTML"),
    ],
)
def test_one_that_does_not_say_is_no_reason_to_refuse(site: Homeserver, answer: Says, why: str) -> None:
    """What stands before several Prometheus servers has no targets of its own."""
    with serving(answer) as server:
        _scraped(site, f"http://127.0.0.1:{server.server_port}", {})
        done = site.run("check")
    assert done.exit_code == 0, done.output
    assert "whether fresh_s of the gates is long enough for client1, client2 isn't known: " in done.output
    assert why in done.output


def test_metrics_that_rollout_reads_itself_are_asked_nothing(site: Homeserver) -> None:
    assert "fresh_s" not in site.run("check").output
