"""What the inventory may say of a ledger on a host, and what is told to the agent and to sudo, word for word."""

from typing import Any

import pytest

from rollout.adapters.ledger.ssh import SshLedger, build
from rollout.interfaces.sudoers_text import sudoers_text
from rollout.model.errors import InvalidFileError
from rollout.model.ids import WorkerId
from rollout.model.inventory import DriverSettings, Inventory
from tests.hosts.units import inventory

HOSTS = {"a": {"address": "10.0.0.1", "user": "deploy"}, "b": {"address": "10.0.0.2", "user": "deploy", "jump": "door"}}
DOOR = {"door": {"address": "door.example.org", "user": "deploy"}}


def _inventory() -> Inventory:
    """Describe workers on hosts that their own driver names."""
    driver = DriverSettings.model_validate({"driver": "systemd_ssh", "hosts": {**HOSTS, **DOOR}})
    return inventory({WorkerId("sync1"): "b"}).model_copy(update={"workers_driver": driver})


def _built(**settings: Any) -> SshLedger:  # noqa: ANN401  (whatever stands in a file)
    return build({"host": "a", "path": "/var/lib/rollout/ledger.json", **settings}, _inventory())


def test_the_dead_man_s_timer_is_allowed_word_for_word() -> None:
    """Nothing in it is a pattern, and nothing changes with a newer program."""
    begins = r"/usr/bin/systemd-run --quiet --collect --unit\=rollout-deadman-example.org --uid\=deploy"
    times = r"--on-active\=10 --on-unit-inactive\=10 --timer-property\=AccuracySec\=1s --"
    program = "/usr/bin/python3 -I -S /var/lib/rollout/agent/rollout/agent/agent.py"
    told = r"tick /var/lib/rollout/ledger.json 120 example.org rollout-deadman-example.org.timer deploy file\:/etc/rollout/page"
    assert sudoers_text(_built(page="file:/etc/rollout/page").privileges()).splitlines()[2:] == [
        f"deploy ALL=(root) NOPASSWD: {begins} {times} {program} {told}",
        "deploy ALL=(root) NOPASSWD: /usr/bin/systemctl stop rollout-deadman-example.org.timer",
    ]


def test_a_name_that_sudoers_would_misread_is_written_otherwise() -> None:
    homes = _inventory().model_copy(update={"homeserver": "[2001:db8::1]:8448"})
    text = sudoers_text(build({"host": "a", "path": "/srv/ledger.json"}, homes).privileges())
    assert r"--unit\=rollout-deadman-_2001\:db8\:\:1_\:8448 " in text


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"host": "c"}, "there is no host 'c'"),
        ({"path": "ledger.json"}, "path can't be 'ledger.json'"),
        ({"path": "/srv/../ledger.json"}, "path can't be"),
        ({"path": "/srv/my ledger.json"}, "path can't be"),
        ({"python": "python3"}, "path can't be 'python3'"),
        ({"page": "env:PAGE"}, "page is for the dead-man on the host, which knows no environment"),
        ({"page": "https://example.org/hook"}, "page is for the dead-man on the host"),
        ({"hosts": {"x": {"address": "x", "user": "u", "jump": "y"}}}, "there is no host 'y' to jump from"),
        ({"readmit_after_s": 0}, "readmit_after_s"),
    ],
)
def test_what_it_may_not_say(settings: dict[str, object], what: str) -> None:
    with pytest.raises(InvalidFileError, match=what):
        _built(**settings)


def test_its_own_hosts_come_before_others_of_the_same_name() -> None:
    (mine,) = _built(hosts={"a": {"address": "10.9.9.9", "user": "other"}}).privileges()
    assert (mine.reached, mine.user) == ("other@10.9.9.9", "other")
    (theirs,) = _built().privileges()
    assert theirs.reached == "deploy@10.0.0.1"
