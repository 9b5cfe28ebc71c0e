"""A real supervisord with small programs in Python, for the tests of what drives it."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rollout.lab.processes import wait_until
from rollout.model.ids import WorkerId

END_TIMEOUT_S = 15.0

_HEAD = """\
[unix_http_server]
file={place}/supervisor.sock
chmod=0700

[supervisord]
logfile={place}/supervisord.log
pidfile={place}/supervisord.pid
childlogdir={place}
nodaemon=true
silent=true

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

_PROGRAM = """
[program:{name}]
command={python} -I -S {place}/{name}.py
directory={place}
autostart=false
redirect_stderr=true
stdout_logfile={place}/{name}.log
{settings}
"""

# As the lab's programs: supervisord itself neither waits nor tries again.
PLAIN = ("autorestart=false", "startsecs=0", "startretries=0")

# Runs until it is told to end, and says itself, for as long, when it began.
STEADY = """\
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
began = pathlib.Path(__file__).with_suffix(".began")
try:
    began.write_text(repr(time.time()))
    time.sleep(600)
finally:
    began.unlink()
"""

# Writes three lines and fails.
FAILING = """\
print("reading the configuration")
print("binding a port")
raise SystemExit("the port is taken")
"""

# Takes longer to end than anybody waits for.
STUBBORN = """\
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(__file__).with_suffix(".began").write_text(repr(time.time()))
time.sleep(600)
"""


@contextmanager
def supervisord(place: Path, programs: Mapping[WorkerId, str], settings: Mapping[WorkerId, Sequence[str]] | None = None) -> Iterator[Path]:
    """
    Run *programs* (name -> source) below *place*, all of them stopped at first; gives the socket.

    *settings* are lines of a program's section that take the place of PLAIN.
    """
    conf = _HEAD.format(place=place)
    for name, source in programs.items():
        (place / f"{name}.py").write_text(source)
        lines = "\n".join((settings or {}).get(name, PLAIN))
        conf += _PROGRAM.format(name=name, python=sys.executable, place=place, settings=lines)
    (place / "supervisord.conf").write_text(conf)
    process = subprocess.Popen([sys.executable, "-m", "supervisor.supervisord", "-c", str(place / "supervisord.conf")], cwd=place)
    try:
        wait_until((place / "supervisor.sock").is_socket, 10, "supervisord listens")
        yield place / "supervisor.sock"
    finally:
        # It ends its programs first.
        process.send_signal(signal.SIGTERM)
        process.wait(END_TIMEOUT_S)


def began_at_s(place: Path, name: WorkerId) -> float:
    """Tell when the running program says that it began."""
    path = place / f"{name}.began"
    wait_until(lambda: path.exists() and path.read_text() != "", 5, f"{name} has begun")
    return float(path.read_text())
