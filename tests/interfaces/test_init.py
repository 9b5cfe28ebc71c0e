"""`rollout init` at the command line: where it looks, what it writes, what it refuses, and what it never says."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from rollout.adapters.discovery import synapse_yaml
from rollout.adapters.documents.read import read_document
from rollout.interfaces.cli import cli, init

SECRET = "hunter2-and-more"
HOMESERVER = """\
server_name: example.org
enable_metrics: true
listeners:
  - {type: http, port: 8008, bind_addresses: [127.0.0.1], resources: [{names: [client]}]}
  - {type: metrics, port: 9000}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it."""
    monkeypatch.setattr(init, "ROOT", tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def homeserver(root: Path) -> Path:
    """A homeserver without workers."""
    path = root / "etc/matrix-synapse/homeserver.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(HOMESERVER)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["init", *map(str, arguments)])


def test_where_nothing_is_it_says_where_it_looked(root: Path) -> None:
    done = run()
    assert done.exit_code == 2
    assert "no homeserver.yaml was found" in done.stderr
    assert f"{root}/etc/matrix-synapse/homeserver.yaml, " in done.stderr
    assert "rollout init PATH/homeserver.yaml" in done.stderr


def test_without_a_path_it_looks_on_this_machine(homeserver: Path, root: Path) -> None:
    done = run()
    assert done.exit_code == 0, done.output
    assert f"read in {homeserver.parent}: homeserver.yaml" in done.stderr
    assert f"no unit that starts Synapse was found in {root}/etc/systemd/system, " in done.stderr
    assert f"no configuration of HAProxy or nginx was found in {root}/etc/haproxy/haproxy.cfg, " in done.stderr


def test_with_a_path_nothing_else_of_this_machine_is_read(homeserver: Path, root: Path, tmp_path: Path) -> None:
    (root / "etc/haproxy").mkdir()
    (root / "etc/haproxy/haproxy.cfg").write_text("global\n  stats socket /run/haproxy/admin.sock level admin\n")
    elsewhere = tmp_path / "copy.yaml"
    elsewhere.write_text(homeserver.read_text())
    assert "haproxy.cfg" in run().stderr
    said = run(elsewhere).stderr
    assert "haproxy.cfg" not in said
    assert "no configuration of a proxy was given" in said


def test_a_homeserver_without_workers(homeserver: Path) -> None:
    """One process; all of it is main's."""
    done = run(homeserver)
    assert "  main:\n    role: main" in done.stdout
    assert "    url: http://127.0.0.1:8008\n    metrics: http://127.0.0.1:9000/_synapse/metrics\n" in done.stdout


def test_what_is_missing_as_a_whole_is_said_in_the_file_too(homeserver: Path) -> None:
    said = "\n# ? database_driver: no `database` in the files; try: database_driver: {driver: postgresql, dsn: file:PATH}\n"
    assert said in run(homeserver).stdout


