"""`rollout sudoers`: the rules that it prints, tried by sudo itself on a real host."""

import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import run

import pytest
import yaml
from click.testing import CliRunner, Result

from rollout.interfaces.cli import cli
from tests.hosts.bed import USER, Bed, hosts
from tests.hosts.units import settings_for

LAB = Path(__file__).parents[2] / "examples/lab/inventory.yaml"
UNIT = "worker@sync1.service"
ALLOWED = (f"stop {UNIT}", f"start --no-block {UNIT}", f"reset-failed {UNIT}", "stop matrix-synapse.service")
# What is near to it: another unit, a second one, another order, another option, and whatever else root may do.
FORBIDDEN = (
    "stop ssh.service",
    "stop worker@sync3.service",
    f"stop {UNIT} ssh.service",
    f"stop ssh.service {UNIT}",
    f"stop {UNIT}.wants",
    "stop worker@*.service",
    "stop",
    f"start {UNIT}",
    f"start --no-block {UNIT} ssh.service",
    f"restart {UNIT}",
    f"kill {UNIT}",
    f"edit {UNIT}",
    f"--root=/tmp stop {UNIT}",
    f"-H elsewhere stop {UNIT}",
    "daemon-reload",
    "poweroff",
)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with hosts(tmp_path_factory.mktemp("beds"), "a") as bed:
        yield bed


def _said(
    tmp_path: Path,
    driver: dict[str, object] | None,
    *options: str,
    traffic: dict[str, object] | None = None,
    ledger: dict[str, object] | None = None,
) -> Result:
    inventory = yaml.safe_load(LAB.read_text())
    inventory["traffic_driver"] = traffic or inventory["traffic_driver"]
    if ledger is not None:
        inventory["ledger_driver"] = {"driver": "ssh", **ledger}
    if driver is not None:
        inventory["workers_driver"] = {"driver": "systemd_ssh", **driver}
        inventory["workers"] = {name: {**entry, "host": "b" if name == "client2" else "a"} for name, entry in inventory["workers"].items()}
    path = tmp_path / "inventory.yaml"
    path.write_text(yaml.safe_dump(inventory))
    return CliRunner().invoke(cli, ["sudoers", "-i", str(path), *options])


def _hosts() -> dict[str, object]:
    return {"hosts": {name: {"address": f"{name}.example.org", "user": USER} for name in ("a", "b")}}


def test_sudo_allows_exactly_what_is_printed(bed: Bed, tmp_path: Path) -> None:
    """Found correct by visudo; and asked by sudo's own `-l`, which does nothing."""
    units = {"units": {"main": "matrix-synapse.service"}, "unit": "worker@{worker}.service"}
    settings = {**settings_for(bed), **units}
    both = settings["hosts"]
    assert isinstance(both, dict)
    both["b"] = dict(both["a"])
    said = _said(tmp_path, settings, "--host", "a")
    assert said.exit_code == 0, said.output
    bed.write("a", "/etc/sudoers.d/rollout", said.stdout, "440")
    assert "parsed OK" in bed.run("a", "visudo", "-c")
    allowed = [command for command in (*ALLOWED, *FORBIDDEN) if _may(bed, command)]
    assert allowed == list(ALLOWED)
    for other in ("/bin/sh", "/usr/bin/journalctl", "/usr/bin/systemctl"):
        assert not bed.allows("a", "sudo", "-n", "-l", "--", other)


def test_sudo_allows_the_dead_man_s_timer_and_no_other(bed: Bed, tmp_path: Path) -> None:
    """systemd-run under sudo could do anything: it may start this one timer, of this one program, which runs as who asked for it."""
    ledger: dict[str, object] = {"host": "a", "path": "/var/lib/rollout/ledger.json", "page": "file:/etc/rollout/page"}
    settings = settings_for(bed)
    both = settings["hosts"]
    assert isinstance(both, dict)
    both["b"] = dict(both["a"])
    said = _said(tmp_path, settings, "--host", "a", ledger=ledger)
    assert said.exit_code == 0, said.output
    assert said.stdout.count("# On host ") == 1
    bed.write("a", "/etc/sudoers.d/rollout", said.stdout, "440")
    assert "parsed OK" in bed.run("a", "visudo", "-c")
    (rule,) = [line for line in said.stdout.splitlines() if "systemd-run" in line]
    exactly = rule.partition("NOPASSWD: ")[2].replace("\\", "").split()
    assert f"--uid={USER}" in exactly

    def may(*argv: str) -> bool:
        return bed.allows("a", "sudo", "-n", "-l", "--", *argv)

    assert may(*exactly)
    assert may("/usr/bin/systemctl", "stop", "rollout-deadman-lab.localhost.timer")
    near = [
        [word.replace(f"--uid={USER}", "--uid=root") for word in exactly],
        [word for word in exactly if word != f"--uid={USER}"],
        [*exactly, "more"],
        exactly[:-1],
        [exactly[0], "--property=User=root", *exactly[1:]],
        [exactly[0], "/bin/sh"],
        ["/usr/bin/systemctl", "stop", "rollout-deadman-example.net.timer"],
    ]
    assert [argv for argv in near if may(*argv)] == []


