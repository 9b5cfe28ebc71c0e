"""
The files of examples/systemd-haproxy and systemd-nginx are accepted by whom they are for, and agree with one another.

That a cluster runs by them, and is rolled, is tests/end_to_end/test_hosts.py.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from rollout.adapters.documents.read import read_inventory, read_playbook
from rollout.interfaces.cli import cli
from rollout.lab.programs import haproxy_binary
from tests.contracts import artefacts
from tests.hosts.bed import Bed, hosts

ROOT = Path(__file__).parents[2]
HAPROXY = ROOT / "examples/systemd-haproxy"
NGINX = ROOT / "examples/systemd-nginx"
EXAMPLES = (HAPROXY, NGINX)
ADDRESS = "10.0.0.1"
PYTHON = "/srv/synapse/current/{worker}/venv/bin/python"
INSTALL_TIMEOUT_S = 120

each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """One host, with what the examples' hosts have before their files come: users, an address, a release."""
    with hosts(tmp_path_factory.mktemp("beds"), "a", shared={haproxy_binary().parent: "/opt/haproxy"}) as bed:
        bed.run("a", "sh", "-c", f"ip addr add {ADDRESS}/32 dev lo && mkdir -p /var/log/nginx")
        for user in ("synapse", "haproxy", "www-data"):
            bed.run("a", "sh", "-c", f"id {user} >/dev/null 2>&1 || useradd --system {user}")
        for worker in ("main", "sync1"):
            bed.write("a", PYTHON.format(worker=worker), "#!/bin/sh\n", "755")
        bed.write("a", "/etc/haproxy/hold.lua", (ROOT / "rollout/adapters/traffic/hold.lua").read_text())
        bed.write("a", "/etc/nginx/rollout/upstreams.conf", (NGINX / "upstreams.conf").read_text())
        yield bed


def accepted(bed: Bed, path: str, text: str, *command: str) -> str:
    """Write a file onto the host, have it checked, and return what was said; nothing is said of what is right."""
    bed.write("a", path, text)
    return bed.run("a", "sh", "-c", f"{' '.join(command)} 2>&1 || echo REFUSED")


@each_example
def test_check_accepts_the_inventory_and_its_playbook(example: Path, tmp_path: Path) -> None:
    """With the secrets that it refers to."""
    for secret in ("as_token", "database.dsn"):
        (tmp_path / secret).write_text("secret")
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text((example / "inventory.yaml").read_text().replace("file:/etc/rollout/", f"file:{tmp_path}/"))
    done = CliRunner().invoke(cli, ["check", "-i", str(inventory), "-p", str(ROOT / "playbooks" / f"{example.name}.yaml")])
    assert done.exit_code == 0, done.output
    assert "example.org has 7 workers, 3 pools at the proxy" in done.output


@each_example
def test_the_rules_are_what_sudoers_prints(example: Path) -> None:
    for host in ("a", "b"):
        printed = CliRunner().invoke(cli, ["sudoers", "-i", str(example / "inventory.yaml"), "--host", host])
        assert printed.exit_code == 0, printed.output
        rules = HAPROXY / f"sudoers-{host}"
        assert rules.read_text() == printed.stdout


@pytest.mark.parametrize("host", ["a", "b"])
def test_visudo_accepts_the_rules(bed: Bed, host: str) -> None:
    text = (HAPROXY / f"sudoers-{host}").read_text()
    assert "parsed OK" in accepted(bed, "/etc/rules", text, "visudo", "-cf", "/etc/rules")
    assert "REFUSED" in accepted(bed, "/etc/rules", text.replace("NOPASSWD:", "NOPASSWD"), "visudo", "-cf", "/etc/rules")


@pytest.mark.parametrize(
    ("file", "unit"),
    [("matrix-synapse.service", "matrix-synapse.service"), ("matrix-synapse-worker@.service", "matrix-synapse-worker@sync1.service")],
)
def test_systemd_accepts_the_units(bed: Bed, file: str, unit: str) -> None:
    text = (HAPROXY / file).read_text()
    path = f"/etc/systemd/system/{file}"
    assert accepted(bed, path, text, "systemd-analyze", "verify", "--man=no", unit) == ""
    assert "Unknown key" in accepted(bed, path, text.replace("RestartSec", "RestartSecs"), "systemd-analyze", "verify", "--man=no", unit)
    bed.write("a", path, text)
    # No other unit is stopped with it, whatever it is called.
    assert not re.search(r"^(Requires|Requisite|BindsTo|PartOf|StopPropagatedFrom)=", text, re.MULTILINE)


