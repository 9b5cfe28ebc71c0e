"""What `rollout init` makes of the lab's own files, against the inventory that the lab writes for itself, field by field."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from rollout.interfaces.cli import cli
from rollout.lab import templates
from rollout.lab.paths import WORKERS, Lab, Ports
from rollout.lab.programs import Programs

# What no file says; all of it is marked.
NOT_IN_FILES = {
    ("releases_driver", "locks"): "rollout's own",
    ("database_driver", "dsn"): "a secret of rollout's own",
    ("ledger_driver", "path"): "rollout's own",
    ("probe_driver", "as_token"): "a secret; that an application service is meant for this, nothing says",
    ("probe_driver", "user"): "as above",
    ("warming_driver", "driver"): "as above",
    ("warming_driver", "as_token"): "as above",
}
# What only supervisord's file says.
SUPERVISORDS = {("workers_driver", "socket"), ("releases_driver", "target"), ("traffic_driver", "master_socket")}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab that was written and never started."""
    (tmp_path / "etc").mkdir()
    http = {worker: 29000 + index for index, worker in enumerate(WORKERS)}
    metrics = {worker: 29100 + index for index, worker in enumerate(WORKERS)}
    written = Lab(tmp_path, Ports(proxy=28008, postgres=28001, valkey=28002, replication=28003, receiver=28004, http=http, metrics=metrics))
    templates.write_secrets(written)
    templates.write_configuration(written, tmp_path / "etc/config")
    (tmp_path / "haproxy.cfg").write_text(templates.haproxy(written))
    programs = Programs(tmp_path / "bin", tmp_path / "bin/valkey-server", tmp_path / "bin/haproxy")
    (tmp_path / "supervisord.conf").write_text(templates.supervisord(written, programs))
    return written


def derived(lab: Lab, *others: str) -> tuple[dict[str, Any], str]:
    """The inventory, and what was said about it."""
    arguments = ["init", str(lab.target / "etc/config/homeserver.yaml"), "--haproxy", str(lab.target / "haproxy.cfg"), *others]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return yaml.safe_load(done.stdout), done.stderr


def fields(inventory: dict[str, Any]) -> dict[tuple[str, ...], object]:
    """Every setting by where it stands."""
    found: dict[tuple[str, ...], object] = {}
    for section, content in inventory.items():
        if not isinstance(content, dict):
            found[section,] = content
            continue
        for key, value in content.items():
            found |= {(section, key, inner): one for inner, one in value.items()} if isinstance(value, dict) else {(section, key): value}
    return found


def test_it_agrees_with_the_lab_in_everything_that_files_say(lab: Lab) -> None:
    said = fields(yaml.safe_load(templates.inventory(lab)))
    without = fields(derived(lab)[0])
    assert {key for key in {*said, *without} if said.get(key) != without.get(key)} == {*NOT_IN_FILES, *SUPERVISORDS}
    ours = fields(derived(lab, "--supervisord", str(lab.target / "supervisord.conf"))[0])
    assert {key for key in {*said, *ours} if said.get(key) != ours.get(key)} == {*NOT_IN_FILES}


def test_nothing_of_the_lab_contradicts_itself(lab: Lab) -> None:
    assert "contradicts" not in derived(lab)[1]


def test_the_secrets_of_the_lab_stay_where_they_are(lab: Lab) -> None:
    kept = [
        templates.secret(lab, name) for name in ("registration_shared_secret", "macaroon_secret", "worker_secret", "as_token", "hs_token")
    ]
    inventory, said = derived(lab)
    assert all(one not in said and one not in str(inventory) for one in kept)


def test_a_change_of_the_lab_is_seen(lab: Lab) -> None:
    """So that the comparison above could fail: another writer, another route, another port."""
    homeserver = lab.target / "etc/config/homeserver.yaml"
    homeserver.write_text(homeserver.read_text().replace("events:\n  - event_persister1", "typing:\n  - event_persister1"))
    proxy = lab.target / "haproxy.cfg"
    proxy.write_text(proxy.read_text().replace(f"sync2 127.0.0.1:{lab.ports.http['sync2']}", "sync2 127.0.0.1:1"))
    inventory, said = derived(lab)
    assert inventory["workers"]["event_persister1"]["role"] == "typing"
    assert "pool" not in inventory["workers"]["sync2"]
    assert '"sync2" (127.0.0.1:1) in backend sync points to nobody' in said
