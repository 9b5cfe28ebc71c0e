"""What is run on hosts, word for word; what systemd says, read; what the inventory may say."""

from typing import Any

import pytest

from rollout.adapters.clocks import check_clock, clock_skew_s
from rollout.adapters.remote_commands import Said
from rollout.adapters.workers.systemd_ssh.settings import read_settings
from rollout.agent import systemctl as commands
from rollout.agent.units import time_of, units_in
from rollout.interfaces.sudoers_text import sudoers_text
from rollout.model.errors import InvalidFileError, PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.ports.privileges import Privileges
from tests.hosts.units import driver, inventory

MAIN, SYNC1, SYNC2 = (WorkerId(name) for name in ("main", "sync1", "sync2"))
PLACES = {MAIN: "a", SYNC1: "a", SYNC2: "b"}
HOSTS: dict[str, dict[str, object]] = {
    "a": {"address": "10.0.0.1", "user": "deploy"},
    "b": {"address": "b.example.org", "user": "deploy", "port": 2222, "jump": "a"},
}
SETTINGS: dict[str, Any] = {"hosts": HOSTS, "units": {"main": "matrix-synapse.service"}}

RUNNING = """\
MainPID=41
NRestarts=0
ExecMainStartTimestamp=Sun 2026-11-29 10:51:13.774221 UTC
ExecMainStatus=0
ExecMainCode=0
ControlPID=0
Result=success
Id=matrix-synapse.service
RequiredBy=
BoundBy=matrix-synapse-worker@sync1.service
ConsistsOf=a.target b.service
LoadState=loaded
ActiveState=active
SubState=running
InvocationID=f00
"""
FAILED = """\
MainPID=0
NRestarts=5
ExecMainStartTimestamp=Sun 2026-11-29 10:51:13.774221 UTC
ExecMainStatus=9
ExecMainCode=2
ControlPID=0
Result=signal
Id=b.service
LoadState=loaded
ActiveState=failed
SubState=failed
"""


def test_what_is_run_word_for_word() -> None:
    unit = "matrix-synapse-worker@sync1.service"
    assert commands.acts_as_root(unit) == (
        ("/usr/bin/systemctl", "stop", unit),
        ("/usr/bin/systemctl", "start", "--no-block", unit),
        ("/usr/bin/systemctl", "reset-failed", unit),
    )
    head, properties, *units = commands.show([unit, "main.service"])[3:]
    assert (head, properties.split("=")[0], units) == ("--timestamp=us+utc", "--property", [unit, "main.service"])
    assert commands.last_lines(unit, 12) == ("journalctl", "--no-pager", "--quiet", "--output=cat", "--lines=12", f"_SYSTEMD_UNIT={unit}")
    assert (commands.clock(), commands.groups(), commands.settle()) == (("date", "+%s.%N"), ("id", "-Gn"), ("sleep", "0.2"))


def test_units_are_read_in_their_order() -> None:
    """With what somebody said on stderr in between."""
    running, failed = units_in(f"Warning: the unit file has changed on disk\n{RUNNING}\n{FAILED}")
    assert (running.name, running.running, running.gone, running.started_at_s) == ("matrix-synapse.service", True, False, 1795949473.774221)
    assert running.ties == (
        ("matrix-synapse-worker@sync1.service", "BindsTo="),
        ("a.target", "PartOf="),
        ("b.service", "PartOf="),
    )
    assert (failed.name, failed.running, failed.gone, failed.started_at_s) == ("b.service", False, True, None)
    assert failed.fate == "it was killed by signal 9, systemd: signal, NRestarts=5"
    # Whether it has a process is not said: that is no answer, and no "it doesn't run".
    assert units_in("Id=a.service\nLoadState=loaded\nActiveState=inactive\n") == []
    assert [unit.name for unit in units_in("Id=a.target\nLoadState=loaded\n")] == ["a.target"]
    assert units_in("") == units_in("Failed to connect to bus: No such file or directory\n") == []


@pytest.mark.parametrize("stamp", ["", "n/a", "Sun 2026-11-29 10:51:13 UTC", "@1795949473"])
def test_a_time_that_is_not_exact_is_none(stamp: str) -> None:
    """In whole seconds it couldn't be told whether a process is older than its link."""
    assert time_of(stamp) is None


@pytest.mark.parametrize(
    ("there", "skew_s"),
    [("100.5\n", 0.0), ("100", 0.0), ("101", 0.0), ("98.5", -1.5), ("103", 2.0), ("", None), ("date: invalid", None)],
)
def test_a_slow_network_is_no_wrong_clock(there: str, skew_s: float | None) -> None:
    """It was read at some time between 100 and 101."""
    assert clock_skew_s(100.0, there, 101.0) == skew_s


