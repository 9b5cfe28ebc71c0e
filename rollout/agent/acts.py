"""
What can be done at the target, as data: each act is a JSON object whose `kind` says which of the primitives below does it.

```
{"kind": "haproxy", "sockets": [...], "commands": [...], "timeout_s": 5.0}          each command to every proxy, in this order
{"kind": "nginx", "include": "...", "upstream": "...", "server": "...", "weight": 50, "nginx": [...], "pid_file": "...", "timeout_s": 5.0}
                                                                                    no weight (null) is down
{"kind": "nginx_hold", "include": "...", "upstream": "...", "page": "http://...", "hold_s": 30.0, "hold_max": 1000, "timeout_s": 5.0}
                                                                                    no hold_s (null) lets go
{"kind": "supervisord", "socket": "...", "program": "...", "do": "stop" | "start", "timeout_s": 60.0}
{"kind": "systemd", "do": "stop" | "start", "unit": "...", ..., "timeout_s": 60.0}   see systemd.py
{"kind": "link", "link": "...", "goal": "..."}                                      switched by a rename; one that is right is left alone
{"kind": "command", "argv": [...], "timeout_s": 30.0}                               no shell; status 0 is success; `called` is how it is
                                                                                    named when it fails
```

What fails raises Fault; the acts after it are not done. An act may have a `host`: the name of the one where it
is to be done; one that has none is for the machine that rollout runs on.
"""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollout.agent.fault import PERMANENT, TRANSIENT, UNKNOWN, Fault

Act = Mapping[str, Any]
LINES_MAX = 12
# Beyond the time that an act is given: supervisord is looked at once more afterwards, and a process gets a moment to fail.
AFTERWARDS_S = 6.0


def check(acts: Sequence[Act]) -> None:
    """Raise Fault (PERMANENT) if one of them is of no known kind."""
    if strange := [str(act.get("kind")) for act in acts if act.get("kind") not in _PRIMITIVES]:
        raise Fault(PERMANENT, f"the agent doesn't know how to do {strange[0]!r}", remedy="the agent of this release of rollout")


def run(acts: Sequence[Act]) -> None:
    """Do one after the other. Raises Fault."""
    check(acts)
    for act in acts:
        _PRIMITIVES[act["kind"]](act)


def takes_s(acts: Sequence[Act]) -> float:
    """Return how long they may take, at most."""
    return sum(float(act.get("timeout_s", 0.0)) + AFTERWARDS_S for act in acts)


def switch(link: Path, goal: Path) -> None:
    """Point *link* to *goal*, atomically."""
    half = link.with_name(f".{link.name}.{os.getpid()}.half")
    half.unlink(missing_ok=True)
    half.symlink_to(goal)
    half.rename(link)


def _haproxy(act: Act) -> None:
    from rollout.agent import proxy  # noqa: PLC0415  (each act loads only what it needs: it starts with every effect)

    proxy.tell_all(act["sockets"], act["commands"], act["timeout_s"])


def _nginx(act: Act) -> None:
    from rollout.agent import nginx  # noqa: PLC0415  (as above)

    nginx.tell(act)


def _nginx_hold(act: Act) -> None:
    from rollout.agent import nginx_hold  # noqa: PLC0415  (as above)

    nginx_hold.tell(act)


def _supervisord(act: Act) -> None:
    from rollout.agent import processes  # noqa: PLC0415  (as above)

    do = {"stop": processes.stop, "start": processes.start}[act["do"]]
    do(act["socket"], act["program"], act["timeout_s"])


def _systemd(act: Act) -> None:
    from rollout.agent import systemd  # noqa: PLC0415  (as above)

    systemd.do(act)


def _link(act: Act) -> None:
    link, goal = Path(act["link"]), Path(act["goal"])
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink() or link.readlink() != goal:
            switch(link, goal)
    except OSError as error:
        raise Fault(TRANSIENT, "the link can't be switched", where=str(link), why=str(error)) from error


def _command(act: Act) -> None:
    import subprocess  # noqa: PLC0415  (as above)

    name = act.get("called", act["argv"][0])
    try:
        # In a process group of its own, so that what it starts itself ends with it.
        process = subprocess.Popen(  # noqa: S603  (a list, and no shell)
            act["argv"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as error:
        raise Fault(PERMANENT, f"{name} can't be run", why=str(error)) from error
    with process:
        try:
            said, _ = process.communicate(timeout=act["timeout_s"])
        except subprocess.TimeoutExpired as error:
            raise Fault(UNKNOWN, f"{name} took longer than {act['timeout_s']:.0f} s") from error
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        why = "\n".join(said.decode(errors="replace").splitlines()[-LINES_MAX:])
        raise Fault(PERMANENT, f"{name} ended with status {process.returncode}", why=why)


_PRIMITIVES: Mapping[str, Callable[[Act], None]] = {
    "haproxy": _haproxy,
    "nginx": _nginx,
    "nginx_hold": _nginx_hold,
    "supervisord": _supervisord,
    "systemd": _systemd,
    "link": _link,
    "command": _command,
}
