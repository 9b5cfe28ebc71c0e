"""
HAProxy in pods of a cluster, each asked and told through the API server (adapters/kubernetes/port_forward.py).

Whichever pods there are at that moment are the proxies: one list by their labels, then each that runs is asked as a proxy on a host is, and
all must answer. One that is on its way out may still have sessions, and get requests on connections that it has: while it answers it counts
as the others do, and is told what they are told; when it doesn't, which is so as soon as it takes no connection any more, nobody knows how
many sessions there are, until it is gone.

No act is written down: no agent of a host's could do it, and HAProxy has nothing to compare with. Whatever is told is told within its time
or not at all, so somebody who was stopped for longer than that tells nothing when woken (docs/decisions/0017-kubernetes.md).

A server is found by its name, so what it was told stays when its pod is replaced and has another address: `server sync-0 sync-0.sync… check
resolvers …`. Slots of a `server-template` have no such names, and aren't for this.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic  # noqa: TID251  (how long a proxy takes, whatever clock a rollout goes by)
from typing import Annotated, Any

from pydantic import Field

from rollout.adapters.faults import translated
from rollout.adapters.kubernetes.access import said_by_others
from rollout.adapters.kubernetes.cluster import Cluster, Door, Object
from rollout.adapters.kubernetes.grants import not_granted
from rollout.adapters.kubernetes.kinds import PODS
from rollout.adapters.kubernetes.looking import looking_through
from rollout.adapters.kubernetes.objects import has_ended, is_going, name_of
from rollout.adapters.kubernetes.port_forward import Forwarded, forward
from rollout.adapters.settings import FilePath, Settings, check
from rollout.adapters.side_by_side import ask_all
from rollout.adapters.traffic.haproxy import Haproxies
from rollout.adapters.traffic.hosts import WHERE
from rollout.adapters.traffic.runtime_api import Sockets, ask
from rollout.agent import proxy
from rollout.model.errors import DriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import HoldBound
from rollout.model.sighting import PoolSighting, ProxyLimits, ProxySighting
from rollout.ports.acts import Acts
from rollout.ports.privileges import Grant
from rollout.ports.traffic import Server

PORT = 1999
# One on its way out either answers soon or has stopped to.
GOING_S = 1.0
_ENDS = re.compile(proxy.ENDS.pattern.encode())
_ALIVE = {"show info": "Maxconn:"}

Port = Annotated[int, Field(ge=1, le=65_535)]


class HaproxyPods(Settings):
    """
    *selector*: labels that all of HAProxy's pods have, and no others. *port*: where each has its runtime API, on its own loopback.
    *master*: its master's port (`-S`), if it has one; without it there must be no reload, which leaves old processes behind. *namespace*,
    *kubeconfig* and *context*: as for workers (access.ClusterSettings), and theirs if nothing is said.
    """

    namespace: str = Field(min_length=1)
    selector: str = Field(min_length=1)
    port: Port = PORT
    master: Port | None = None
    kubeconfig: FilePath | None = None
    context: str | None = None


class InPodsSettings(Settings):
    """*pods*: every HAProxy in front of the homeserver."""

    pods: HaproxyPods


def build(settings: Mapping[str, object], inventory: Inventory, may_be_held: Collection[str]) -> "HaproxiesInPods":
    """Open the driver; nothing is connected yet."""
    pods = settings["pods"]
    whole = {**said_by_others(inventory), **pods} if isinstance(pods, Mapping) else pods
    return HaproxiesInPods(check(InPodsSettings, {**settings, "pods": whole}, WHERE).pods, may_be_held)


@dataclass(frozen=True, slots=True)
class _There:
    """The proxies that answer; *unasked*: another one, on its way out, that may have sessions and doesn't."""

    proxies: Haproxies
    unasked: bool


