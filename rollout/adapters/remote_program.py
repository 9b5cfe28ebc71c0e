"""
Running the agent's own code on a host, through one command: the program goes with it, and nothing of it stays there.

Rejected: forwarding the proxy's socket (`direct-streamlocal@openssh.com`). paramiko can't ask for it, hardened hosts forbid it, each
command would be a connection of its own, and why a socket can't be used comes back as "connect failed" only. An installed program would be
faster by a few milliseconds, and would have to be brought along and kept at one version with this one first.
"""

import base64
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from rollout.adapters.faults import error_of
from rollout.adapters.remote_commands import Argv, Said
from rollout.agent import PYTHON_MIN
from rollout.agent.fault import PERMANENT, Fault
from rollout.agent.there import pack, unpacked
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError

PYTHON = "/usr/bin/python3"
_NGINX = ("nginx", "nginx_configuration", "nginx_hold", "nginx_state", "process_table")
# What each order needs besides `there` and `fault`.
NEEDED: Mapping[str, tuple[str, ...]] = {
    "haproxy": ("proxy",),
    "nginx": _NGINX,
    "nginx_limits": _NGINX,
    "nginx_text": _NGINX,
    "acts": ("acts", "proxy", "nginx", "nginx_configuration", "nginx_hold", "process_table"),
}
_TOO_OLD = "python3 there is too old"
# What a shell ends with when it can't find, or may not run, a program.
_NO_PROGRAM = frozenset({126, 127})
# Modules come from a dictionary, under the names that they have here.
_BOOT = f"""\
import sys
if sys.version_info < {PYTHON_MIN}:
    sys.exit("{_TOO_OLD}: %d.%d" % sys.version_info[:2])
from importlib.machinery import ModuleSpec
class Sent:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=sent[name] is None) if name in sent else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        if sent[module.__name__] is not None:
            exec(compile(sent[module.__name__], module.__name__, "exec"), module.__dict__)
sys.meta_path.insert(0, Sent())
from rollout.agent.there import main
main(sys.argv[1])
"""


def program(order: Mapping[str, Any], python: str = PYTHON) -> Argv:
    """Return the command that does *order* (rollout.agent.there) on a host."""
    return (python, "-I", "-S", "-c", _whole(NEEDED[order["do"]]), pack(order))


@cache
def _whole(modules: tuple[str, ...]) -> str:
    place = files("rollout.agent")
    sent: dict[str, str | None] = {"rollout": None, "rollout.agent": None}
    sent |= {f"rollout.agent.{name}": place.joinpath(f"{name}.py").read_text() for name in ("fault", "there", *modules)}
    packed = base64.b64encode(zlib.compress(f"sent = {sent!r}\n{_BOOT}".encode(), 9)).decode()
    return f"import base64,zlib;exec(zlib.decompress(base64.b64decode('{packed}')))"


def answer_in(said: Said, where: str, python: str, *, changes: bool) -> dict[str, Any]:
    """
    Read what the program printed. Raises what went wrong there as a DriverError that names the host.

    What can't be read is in doubt if something was to be changed: OutcomeUnknownError.
    """
    *_, line = said.out.strip().splitlines() or [""]
    try:
        found = unpacked(line)
    except ValueError:
        raise _no_answer(said, where, python, changes=changes) from None
    outcome = found.pop("outcome")
    if outcome != "done":
        raise located(Fault(**{**found, "kind": outcome}), where)
    return found


def located(fault: Fault, where: str) -> DriverError:
    """Say on which host it was."""
    place = ", ".join(part for part in (where, fault.where) if part)
    return error_of(replace(fault, where=place))


def _no_answer(said: Said, where: str, python: str, *, changes: bool) -> DriverError:
    remedy = f"Python {'.'.join(map(str, PYTHON_MIN))} or newer there; `python` says where it is"
    if said.status in _NO_PROGRAM:
        return error_of(Fault(PERMANENT, f"{python} can't be run there", where=where, why=said.why, remedy=remedy))
    if _TOO_OLD in said.out and said.status == 1:
        return PermanentDriverError("Python is too old there", where=where, why=said.why, remedy=remedy)
    kind = OutcomeUnknownError if changes else TransientDriverError
    return kind("the program there broke off", where=where, why=f"it ended with status {said.status}\n{said.why}".strip())