def test_a_wrong_clock_is_said_with_its_direction() -> None:
    check_clock("host a", 100.0, Said(0, "101.9\n"), 101.0)
    with pytest.raises(PermanentDriverError, match=r"host a: the host's clock is 2\.0 s ahead of this machine's"):
        check_clock("host a", 100.0, Said(0, "103\n"), 101.0)
    with pytest.raises(PermanentDriverError, match=r"1\.5 s behind this machine's"):
        check_clock("host a", 100.0, Said(0, "98.5\n"), 101.0)
    with pytest.raises(TransientDriverError, match="clock can't be read"):
        check_clock("host a", 100.0, Said(127, "date: not found\n"), 101.0)


def test_workers_have_their_units_and_hosts() -> None:
    settings, places = read_settings(SETTINGS, inventory(PLACES))
    assert places == {
        MAIN: ("a", "matrix-synapse.service"),
        SYNC1: ("a", "matrix-synapse-worker@sync1.service"),
        SYNC2: ("b", "matrix-synapse-worker@sync2.service"),
    }
    assert settings.hosts["b"].spelled() == "deploy@b.example.org:2222"


@pytest.mark.parametrize(
    ("changed", "what", "remedy"),
    [
        ({"hosts": {"a": HOSTS["a"]}}, "worker sync2 is on host 'b', which is not among the hosts", "its host: one of a"),
        ({"hosts": {**HOSTS, "b": {**HOSTS["b"], "jump": "c"}}}, "there is no host 'c' to jump from", "a, b"),
        ({"hosts": {**HOSTS, "a": {**HOSTS["a"], "jump": "b"}}}, "host a is reached through itself", "a host that is reached directly"),
        ({"units": {"mian": "matrix-synapse.service"}}, "there is no worker 'mian'", "the id of a worker"),
        (
            {"unit": "matrix-synapse.service", "units": {}},
            "main and sync1 are one unit, matrix-synapse.service",
            "{worker} in unit, or each one's own name in units",
        ),
    ],
)
def test_what_the_inventory_may_not_say(changed: dict[str, object], what: str, remedy: str) -> None:
    with pytest.raises(InvalidFileError) as refused:
        driver({**SETTINGS, **changed}, PLACES)
    assert (refused.value.what, refused.value.remedy) == (what, remedy)


@pytest.mark.parametrize(
    "unit", ["matrix-synapse", "-H evil.service", "a b.service", "a*.service", "a.service\n", "../a.service", "a\\x2d.service"]
)
def test_what_is_no_unit(unit: str) -> None:
    """Neither written out nor made of a worker's id."""
    for settings in ({**SETTINGS, "units": {"main": unit}}, {"hosts": HOSTS, "unit": unit.replace("a", "{worker}")}):
        with pytest.raises(InvalidFileError, match="a unit can't be called") as refused:
            driver(settings, {MAIN: "a"})
        assert refused.value.remedy == "letters, digits and : _ . @ -, and .service at the end"


@pytest.mark.parametrize("key", ["address", "user"])
@pytest.mark.parametrize("value", ["", "-oProxyCommand=x", "a b", "a@b", "a\nb", "a,b"])
def test_what_is_no_address_and_no_user(key: str, value: str) -> None:
    with pytest.raises(InvalidFileError, match=f"{key} can't be"):
        driver({"hosts": {"a": {**HOSTS["a"], key: value}}}, {MAIN: "a"})


def test_rules_for_sudo_word_for_word() -> None:
    """One file a host; what has a meaning in sudoers is quoted."""
    workers = driver(SETTINGS, {MAIN: "a", SYNC2: "b"})
    assert sudoers_text(workers.privileges()) == (
        """\
# On host a (deploy@10.0.0.1), as /etc/sudoers.d/rollout: exactly these commands, and no other argument.
# Check it with `visudo -cf FILE`, then `install -m 440 FILE /etc/sudoers.d/rollout`.
deploy ALL=(root) NOPASSWD: /usr/bin/systemctl stop matrix-synapse.service
deploy ALL=(root) NOPASSWD: /usr/bin/systemctl start --no-block matrix-synapse.service
deploy ALL=(root) NOPASSWD: /usr/bin/systemctl reset-failed matrix-synapse.service

# On host b (deploy@b.example.org:2222), as /etc/sudoers.d/rollout: exactly these commands, and no other argument.
# Check it with `visudo -cf FILE`, then `install -m 440 FILE /etc/sudoers.d/rollout`.
deploy ALL=(root) NOPASSWD: /usr/bin/systemctl stop matrix-synapse-worker@sync2.service
deploy ALL=(root) NOPASSWD: /usr/bin/systemctl start --no-block matrix-synapse-worker@sync2.service
deploy ALL=(root) NOPASSWD: /usr/bin/systemctl reset-failed matrix-synapse-worker@sync2.service
"""
    )
    assert sudoers_text([Privileges("a", "deploy@a", "deploy", (("/bin/x", "a=b,c:d"),))]).endswith("/bin/x a\\=b\\,c\\:d\n")
    assert "root needs no rule" in sudoers_text([Privileges("a", "root@a", "root", (("/bin/x",),))])
    with pytest.raises(ValueError, match="pattern"):
        sudoers_text([Privileges("a", "deploy@a", "deploy", (("/bin/x", "a*"),))])
