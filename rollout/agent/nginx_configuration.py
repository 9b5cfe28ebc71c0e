"""
nginx's whole configuration, as it tests it (`nginx -T`): whether it would take it, whether our file is in it, and whether anything leads
to our upstreams. Otherwise a drain would be "done" while traffic goes on.
"""

import os
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from time import monotonic

from rollout.agent.fault import PERMANENT, TRANSIENT, UNKNOWN, Fault

LINES_MAX = 12
# nginx's own default.
CONNECTIONS_EACH = 512
_FILE = re.compile(r"^# configuration file (.+):$")
_COMMENT = re.compile(r"#.*")
_WORKER_CONNECTIONS = re.compile(r"\bworker_connections\s+(\d+)\s*;")
_SUDO = ("sudo", "-n", "--")


def as_tested(nginx: Sequence[str], end_s: float, what: str = "nginx would not take its configuration as it stands") -> dict[str, str]:
    """Have nginx test what stands there now, and return the files that it reads, without comments. Raises Fault: nothing was changed."""
    return files(run([*nginx, "-T"], end_s, PERMANENT, what))


def files(said: str) -> dict[str, str]:
    """Take apart what `nginx -T` prints."""
    found: dict[str, str] = {}
    name = ""
    for line in said.splitlines():
        if match := _FILE.match(line):
            name = os.path.realpath(match[1])
        else:
            found[name] = found.get(name, "") + _COMMENT.sub("", line) + "\n"
    return found


def refuse_what_leads_nowhere(configuration: Mapping[str, str], file: Path, upstreams: Collection[str]) -> None:
    """Raise Fault (PERMANENT) when nginx doesn't include *file*, or nothing else that it reads names one of the *upstreams* in it."""
    ours = os.path.realpath(file)
    if ours not in configuration:
        what = "nginx does not include this file, so it would not notice a change"
        remedy = f"`include {file};` in http {{ … }} of nginx.conf"
        raise Fault(PERMANENT, what, where=str(file), why=f"it reads {', '.join(name for name in configuration if name)}", remedy=remedy)
    others = "".join(text for name, text in configuration.items() if name != ours)
    if unknown := sorted(name for name in upstreams if name not in others):
        why = f"none of the files that it reads names {unknown[0]} but this one"
        remedy = f"`proxy_pass http://{unknown[0]};` where its requests come in"
        raise Fault(PERMANENT, f"nginx leads nobody to upstream {unknown[0]}", where=str(file), why=why, remedy=remedy)


def connections_each(configuration: Mapping[str, str]) -> int:
    """Return how many connections a worker may have."""
    said = _WORKER_CONNECTIONS.search("".join(configuration.values()))
    return int(said[1]) if said else CONNECTIONS_EACH


def reload(nginx: Sequence[str], end_s: float) -> None:
    """Tell nginx to read its configuration. Raises Fault."""
    run([*nginx, "-s", "reload"], end_s, TRANSIENT, "nginx can't be reloaded")


def refuse_what_sudo_forbids(nginx: Sequence[str], arguments: Sequence[Sequence[str]], end_s: float) -> None:
    """
    Ask sudo whether it would, where it is sudo that runs nginx. Raises Fault.

    It ends with the status that nginx ends with, too, so afterwards the two could not be told apart.
    """
    if tuple(nginx[: len(_SUDO)]) != _SUDO:
        return
    for argument in arguments:
        argv = [*nginx[len(_SUDO) :], *argument]
        what = f"sudo does not let nginx be run as root: `{' '.join(argv)}`"
        remedy = "install there what `rollout sudoers -i INVENTORY` prints"
        run(["sudo", "-n", "-l", "--", *argv], end_s, PERMANENT, what, remedy)


def run(argv: Sequence[str], end_s: float, kind: str, what: str, remedy: str = "") -> str:
    """Run it, and return what it prints; Fault of *kind* with its last words when it fails."""
    try:
        left_s = max(0.001, end_s - monotonic())
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=left_s, check=False)  # noqa: S603  (no shell)
    except OSError as error:
        raise Fault(PERMANENT, f"{argv[0]} can't be run", why=str(error)) from error
    except subprocess.TimeoutExpired as error:
        if argv[-1] == "reload":
            raise Fault(UNKNOWN, "nginx did not say whether it reloads", why=" ".join(argv)) from error
        raise Fault(TRANSIENT, "nginx did not say in time whether its configuration is right", why=" ".join(argv)) from error
    if done.returncode != 0:
        why = "\n".join((done.stderr or done.stdout).decode(errors="replace").splitlines()[-LINES_MAX:])
        raise Fault(kind, what, why=why, remedy=remedy)
    return done.stdout.decode(errors="replace")
