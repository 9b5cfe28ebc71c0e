"""
Services of Kubernetes: a pod takes part by a label that its Service chooses by, and open requests are what the worker itself counts.

Pods have the label `rollout.internal/admitted: "true"` from their template, and the selector of the Service has it, too. Taken out, a pod
has "false". A new pod comes in by itself as soon as it is Ready, unless somebody holds it back: nobody has to live for that.

EndpointSlices take their time to arrive everywhere, so for *settle_s* after a drain nobody knows how many requests are still to come, and
`sessions` is None. A label is all or nothing: there are no weights here, and nothing waits for anybody.

Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/ (conditions ready, serving, terminating).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from rollout.adapters.asking import FAILURES, Asker, UnusableError, body_of
from rollout.adapters.kubernetes import acts
from rollout.adapters.kubernetes.access import ClusterSettings, read_settings
from rollout.adapters.kubernetes.cluster import Object
from rollout.adapters.kubernetes.grants import not_granted, owner_grants, pod_grants
from rollout.adapters.kubernetes.kinds import ENDPOINT_SLICES, SERVICES
from rollout.adapters.kubernetes.looking import looking
from rollout.adapters.kubernetes.objects import ADMITTED, IN, OUT, has_ended, is_going, is_ready, label, name_of, since_of, uid_of
from rollout.adapters.kubernetes.places import pod_at, pods_at
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import HoldBound
from rollout.model.sighting import PoolSighting, ProxyLimits, ProxySighting
from rollout.ports.acts import Acts
from rollout.ports.privileges import Grant
from rollout.ports.traffic import Server

WHERE = "traffic_driver"
FULL_WEIGHT = 100  # percent
ASK_S = 5.0
# Synapse's own count of requests that it works on, by method and servlet.
IN_FLIGHT = "synapse_http_server_in_flight_requests_count"
PAGE_BYTES_MAX = 20_000_000
SLICE_OF = "kubernetes.io/service-name"


class TrafficSettings(ClusterSettings):
    """
    *settle_s*: how long after a drain requests may still come, because not everybody has heard of it. *in_flight*: the metric by which a
    worker counts open requests. For the others see access.ClusterSettings.
    """

    settle_s: Annotated[float, Field(ge=0)] = 5.0
    in_flight: str = IN_FLIGHT


def build(settings: Mapping[str, object], inventory: Inventory) -> "KubernetesTraffic":
    """Open the driver; nothing is connected yet."""
    checked = read_settings(TrafficSettings, settings, inventory, WHERE)
    metrics = {entry.server or worker: entry.metrics for worker, entry in inventory.workers.items() if entry.pool is not None}
    return KubernetesTraffic(checked, metrics)


class KubernetesTraffic:
    """See ports.traffic, and ports.acts.TrafficActs. A backend is a Service, a server one of its pods. For use by several threads."""

    def __init__(self, settings: TrafficSettings, metrics: Mapping[str, str]) -> None:
        self._settings = settings
        self._metrics = metrics
        self._looking = looking(settings)
        self._cluster = self._looking.cluster
        # A worker that was replaced has closed its connections. Synapse compresses its page for all who don't say that they want it plain.
        self._asker = Asker({"Connection": "close", "Accept": "text/plain", "Accept-Encoding": "identity"}, len(metrics))

    def look(self, servers: Mapping[WorkerId, Server], timeout_s: float) -> dict[WorkerId, ProxySighting]:
        """See ports.traffic. Only those that are out are asked for their open requests: a metrics page is long."""
        if not servers:
            return {}
        pods, services = self._pods(timeout_s), self._services(timeout_s)
        serving = _serving(self._looking.all_of(ENDPOINT_SLICES, "", timeout_s))
        places = {worker: self._settings.pod_of(server.name) for worker, server in servers.items()}
        found = {
            worker: pods[places[worker]]
            for worker, server in servers.items()
            if places[worker] in pods and server.backend in services and _belongs(pods[places[worker]], services[server.backend])
        }
        # In a Service's EndpointSlices a pod has its own name.
        names = {worker: Server(servers[worker].backend, name_of(pod)) for worker, pod in found.items()}
        quiet = [worker for worker, pod in found.items() if self._has_settled(pod, serving, names[worker])]
        # What doesn't run has no request, and can't be asked; one that is started again meanwhile gets none.
        ended: dict[WorkerId, int | None] = {worker: 0 for worker in quiet if has_ended(found[worker])}
        asked = [worker for worker in quiet if worker not in ended]
        sessions = ended | (self._asker.each(asked, lambda worker: self._in_flight(servers[worker].name, timeout_s)) if asked else {})
        return {worker: _sighting(pod, names[worker], serving, sessions.get(worker)) for worker, pod in found.items()}

    def known(self, timeout_s: float) -> frozenset[Server]:
        """See ports.traffic. Of pods that are out too."""
        pods, services = self._pods(timeout_s), self._services(timeout_s)
        called = {place: worker for worker, place in self._settings.pods.items()}
        return frozenset(
            Server(name, called.get(place, place))
            for name, service in services.items()
            if _selector(service)
            for place, pod in pods.items()
            if _belongs(pod, service)
        )

    def drain(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        acts.run(self._cluster, self.drain_acts(server, timeout_s))

    def drain_acts(self, server: Server, timeout_s: float) -> Acts:
        """See ports.acts. For the pod that is there now: another one is left alone."""
        return self._acts(server, OUT, timeout_s)

    def admit(self, server: Server, weight: int, timeout_s: float) -> None:
        """See ports.traffic. PermanentDriverError for less than the whole weight."""
        acts.run(self._cluster, self.admit_acts(server, weight, timeout_s))

    def admit_acts(self, server: Server, weight: int, timeout_s: float) -> Acts:
        """See ports.acts."""
        if weight != FULL_WEIGHT:
            remedy = "`ramp: {weights: [100], step_s: 0}` in the playbook"
            raise PermanentDriverError("a Service has no weights", where=server.name, why=f"{weight} % was asked for", remedy=remedy)
        return self._acts(server, IN, timeout_s)

    def hold(self, server: Server, bound: HoldBound, timeout_s: float) -> None:
        """See ports.traffic: there is nobody who could."""
        del bound, timeout_s
        raise self._no_hold(server)

    def hold_acts(self, server: Server, bound: HoldBound, timeout_s: float) -> Acts:
        """See ports.acts: there is nobody who could."""
        del bound, timeout_s
        raise self._no_hold(server)

    def let_go(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic: nothing is ever held."""
        self._service(server, timeout_s)

    def let_go_acts(self, server: Server, timeout_s: float) -> Acts:
        """See ports.acts: nothing is ever held."""
        self._service(server, timeout_s)
        return ()

    def pools(self, backends: Collection[str], timeout_s: float) -> dict[str, PoolSighting]:
        """See ports.traffic. A Service counts nothing."""
        services = self._services(timeout_s)
        return {name: PoolSighting(requests=None, arrivals_per_s=None, weighs=False) for name in backends if name in services}

    def limits(self, timeout_s: float) -> ProxyLimits:
        """See ports.traffic: there is no proxy that would have any."""
        del timeout_s
        raise PermanentDriverError("a Service is no proxy, and has no limits of its own", where=self._cluster.where)

    def grants(self) -> tuple[Grant, ...]:
        """See ports.privileges."""
        here, workers = self._settings.namespace, tuple(self._metrics)
        return (
            *owner_grants(self._settings),
            Grant(here, "", "pods", ("get", "list")),
            *pod_grants(self._settings, workers, "pods", ("patch",)),
            Grant(here, "", "services", ("list",)),
            Grant(here, "discovery.k8s.io", "endpointslices", ("list",)),
        )

    def not_granted(self, timeout_s: float, *, thorough: bool) -> tuple[str, ...]:
        """See ports.privileges."""
        return not_granted(self._looking, self.grants(), timeout_s, thorough=thorough)

    def _acts(self, server: Server, wanted: str, timeout_s: float) -> Acts:
        service = self._service(server, timeout_s)
        if ADMITTED not in _selector(service):
            remedy = f'`{ADMITTED}: "true"` in its selector, and among the labels of the pods\' template'
            raise PermanentDriverError(f"Service {server.backend} chooses pods whatever their label says", where=server.name, remedy=remedy)
        place = self._settings.pod_of(server.name)
        pod = pod_at(self._cluster, place, self._settings.selector, timeout_s)
        if pod is None or not _belongs(pod, service):
            raise PermanentDriverError(f"Service {server.backend} has no pod {place}", where=self._cluster.where)
        return (
            acts.act("admit", timeout_s, worker=server.name, pod=name_of(pod), uid=uid_of(pod), was=label(pod, ADMITTED), admitted=wanted),
        )

    def _service(self, server: Server, timeout_s: float) -> Object:
        found = self._services(timeout_s).get(server.backend)
        if found is None:
            raise PermanentDriverError(f"there is no Service {server.backend}", where=self._cluster.where)
        return found

    def _no_hold(self, server: Server) -> PermanentDriverError:
        self._service(server, ASK_S)
        what = f"Service {server.backend} can't let requests wait"
        raise PermanentDriverError(what, where=server.name, remedy="no `hold` at this pool in the inventory")

    def _pods(self, timeout_s: float) -> dict[str, Object]:
        return pods_at(lambda kind: self._looking.all_of(kind, self._settings.selector, timeout_s), self._settings.deployments)

    def _services(self, timeout_s: float) -> dict[str, Object]:
        return {name_of(one): one for one in self._looking.all_of(SERVICES, "", timeout_s)}

    def _has_settled(self, pod: Object, serving: Collection[tuple[str, str]], server: Server) -> bool:
        """Tell whether everybody must have heard that a pod is out."""
        if label(pod, ADMITTED) != OUT or (server.backend, server.name) in serving:
            return False
        since_s = since_of(pod)
        # One that was taken out by hand maybe was so a moment ago.
        return since_s is not None and self._cluster.now_s() - since_s >= self._settings.settle_s

    def _in_flight(self, pod: str, timeout_s: float) -> int | None:
        """Count what a worker works on, by itself; None when it doesn't say."""
        try:
            answer = self._asker.get(self._metrics[pod], timeout_s)
            try:
                if not answer.ok:
                    return None
                page = body_of(answer, PAGE_BYTES_MAX, "its metrics page").decode()
            finally:
                answer.close()
            return _count(page.splitlines(), self._settings.in_flight)
        except (*FAILURES, KeyError, ValueError, OSError):
            return None


