"""How nginx stands: what it has read, and what its machine has open. Sources: proc(5), /proc/net/tcp; nginx.org, "Controlling nginx"."""

import ipaddress
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from rollout.agent import nginx, nginx_hold
from rollout.agent import nginx_configuration as configuration
from rollout.agent.fault import TRANSIENT, Fault

_ESTABLISHED, _TIME_WAIT = "01", "06"


def text(order: Mapping[str, Any]) -> dict[str, Any]:
    """Read the file of upstreams, whether or not nginx has it; *held* is what waits at each upstream, if a page tells that."""
    return {"text": nginx.read(Path(order["include"])), "held": _held(order)}


def see(order: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the file of upstreams, which nginx has as it is, and the machine's open connections by where they lead to.

    Raises Fault when nginx may have it otherwise, doesn't include it, or is being upgraded. *configured* in *order* are the workers of
    which it was seen that they include it: the next call gets those of this one.
    """
    end_s = monotonic() + order["timeout_s"]
    file, command = Path(order["include"]), order["nginx"]
    said = nginx.read(file)
    found = nginx.servers(said, str(file))
    now = nginx.workers(order["pid_file"])
    if not now:
        raise Fault(TRANSIENT, "nginx doesn't run", where=order["pid_file"])
    nginx.refuse_while_upgraded(order["pid_file"])
    if not nginx.is_read(file, said, now):
        remedy = f"{' '.join(command)} -t && {' '.join(command)} -s reload"
        what = "nginx may not have read its file of upstreams since it was changed"
        raise Fault(TRANSIENT, what, where=str(file), remedy=remedy)
    generation = [list(one) for one in sorted(now)]
    if generation != order["configured"]:
        configuration.refuse_what_sudo_forbids(command, [["-T"]], end_s)
        configuration.refuse_what_leads_nowhere(configuration.as_tested(command, end_s), file, {upstream for upstream, _ in found})
    connections = [[host, port, count] for (host, port), count in open_connections().items()]
    return {"text": said, "configured": generation, "connections": connections, "held": _held(order)}


def _held(order: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    page = order["hold_page"]
    return {} if page is None else nginx_hold.see(page, order["include"], order["timeout_s"])


def limits(order: Mapping[str, Any]) -> dict[str, Any]:
    """
    Count what nginx's workers have open, and what they may.

    Who may not see their file handles counts their user's sockets: with others of that user, that is too many rather than too few.
    """
    end_s = monotonic() + order["timeout_s"]
    pids = [pid for pid, _ in nginx.workers(order["pid_file"])]
    if not pids:
        raise Fault(TRANSIENT, "nginx doesn't run", where=order["pid_file"])
    configuration.refuse_what_sudo_forbids(order["nginx"], [["-T"]], end_s)
    each = configuration.connections_each(configuration.as_tested(order["nginx"], end_s))
    try:
        files_max = sum(_files_max(pid) for pid in pids)
        sockets, files = _open_of(pids)
    except OSError as error:
        raise Fault(TRANSIENT, "what nginx has open can't be seen", where=str(error.filename), why=str(error)) from error
    return {"connections": sockets, "connections_max": each * len(pids), "files": files, "files_max": files_max}


def _open_of(pids: list[int]) -> tuple[int, int]:
    """Return their sockets, and all that they have open."""
    try:
        goals = [_goal(handle) for pid in pids for handle in Path(f"/proc/{pid}/fd").iterdir()]
    except PermissionError:
        users = {str(Path(f"/proc/{pid}").stat().st_uid) for pid in pids}
        sockets = sum(user in users and state != _TIME_WAIT for _, state, user in _sockets())
        return sockets, sockets
    return sum(goal.startswith("socket:") for goal in goals), len(goals)


def open_connections() -> Counter[tuple[str, int]]:
    """Count this machine's open connections by where they lead to."""
    return Counter(_place(remote) for remote, state, _ in _sockets() if state == _ESTABLISHED)


def _sockets() -> Iterator[tuple[str, str, str]]:
    """Give each TCP socket's other end, its state and its user, as the kernel writes them."""
    for name in ("tcp", "tcp6"):
        try:
            _, *lines = Path("/proc/net", name).read_text().splitlines()
        except OSError as error:
            if name == "tcp6" and isinstance(error, FileNotFoundError):  # no IPv6 here
                continue
            # None would be "0 sessions", and a drain done.
            raise Fault(TRANSIENT, "the machine's connections can't be seen", where=f"/proc/net/{name}", why=str(error)) from error
        for line in lines:
            _, _, remote, state, *others = line.split()
            yield remote, state, others[3] if len(others) > 3 else ""  # noqa: PLR2004  (queues, timer, retransmits, user)


def _place(written: str) -> tuple[str, int]:
    """Read an address as the kernel writes it: words of four bytes, each in the machine's own order."""
    host, _, port = written.partition(":")
    words = [int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), int(port, 16)


def _goal(handle: Path) -> str:
    try:
        return str(handle.readlink())
    except FileNotFoundError:  # it was closed just now
        return ""


def _files_max(pid: int) -> int:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Max open files")).split()[3])
