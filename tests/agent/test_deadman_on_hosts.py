"""The dead-man as a timer on the proxy's host: a real HAProxy on host a, the worker's listener on b, and a tool that is gone for good."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic, time
from typing import Any

import pytest

from rollout.adapters.ledger.ssh import ACCURACY_S, TICK_S, SshLedger
from rollout.adapters.workers.systemd_ssh.driver import SystemdSsh
from rollout.lab.processes import wait_until
from rollout.lab.programs import haproxy_binary
from rollout.model.effect import Effect
from rollout.model.errors import PermanentDriverError, TransientDriverError
from rollout.model.ids import EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.plan import Verb
from rollout.ports.acts import Acts, WayBack, Work
from tests.hosts import units
from tests.hosts.agents import DIRECTORY, TIMER, allow_agent, armed, copy, ledger_on, written
from tests.hosts.bed import USER, Bed, hosts

SYNC1 = WorkerId("sync1")
OLD, NEW = ReleaseId("1.0.0-00000000"), ReleaseId("2.0.0-0a1b2c3d")
SOCKET = "/run/haproxy/admin.sock"
AFTER_S = 2.0
# Its time, the timer's own step, its accuracy, and a busy machine.
SOON_S = AFTER_S + TICK_S + ACCURACY_S + 10
LISTENS = "/usr/bin/python3 -m http.server 8021 --directory /srv/worker"


class _Hook(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), _Answer)
        self.bodies: list[dict[str, Any]] = []


class _Answer(BaseHTTPRequestHandler):
    server: _Hook

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with hosts(tmp_path_factory.mktemp("beds"), "a", "b") as bed:
        units.install(bed, "b", {"worker@.service": units.unit(LISTENS)})
        bed.write("b", "/srv/worker/health", "OK\n")
        with closing(units.driver(units.settings_for(bed), {SYNC1: "b"})) as opened:
            units.allow(bed, opened)
            opened.start(SYNC1, 10.0)
        bed.write("a", "/etc/haproxy.cfg", _haproxy(bed.addresses["b"]))
        copy(bed, "a", haproxy_binary().parent, "/usr/local/lib/haproxy")
        service = ["RuntimeDirectory=haproxy", "RuntimeDirectoryMode=755"]
        units.install(bed, "a", {"haproxy.service": units.unit("/usr/local/lib/haproxy/haproxy -db -f /etc/haproxy.cfg", service=service)})
        bed.run("a", "systemctl", "start", "haproxy.service")
        wait_until(lambda: _state(bed) == "UP", 15, "the proxy sees its server")
        yield bed


def _haproxy(address: str) -> str:
    return f"""\
global
    stats socket {SOCKET} mode 660 group {USER} level admin
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend clients
    bind 127.0.0.1:8000
    default_backend sync
backend sync
    option httpchk GET /health
    server sync1 {address}:8021 check inter 100ms rise 1 fall 1 weight 100
"""


@pytest.fixture
def hook(bed: Bed) -> Iterator[_Hook]:
    """A webhook that the host reaches, whose address is in a file there."""
    server = _Hook(f"{bed.network}.1")
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    bed.write("a", "/etc/rollout/page", f"http://{bed.network}.1:{server.server_port}/secret\n")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ledger(bed: Bed, hook: _Hook) -> Iterator[SshLedger]:
    """Nothing is written down, and nobody has lived for long."""
    del hook
    bed.run("a", "systemctl", "stop", "rollout-deadman-*.timer")
    for host in ("a", "b"):
        bed.run(host, "rm", "-rf", DIRECTORY)
    with closing(ledger_on(bed, readmit_after_s=AFTER_S, page="file:/etc/rollout/page")) as ledger:
        allow_agent(bed, ledger)
        ledger.guard("example.org")
        _ask(bed, "set server sync/sync1 state ready")
        yield ledger


@pytest.fixture
def workers(bed: Bed) -> Iterator[SystemdSsh]:
    with closing(units.driver(units.settings_for(bed), {SYNC1: "b"})) as workers:
        workers.start(SYNC1, 10.0)
        wait_until(lambda: _state(bed) in {"UP", "DRAIN"}, 15, "the proxy sees its server")
        yield workers


def _ask(bed: Bed, command: str) -> str:
    script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode()+b'\\n'); "
    script += "s.shutdown(1); print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
    return bed.run("a", "python3", "-c", script, SOCKET, command)


def _state(bed: Bed) -> str:
    """Tell what the proxy says of its server: UP, DRAIN, DOWN …; nothing while it doesn't answer."""
    try:
        lines = _ask(bed, "show stat").splitlines()
    except AssertionError:
        return ""
    return next((line.split(",")[17].split()[0] for line in lines if line.startswith("sync,sync1,")), "")


def _answers(bed: Bed) -> bool:
    return bed.allows("a", "bash", "-c", f"exec 3<>/dev/tcp/{bed.addresses['b']}/8021")


def _told(state: str) -> Acts:
    commands = [f"set server sync/sync1 state {state}"]
    return ({"kind": "haproxy", "host": "a", "sockets": [SOCKET], "commands": commands, "timeout_s": 5.0},)


def _drained(bed: Bed, ledger: SshLedger, number: int, *, condemned: ReleaseId | None = None) -> None:
    effect = Effect(
        EffectNumber(number), StepId("sync1/drain"), Verb.DRAIN, SYNC1, NEW, 0.0, why="sync first", owner="r", condemned=condemned
    )
    back = WayBack(_told("ready"), f"http://{bed.addresses['b']}:8021/health", "/var/lib/releases/current/sync1")
    ledger.perform(effect, Work(_here, _told("drain"), back))
    assert _state(bed) == "DRAIN"