def _may(bed: Bed, command: str) -> bool:
    return bed.allows("a", "sudo", "-n", "-l", "--", "/usr/bin/systemctl", *command.split())


def test_one_host_or_all(tmp_path: Path) -> None:
    """The others' workers are none of its business."""
    every = _said(tmp_path, _hosts()).stdout
    only = _said(tmp_path, _hosts(), "--host", "b").stdout
    assert every.count("# On host ") == 2
    assert only.splitlines()[2:] == [
        f"{USER} ALL=(root) NOPASSWD: /usr/bin/systemctl {what} matrix-synapse-worker@client2.service"
        for what in ("stop", "start --no-block", "reset-failed")
    ]


def test_nginx_on_a_host_may_be_tested_and_reloaded_and_no_more(bed: Bed, tmp_path: Path) -> None:
    """In the file of the host that it shares with workers; their hosts need not be written down twice."""
    nginx: dict[str, object] = {"driver": "nginx", "include": "/etc/nginx/rollout/upstreams.conf", "proxies": ["b"]}
    said = _said(tmp_path, _hosts(), "--host", "b", traffic=nginx)
    assert said.exit_code == 0, said.output
    rules = [line.partition("NOPASSWD: ")[2] for line in said.stdout.splitlines()[2:]]
    assert rules[3:] == ["/usr/sbin/nginx -T", "/usr/sbin/nginx -s reload"]
    bed.write("a", "/etc/sudoers.d/rollout", said.stdout, "440")
    assert "parsed OK" in bed.run("a", "visudo", "-c")
    tried = ("-T", "-s reload", "-t", "-s stop", "-s quit", "-c /tmp/x", "-T -c /tmp/x", "-g load_module", "")
    assert [command for command in tried if bed.allows("a", "sudo", "-n", "-l", "--", "/usr/sbin/nginx", *command.split())] == [
        "-T",
        "-s reload",
    ]


def _with_commands(tmp_path: Path, activate: list[str]) -> Result:
    """Print the rules of an inventory whose releases are the user's own commands."""
    _said(tmp_path, _hosts())
    path = tmp_path / "inventory.yaml"
    inventory = yaml.safe_load(path.read_text())
    inventory["releases_driver"] = {
        "driver": "command",
        "target": "/var/lib/rollout",
        "version": ["/usr/local/bin/which"],
        "activate": activate,
    }
    path.write_text(yaml.safe_dump(inventory))
    return CliRunner().invoke(cli, ["sudoers", "-i", str(path), "--host", "b"])


def test_the_users_own_commands_have_rules_in_the_same_file(tmp_path: Path) -> None:
    """For the hosts of the workers, which they share."""
    said = _with_commands(tmp_path, ["sudo", "-n", "/usr/local/sbin/synapse-release", "{worker}"])
    assert said.exit_code == 0, said.output
    assert said.stdout.count("# On host ") == 1
    assert said.stdout.splitlines()[-1] == f"{USER} ALL=(root) NOPASSWD: /usr/local/sbin/synapse-release client2"


def test_a_command_for_which_no_exact_rule_can_be_written(tmp_path: Path) -> None:
    said = _with_commands(tmp_path, ["sudo", "-n", "/bin/sh", "-c", "install *"])
    assert (said.exit_code, said.stdout) == (2, "")
    assert "a rule that allows just this can't be written: sudoers would take 'install *' for a pattern" in said.stderr


def test_a_host_that_has_no_worker(tmp_path: Path) -> None:
    said = _said(tmp_path, _hosts(), "--host", "c")
    assert (said.exit_code, said.stdout) == (2, "")
    assert said.stderr.splitlines()[0].endswith("inventory.yaml: rollout does nothing as root on host 'c'")
    assert said.stderr.splitlines()[1] == "    try: a, b"


def test_where_nothing_is_done_as_root(tmp_path: Path) -> None:
    said = _said(tmp_path, None)
    assert (said.exit_code, said.stdout) == (2, "")
    assert "rollout does nothing as root there, so sudo need allow nothing" in said.stderr


def test_a_mistake_in_the_inventory_has_its_line(tmp_path: Path) -> None:
    said = _said(tmp_path, {"hosts": {"a": {"address": "a.example.org", "user": USER}}})
    assert said.exit_code == 2
    assert "worker client2 is on host 'b', which is not among the hosts" in said.stderr
    assert "inventory.yaml:" in said.stderr


def test_fabric_is_not_waited_for(tmp_path: Path) -> None:
    """Nothing is connected to, so nothing that connects is imported."""
    _said(tmp_path, _hosts())
    code = f"""
import sys
from click.testing import CliRunner
from rollout.interfaces.cli import cli
done = CliRunner().invoke(cli, ["sudoers", "-i", {str(tmp_path / "inventory.yaml")!r}])
assert done.exit_code == 0, done.output
print(sorted({{"fabric", "invoke", "paramiko"}} & set(sys.modules)))
"""
    done = run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
