"""
A network for pods: one namespace each, on a switch, with addresses that can be reached from here.

The switch and the pods' namespaces live as long as processes do that this one has begun, so nothing is left of them when those end.
"""

import itertools
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

# Networks that are tried, one after the other: tests run side by side.
_NETWORKS = 200
_FIRST, _LAST = 2, 250
_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Pause:
    """A process that holds a pod's namespace open."""

    process: "subprocess.Popen[bytes]"
    address: str

    @property
    def pid(self) -> int:
        return self.process.pid


def _run(*argv: str, stdin: str = "") -> None:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise OSError(f"{argv}: {done.stderr or done.stdout}")


def _hold_open() -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
    until = time.monotonic() + _TIMEOUT_S
    while Path(f"/proc/{process.pid}/comm").read_text().strip() != "sleep":
        if time.monotonic() > until:
            raise OSError("no network namespace can be made")
        time.sleep(0.005)
    return process


@dataclass(slots=True)
class Network:
    """*prefix*: the first three numbers of its addresses."""

    prefix: str
    switch: "subprocess.Popen[bytes]"
    _numbers: "itertools.cycle[int]" = field(default_factory=lambda: itertools.cycle(range(_FIRST, _LAST + 1)))
    _taken: dict[int, Pause] = field(default_factory=dict)
    _ports: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def here(self) -> str:
        """Return this machine's address on it."""
        return f"{self.prefix}.1"

    def pod(self) -> Pause:
        """Make a namespace with an address that no other pod has, nor one had lately."""
        number = next(one for one in self._numbers if one not in self._taken)
        process = _hold_open()
        address, port = f"{self.prefix}.{number}", f"p{next(self._ports)}"
        peer = f"link add {port} type veth peer name eth0 netns {process.pid}\nlink set {port} master br0 up\n"
        _run("nsenter", "-t", str(self.switch.pid), "-n", "ip", "-batch", "-", stdin=peer)
        inside = f"link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {self.here}\n"
        _run("nsenter", "-t", str(process.pid), "-n", "ip", "-batch", "-", stdin=inside)
        pause = Pause(process, address)
        self._taken[number] = pause
        return pause

    def release(self, pause: Pause) -> None:
        pause.process.kill()
        pause.process.wait()
        self._taken = {number: one for number, one in self._taken.items() if one is not pause}


def network(begin: int) -> Network:
    """Make a network; raises OSError where that can't be done."""
    switch = _hold_open()
    said = ""
    for number in range(_NETWORKS):
        which = 10 + (begin + number) % _NETWORKS
        port, prefix = f"rolloutk{which}", f"10.78.{which}"
        try:
            _run("ip", "link", "add", port, "type", "veth", "peer", "name", "up0", "netns", str(switch.pid))
        except OSError as error:
            said = str(error)
            if "File exists" in said:
                continue
            break
        inside = "link add br0 type bridge\nlink set br0 up\nlink set up0 master br0 up\n"
        _run("nsenter", "-t", str(switch.pid), "-n", "ip", "-batch", "-", stdin=inside)
        _run("ip", "-batch", "-", stdin=f"addr add {prefix}.1/24 dev {port}\nlink set {port} up\n")
        return Network(prefix, switch)
    switch.kill()
    switch.wait()
    raise OSError(f"no network can be made here: {said}")