def _restarted(ledger: SshLedger, workers: SystemdSsh, number: int, release: ReleaseId, condemned: ReleaseId | None = None) -> None:
    effect = Effect(EffectNumber(number), StepId("sync1/restart"), Verb.RESTART, SYNC1, release, 0.0, owner="r", condemned=condemned)
    ledger.perform(effect, Work(_here, (*workers.stop_acts(SYNC1, 10.0), *workers.start_acts(SYNC1, 10.0))))


def _admitted(ledger: SshLedger, number: int) -> None:
    effect = Effect(EffectNumber(number), StepId("sync1/admit"), Verb.ADMIT, SYNC1, NEW, 0.0, owner="r")
    ledger.perform(effect, Work(_here, _told("ready")))


def _here() -> None:
    pytest.fail("it was done in this process")


def test_it_is_there_while_something_is_out_and_gone_when_nothing_is(bed: Bed, ledger: SshLedger) -> None:
    """By a name that says whose it is, and as exact as its time needs."""
    ledger.beat(0, time() + 60)
    assert not armed(bed)
    _drained(bed, ledger, 1)
    assert armed(bed)
    assert bed.run("a", "systemctl", "show", "-P", "AccuracyUSec", TIMER) == f"{ACCURACY_S}s\n"
    assert bed.run("a", "systemctl", "show", "-P", "User", TIMER.replace(".timer", ".service")) == f"{USER}\n"
    _admitted(ledger, 2)
    assert _state(bed) == "UP"
    assert not armed(bed)
    assert bed.run("a", "sh", "-c", "systemctl cat rollout-deadman-example.org.timer 2>&1 || true").startswith("No files found")


def test_whoever_beats_starts_it_again(bed: Bed, ledger: SshLedger) -> None:
    """Systemd has forgotten it: the host was booted again, or somebody has stopped it."""
    _drained(bed, ledger, 1)
    ledger.beat(0, time() + 60)
    bed.run("a", "systemctl", "stop", TIMER)
    assert not armed(bed)
    ledger.beat(0, time() + 60)
    assert armed(bed)


def test_nobody_is_taken_out_without_it(bed: Bed, ledger: SshLedger) -> None:
    """Sudo doesn't allow it: said before a rollout begins, and the proxy never hears of the drain."""
    rules = bed.run("a", "cat", "/etc/sudoers.d/rollout-ledger")
    bed.run("a", "rm", "/etc/sudoers.d/rollout-ledger")
    try:
        with pytest.raises(PermanentDriverError, match=f"sudo does not let {USER} run `/usr/bin/systemd-run") as refused:
            ledger.guard("example.org")
        assert "rollout sudoers --host a" in refused.value.remedy
        with pytest.raises(PermanentDriverError, match="sudo does not let"):
            _drained(bed, ledger, 1)
    finally:
        bed.write("a", "/etc/sudoers.d/rollout-ledger", rules, "440")
    assert _state(bed) == "UP"


def test_nor_where_systemd_won_t_start_it(bed: Bed, ledger: SshLedger) -> None:
    """Somebody has a unit of this name."""
    units.install(bed, "a", {TIMER: "[Timer]\nOnActiveSec=1h\n"})
    try:
        with pytest.raises(TransientDriverError, match="the dead-man's timer can't be started"):
            _drained(bed, ledger, 1)
    finally:
        bed.run("a", "rm", f"/etc/systemd/system/{TIMER}")
        bed.run("a", "systemctl", "daemon-reload")
    assert _state(bed) == "UP"


def test_a_worker_is_admitted_again_when_the_tool_s_machine_is_lost_for_good(
    bed: Bed, ledger: SshLedger, workers: SystemdSsh, hook: _Hook
) -> None:
    """Not while somebody lives; then within its time, and the timer takes itself away."""
    ledger.beat(0, time() + 14)
    _drained(bed, ledger, 1)
    _restarted(ledger, workers, 2, NEW)
    ledger.close()
    began_s = monotonic()
    wait_until(lambda: _state(bed) == "UP", 14 + SOON_S, "it was admitted again")
    assert monotonic() - began_s > 8
    wait_until(lambda: not armed(bed), 10, "the timer is gone")
    assert written(bed)["marks"] == {}
    assert [(body["severity"], body["homeserver"], body["deploy_id"]) for body in hook.bodies] == [("warning", "example.org", "r")]
    assert "nobody lives who would have done it" in hook.bodies[0]["sentence"]


def test_a_condemned_one_stays_out_and_somebody_is_told(bed: Bed, ledger: SshLedger, workers: SystemdSsh, hook: _Hook) -> None:
    """It runs, by what it was last restarted to run, what was being taken back; once it was restarted to run the old one it comes back."""
    ledger.beat(0, time() + 60)
    _drained(bed, ledger, 1)
    _restarted(ledger, workers, 2, NEW)
    _drained(bed, ledger, 3, condemned=NEW)
    ledger.beat(0, time())
    wait_until(lambda: hook.bodies != [], SOON_S, "somebody is told")
    assert [body["severity"] for body in hook.bodies] == ["critical"]
    assert f"it runs {NEW}, which was being taken back" in hook.bodies[0]["sentence"]
    assert (_state(bed), armed(bed)) == ("DRAIN", True)
    # Somebody looks after it until it answers: otherwise it would be told of that, too.
    ledger.beat(0, time() + 120)
    _restarted(ledger, workers, 4, OLD, NEW)
    wait_until(lambda: _answers(bed), 30, "it answers")
    ledger.beat(0, time())
    wait_until(lambda: _state(bed) == "UP", SOON_S, "it was admitted again")
    wait_until(lambda: not armed(bed), 10, "the timer is gone")
    assert [body["severity"] for body in hook.bodies] == ["critical", "warning"]