class HaproxiesInPods:
    """See ports.traffic. For use by several threads."""

    def __init__(self, settings: HaproxyPods, may_be_held: Collection[str] = ()) -> None:
        self._settings = settings
        self._may_be_held = may_be_held
        # Kept, since only drivers that use it keep it open.
        kubeconfig = None if settings.kubeconfig is None else str(settings.kubeconfig)
        self._looking = looking_through(Door(settings.namespace, kubeconfig, settings.context))
        self._cluster = self._looking.cluster

    def look(self, servers: Mapping[WorkerId, Server], timeout_s: float) -> dict[WorkerId, ProxySighting]:
        """See ports.traffic."""
        end_s = monotonic() + timeout_s
        there = self._there(end_s)
        seen = there.proxies.look(servers, _left(end_s))
        return {worker: replace(one, sessions=None) for worker, one in seen.items()} if there.unasked else seen

    def drain(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        end_s = monotonic() + timeout_s
        self._there(end_s).proxies.drain(server, _left(end_s))

    def admit(self, server: Server, weight: int, timeout_s: float) -> None:
        """See ports.traffic."""
        end_s = monotonic() + timeout_s
        self._there(end_s).proxies.admit(server, weight, _left(end_s))

    def hold(self, server: Server, bound: HoldBound, timeout_s: float) -> None:
        """See ports.traffic. A pod that is replaced forgets a hold: the next one lets everything through."""
        end_s = monotonic() + timeout_s
        self._there(end_s).proxies.hold(server, bound, _left(end_s))

    def let_go(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        end_s = monotonic() + timeout_s
        self._there(end_s).proxies.let_go(server, _left(end_s))

    def pools(self, backends: Collection[str], timeout_s: float) -> dict[str, PoolSighting]:
        """See ports.traffic."""
        end_s = monotonic() + timeout_s
        return self._there(end_s).proxies.pools(backends, _left(end_s))

    def known(self, timeout_s: float) -> frozenset[Server]:
        """See ports.traffic."""
        end_s = monotonic() + timeout_s
        return self._there(end_s).proxies.known(_left(end_s))

    def limits(self, timeout_s: float) -> ProxyLimits:
        """See ports.traffic."""
        end_s = monotonic() + timeout_s
        return self._there(end_s).proxies.limits(_left(end_s))

    def grants(self) -> tuple[Grant, ...]:
        """
        See ports.privileges. A WebSocket is a GET, and takes `create` besides since 1.35 (AuthorizePodWebsocketUpgradeCreatePermission).

        Of any pod: a Deployment's have names that nobody knows beforehand.
        """
        here = self._settings.namespace
        return (Grant(here, "", "pods", ("list",)), Grant(here, "", "pods/portforward", ("get", "create")))

    def not_granted(self, timeout_s: float, *, thorough: bool) -> tuple[str, ...]:
        """See ports.privileges."""
        return not_granted(self._looking, self.grants(), timeout_s, thorough=thorough)

    def _there(self, end_s: float) -> _There:
        """Find the proxies of this moment. TransientDriverError if there are none but such as are on their way out."""
        running = [one for one in self._cluster.all_of(PODS, _left(end_s), labels=self._settings.selector) if _runs(one)]
        staying = [self._at(one) for one in running if not is_going(one)]
        if not staying:
            what = f"no pod with the labels {self._settings.selector} runs"
            remedy = "pods: {selector: …} in the traffic_driver, with labels that HAProxy's pods have"
            raise TransientDriverError(what, where=self._cluster.where, remedy=remedy)
        going = [self._at(one) for one in running if is_going(one)]
        soon_s = min(end_s, monotonic() + GOING_S)
        alive = ask_all({one.place.name: partial(_answers, one, soon_s) for one in going})
        answering = [one for one in going if alive[one.place.name]]
        return _There(Haproxies([*staying, *answering], self._may_be_held), unasked=len(answering) < len(going))

    def _at(self, pod: Object) -> Sockets:
        return sockets_in(self._cluster, name_of(pod), self._settings.port, self._settings.master)


def sockets_in(cluster: Cluster, pod: str, port: int, master: int | None = None) -> Sockets:
    """Return the proxy in a pod, for whom these ports of it are sockets."""
    ports = {f"{cluster.where}, pod {pod}, port {one}": one for one in (port, master) if one is not None}
    api, *masters = ports
    return Sockets(_InPod(cluster, pod, ports), (api,), tuple(masters))


class _InPod:
    """See places.Place. Its sockets are ports, by how errors call them."""

    user = ""

    def __init__(self, cluster: Cluster, pod: str, ports: Mapping[str, int]) -> None:
        self.name = pod
        self._cluster = cluster
        self._ports = ports

    def ask(self, order: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """See Place."""
        with translated():
            return proxy.questions({**order, "timeout_s": timeout_s, "together": True}, self._dial)

    def do(self, acts: Acts, timeout_s: float) -> None:
        """See Place."""
        end_s = monotonic() + timeout_s
        with translated():
            for act in acts:
                proxy.tell_all(act["sockets"], act["commands"], end_s - monotonic(), self._dial)

    def where(self, path: str) -> str:
        """See Place."""
        return path

    def close(self) -> None:
        """See Place: nothing is kept."""

    def _dial(self, place: str, end_s: float) -> "_Answered":
        connection = forward(self._cluster, self.name, self._ports[place], end_s)
        if monotonic() >= end_s:
            # Somebody else may have acted since: this was for then, and not for now.
            connection.close()
            raise TimeoutError
        return _Answered(connection)


class _Answered:
    """
    A connection that is at its end when all has been answered: each command by an empty line at the end, or by nothing but that. HAProxy
    closes then, too; but what runs the pod waits a while before it says so (containerd half a second:
    internal/cri/server/sandbox_portforward_linux.go).
    """

    def __init__(self, connection: Forwarded) -> None:
        self._connection = connection
        self._asked = 0
        self._said = bytearray()
        self.shutdown, self.settimeout, self.close = connection.shutdown, connection.settimeout, connection.close

    def sendall(self, data: bytes) -> None:
        self._asked = data.count(b";") + 1
        self._connection.sendall(data)

    def recv(self, size: int) -> bytes:
        if self._said == b"\n" or (self._said.endswith(b"\n\n") and len(_ENDS.findall(self._said)) >= self._asked):
            return b""
        said = self._connection.recv(size)
        self._said += said
        return said


def _runs(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and not has_ended(pod)


def _answers(one: Sockets, end_s: float) -> bool:
    try:
        ask([one], _ALIVE, end_s)
    except DriverError:
        return False
    return True


def _left(end_s: float) -> float:
    return max(0.01, end_s - monotonic())