def test_haproxy_accepts_its_file(bed: Bed) -> None:
    text, path = (HAPROXY / "haproxy.cfg").read_text(), "/etc/haproxy/haproxy.cfg"
    check = ("/opt/haproxy/haproxy", "-c", "-f", path)
    assert accepted(bed, path, text, *check) == "Configuration file is valid\n"
    assert "REFUSED" in accepted(bed, path, text.replace("default_backend main", "default_backend mian"), *check)


def test_nginx_accepts_its_files(bed: Bed) -> None:
    text, path = (NGINX / "nginx.conf").read_text(), "/etc/nginx/nginx.conf"
    said = accepted(bed, path, text, "/usr/sbin/nginx", "-t")
    assert "REFUSED" not in said, said
    assert "warn" not in said
    assert "REFUSED" in accepted(bed, path, text.replace("http://main", "http://mian"), "/usr/sbin/nginx", "-t")


def test_all_files_of_an_example_mean_the_same_homeserver() -> None:
    """Workers have one address in the inventory and at either proxy, and both proxies send the same requests to the same pools."""
    inventories = [read_inventory(example / "inventory.yaml") for example in EXAMPLES]
    assert inventories[0].workers == inventories[1].workers
    workers = inventories[0].workers
    proxied = {worker: entry.url.removeprefix("http://") for worker, entry in workers.items() if entry.pool}
    proxy, upstreams = (HAPROXY / "haproxy.cfg").read_text(), (NGINX / "upstreams.conf").read_text()
    assert dict(re.findall(r"^    server (\S+) (\S+)$", proxy, re.MULTILINE)) == proxied
    assert {worker: address for address, worker in re.findall(r"^    server (\S+) .*; # (\S+)$", upstreams, re.MULTILINE)} == proxied

    to_haproxy = {(path, pool) for pool, path in re.findall(r"^    acl (\S+) path(?:_reg)? (\S+)$", proxy, re.MULTILINE)}
    to_nginx = {
        (path, pool)
        for path, pool in re.findall(r"location (?:~|=) (\S+) \{ proxy_pass http://(\S+); \}", (NGINX / "nginx.conf").read_text())
    }
    assert len(to_haproxy) > 5
    assert to_nginx == to_haproxy


@each_example
def test_every_file_is_told_of(example: Path) -> None:
    readme = (example / "README.md").read_text()
    assert [path.name for path in example.iterdir() if path.name != "README.md" and f"]({path.name})" not in readme] == []
    assert f"playbooks/{example.name}.yaml)" in readme


def test_the_playbooks_are_for_their_inventories() -> None:
    """And both say that main's requests are held."""
    for example in (HAPROXY, NGINX):
        inventory = read_inventory(example / "inventory.yaml")
        path = ROOT / "playbooks" / f"{example.name}.yaml"
        read_playbook(path, inventory)
        assert [pool.hold for name, pool in inventory.pools.items() if name == "main"] == [True]
        assert "hold" in yaml.safe_load(path.read_text())["strategy"]


def test_the_first_release_is_what_every_worker_will_run(tmp_path: Path) -> None:
    """Workers that have one already are left alone."""
    target = tmp_path / "synapse"
    artefacts.write_locks(target / "locks")
    inventory = yaml.safe_load((HAPROXY / "inventory.yaml").read_text())
    inventory["releases_driver"] |= {"target": str(target), "locks": str(target / "locks")}
    (tmp_path / "inventory.yaml").write_text(yaml.safe_dump(inventory))
    configuration = artefacts.write_configuration(tmp_path / "configuration", sync1={})
    shutil.copy(HAPROXY / "first_release.py", tmp_path)

    def put(version: str) -> str:
        command = [sys.executable, str(tmp_path / "first_release.py"), str(tmp_path / "inventory.yaml"), version, str(configuration)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=INSTALL_TIMEOUT_S).stdout

    first, *others = artefacts.VERSIONS
    assert len(put(first).splitlines()) == 7
    runs = {link.name: link.resolve() for link in (target / "current").iterdir()}
    assert set(runs) == set(inventory["workers"])
    assert (runs["sync1"] / "config/workers/sync1.yaml").is_file()
    assert put(others[0]) == ""
    assert {link.name: link.resolve() for link in (target / "current").iterdir()} == runs