def test_it_is_written_into_a_file_and_says_what_is_next(homeserver: Path, tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    done = run(homeserver, "-o", path)
    assert done.exit_code == 0
    assert done.stdout == ""
    assert f"next: rollout check -i {path}" in done.stderr
    assert read_document(path).root is not None
    assert sorted(one.name for one in tmp_path.iterdir()) == ["inventory.yaml", "root"]


def test_a_file_that_is_there_stays_unless_forced(homeserver: Path, tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text("mine")
    done = run(homeserver, "-o", path)
    assert done.exit_code == 2
    assert "a file is there already" in done.stderr
    assert "--force" in done.stderr
    assert path.read_text() == "mine"
    assert run(homeserver, "-o", path, "--force").exit_code == 0
    assert "homeserver: example.org" in path.read_text()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["inventory.yaml", "root"]


def test_what_was_read_is_never_overwritten(homeserver: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(homeserver)
    for path in (homeserver, link):
        done = run(homeserver, "-o", path, "--force")
        assert done.exit_code == 2
        assert "one of the files that the inventory was made from" in done.stderr
    assert homeserver.read_text() == HOMESERVER


def test_on_a_full_disk_nothing_is_left_and_nothing_is_lost(homeserver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept.yaml"
    kept.write_text("mine")

    class Full(io.StringIO):
        def write(self, _text: str, /) -> int:
            raise OSError(28, "No space left on device")

    def open_full(path: Path, mode: str, **_others: object) -> Full:
        path.touch(exist_ok=mode == "w")
        return Full()

    monkeypatch.setattr(Path, "open", open_full)
    for arguments in (("-o", tmp_path / "new.yaml"), ("-o", kept, "--force")):
        done = run(homeserver, *arguments)
        assert done.exit_code == 2
        assert "no space left on device" in done.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["kept.yaml", "root"]
    monkeypatch.undo()
    assert kept.read_text() == "mine"


def test_a_directory_that_is_not_there_is_named(homeserver: Path, tmp_path: Path) -> None:
    done = run(homeserver, "-o", tmp_path / "nowhere/inventory.yaml")
    assert done.exit_code == 2
    assert "nowhere/inventory.yaml: the inventory can't be written" in done.stderr
    assert "no such file or directory" in done.stderr


def test_no_server_name_is_no_homeserver(homeserver: Path) -> None:
    homeserver.write_text("listeners: []\n")
    done = run(homeserver)
    assert done.exit_code == 2
    assert f"{homeserver}: no server_name" in done.stderr


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        (lambda text: f"{text}macaroon_secret_key: [{SECRET}\n", ":7:1: not valid YAML"),
        (lambda text: f"{text}macaroon_secret_key: '{SECRET}\nx: y\n", ":8:1: not valid YAML"),
        (lambda text: f"{text}database: {{args: {{password: {SECRET}: {SECRET}}}}}\n", ":6:"),
        (lambda text: f"{text}form_secret: *{SECRET}\n", ":6:14: not valid YAML"),
        (lambda text: f"{text}form_secret: @{SECRET}\n", ":6:14: not valid YAML"),
        (lambda text: f"{text}form_secret: %{SECRET}\n", ":6:14: not valid YAML"),
        (lambda text: f"{text}  registration_shared_secret: {SECRET}\n", ":6:"),
        (lambda text: f"{text}server_name: !{SECRET} x\n", ":6:14: a value that Synapse couldn't read either"),
        (lambda text: f"{text}worker_name: !!int {SECRET}\n", ":6:14: a value that Synapse couldn't read either"),
        (lambda text: f"{text}---\nform_secret: {SECRET}\n", "not valid YAML"),
        (lambda text: f"{text}form_secret: \x07{SECRET}\n", "not valid YAML"),
        (lambda text: f"{text}x: {'[' * 70}{SECRET}{']' * 70}\n", ":6:67: nested more than 64 deep"),
    ],
)
def test_broken_yaml_is_told_with_its_place_and_without_its_secrets(broken: Callable[[str], str], where: str, homeserver: Path) -> None:
    homeserver.write_text(broken(HOMESERVER))
    done = run(homeserver)
    assert done.exit_code == 2, done.output
    assert str(homeserver) in done.stderr
    assert where in done.stderr
    assert SECRET not in done.output
    assert SECRET not in done.stderr


def test_and_so_it_is_with_the_parser_that_is_there_without_libyaml(homeserver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It quotes what it stumbles over."""
    monkeypatch.setattr(synapse_yaml, "_LOADER", yaml.SafeLoader)
    for line in (f"form_secret: *{SECRET}", f"form_secret: !e!{SECRET} x", f"form_secret: @{SECRET}", f"x: *{SECRET}-"):
        homeserver.write_text(f"{HOMESERVER}{line}\n")
        done = run(homeserver)
        assert done.exit_code == 2
        assert ":6:" in done.stderr
        assert SECRET not in done.stderr


@pytest.mark.parametrize(
    "name", ["yes", "null", "1.10", "0x1f", "a: b", "# w", "wörker", "- w", "2026-01-01", "~", "w:", "it's", 'a"b', "{w}"]
)
def test_whatever_a_worker_is_called_it_reads_as_that(name: str, homeserver: Path, tmp_path: Path) -> None:
    workers = homeserver.parent / "workers"
    workers.mkdir()
    content = {"worker_app": "synapse.app.generic_worker", "worker_name": name}
    (workers / "w.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
    assert run(homeserver, "-o", tmp_path / "inventory.yaml").exit_code == 0
    root = read_document(tmp_path / "inventory.yaml").root
    assert isinstance(root, dict)
    assert list(root["workers"]) == ["main", name]  # type: ignore[arg-type]


def test_no_secret_of_a_good_configuration_comes_out(homeserver: Path, tmp_path: Path) -> None:
    """Wherever people have them, in all that is read."""
    names = ("macaroon_secret_key", "registration_shared_secret", "form_secret", "worker_replication_secret", "turn_shared_secret")
    homeserver.write_text(
        HOMESERVER
        + "".join(f"{name}: {SECRET}\n" for name in names)
        + f"database: {{name: psycopg2, args: {{password: {SECRET}, dbname: 'postgresql://synapse:{SECRET}@db/synapse', host: db}}}}\n"
        + f"redis: {{enabled: true, password: {SECRET}}}\nemail: {{smtp_pass: {SECRET}}}\noidc_providers: [{{client_secret: {SECRET}}}]\n"
        + f"listeners:\n  - {{type: http, port: 8008, additional_resources: {{/x: {{config: {{key: {SECRET}}}}}}}}}\n"
    )
    homeserver.write_text(homeserver.read_text() + f"stream_writers:\n  events: w\n  macaroon_secret_key: {SECRET}\n")
    (homeserver.parent / "workers").mkdir()
    worker = homeserver.parent / "workers/w.yaml"
    worker.write_text(f"worker_app: synapse.app.generic_worker\nworker_name: w\nworker_replication_secret: {SECRET}\n")
    haproxy, unit = tmp_path / "haproxy.cfg", tmp_path / "synapse.service"
    haproxy.write_text(f"backend b\n  http-request set-header Authorization {SECRET}\n  server w 127.0.0.1:1\n  stats auth a:{SECRET}\n")
    unit.write_text(f"[Service]\nEnvironment=PGPASSWORD={SECRET}\nExecStart=python -m synapse.app.homeserver -c {homeserver}\n")
    nginx = tmp_path / "nginx.conf"
    nginx.write_text(f"location /_matrix {{ proxy_set_header X {SECRET}; proxy_pass http://a:{SECRET}@127.0.0.1:8008; }}\n")
    done = run(homeserver, "--haproxy", haproxy, "--nginx", nginx, "--units", unit)
    assert done.exit_code == 0, done.output
    assert "database_driver" in done.stdout
    assert SECRET not in done.stdout
    assert SECRET not in done.stderr


def test_what_may_not_be_looked_at_is_told(homeserver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As whoever isn't root finds matrix-docker-ansible-deploy's directories."""

    def shut(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", shut)
    done = run()
    assert done.exit_code == 2
    assert f"{homeserver}: this can't be looked at" in done.stderr
    assert "permission denied" in done.stderr
    assert "sudo" in done.stderr


def test_a_path_that_can_be_none_is_told(homeserver: Path) -> None:
    for arguments in ((homeserver, "--haproxy", "x" * 5000), ("x" * 5000,), (homeserver, "-o", "x" * 5000)):
        done = run(*arguments)
        assert done.exit_code == 2, done.output
        assert "file name too long" in done.stderr


@pytest.mark.parametrize("option", ["--workers", "--units", "--haproxy", "--nginx"])
def test_a_file_that_is_not_there_is_named(option: str, homeserver: Path, tmp_path: Path) -> None:
    done = run(homeserver, option, tmp_path / "nowhere")
    assert done.exit_code == 2
    assert f"{tmp_path}/nowhere: the file can't be read" in done.stderr
    assert "no such file or directory" in done.stderr