def _count(lines: Sequence[str], metric: str) -> int:
    """
    Add up a metric's samples. Raises UnusableError for a page that doesn't know the metric, since nobody knows then.

    A worker with nothing to do announces it (`# TYPE`) and has no sample: Synapse has one for each servlet with open requests.
    """
    if not any(line.startswith((f"# TYPE {metric} ", f"{metric}{{", f"{metric} ")) for line in lines):
        what = f"it has no {metric}"
        raise UnusableError(what)
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{metric}{{", f"{metric} "))))


def _sighting(pod: Object, server: Server, serving: Collection[tuple[str, str]], sessions: int | None) -> ProxySighting:
    admitted = label(pod, ADMITTED) == IN
    return ProxySighting(
        admitted=admitted,
        weight=FULL_WEIGHT,
        up=(server.backend, server.name) in serving if admitted else is_ready(pod) and not is_going(pod),
        sessions=sessions,
        requests=None,
        cuts=None,
    )


def _selector(service: Object) -> dict[str, str]:
    return dict(service["spec"].get("selector") or {})


def _belongs(pod: Object, service: Object) -> bool:
    """Tell whether a pod is one of a Service's, whether or not it is admitted."""
    wanted = {name: value for name, value in _selector(service).items() if name != ADMITTED}
    return bool(_selector(service)) and all(label(pod, name) == value for name, value in wanted.items())


def _serving(slices: Iterable[Object]) -> frozenset[tuple[str, str]]:
    """Return the (Service, pod) of every endpoint that new requests go to."""
    return frozenset(
        (str(label(one, SLICE_OF)), str(endpoint["targetRef"]["name"]))
        for one in slices
        for endpoint in one.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready") is not False and (endpoint.get("targetRef") or {}).get("kind") == "Pod"
    )
