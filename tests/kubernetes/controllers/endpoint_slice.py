"""
EndpointSlices of Services.

Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions; staging/src/k8s.io/endpointslice/utils.go
(podToEndpoint) and pkg/api/v1/pod/util.go in kubernetes/kubernetes. Readiness gates count because a pod's condition Ready counts them
(https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-readiness-gate).
"""

from tests.kubernetes.controllers.common import MANAGER, POD, delete, is_ready, is_terminating, owned, reference
from tests.kubernetes.server.kinds import BY_NAME
from tests.kubernetes.server.objects import Object, at, labels_of, name_of, namespace_of
from tests.kubernetes.server.resources import Resources
from tests.kubernetes.server.selectors import matches

_SERVICE, _SLICE, _NODE = BY_NAME["Service"], BY_NAME["EndpointSlice"], BY_NAME["Node"]
_OF_SERVICE, _BY = "kubernetes.io/service-name", "endpointslice.kubernetes.io/managed-by"
_MANAGED = "endpointslice-controller.k8s.io"


def endpoint_slices(resources: Resources) -> float | None:
    for service in resources.store.all(_SERVICE):
        if at(service, "spec", "selector"):
            _sync(resources, service)
    return None


def _sync(resources: Resources, service: Object) -> None:
    selector = {"matchLabels": service["spec"]["selector"]}
    pods = [pod for pod in resources.store.all(POD, namespace_of(service)) if matches(selector, labels_of(pod)) and _counts(pod)]
    if not service["spec"].get("publishNotReadyAddresses"):
        # Those of a node that isn't there are left out: reconciler.go of staging/src/k8s.io/endpointslice.
        pods = [pod for pod in pods if resources.store.get(_NODE, "", pod["spec"].get("nodeName", "")) is not None]
    # Pods that know a named port by different numbers are in different slices.
    by_ports: dict[tuple[tuple[str, int, str], ...], list[Object]] = {}
    for pod in pods:
        by_ports.setdefault(_ports(service, pod), []).append(_endpoint(service, pod))
    mine = [one for one in owned(resources, service, _SLICE) if labels_of(one).get(_BY) == _MANAGED]
    wanted = list(by_ports.items()) or [((), [])]
    for ports, endpoints in wanted:
        said = [{"name": name, "port": port, "protocol": protocol} for name, port, protocol in ports]
        there = next((one for one in mine if (one.get("ports") or []) == said), None) or (mine[0] if len(wanted) == 1 and mine else None)
        if there is None:
            _create(resources, service, said, endpoints)
            continue
        mine.remove(there)
        if (there.get("endpoints") or [], there.get("ports") or []) != (endpoints, said):
            _change(resources, there, said, endpoints)
    for left in mine:
        delete(resources, left)


def _counts(pod: Object) -> bool:
    """ShouldPodBeInEndpoints: it has an address and hasn't ended; one that is being deleted stays until it has."""
    return bool(at(pod, "status", "podIP")) and at(pod, "status", "phase") not in {"Succeeded", "Failed"}


def _ports(service: Object, pod: Object) -> tuple[tuple[str, int, str], ...]:
    found = []
    for port in service["spec"].get("ports") or []:
        target, protocol = port["targetPort"], port["protocol"]
        if isinstance(target, str):
            named = [
                one["containerPort"]
                for container in pod["spec"]["containers"]
                for one in container.get("ports") or []
                if one.get("name") == target and one["protocol"] == protocol
            ]
            if not named:
                continue
            target = named[0]
        found.append((port.get("name", ""), int(target), protocol))
    return tuple(found)


def _endpoint(service: Object, pod: Object) -> Object:
    serving, ending = is_ready(pod), is_terminating(pod)
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not ending)
    endpoint: Object = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": serving, "terminating": ending},
        "targetRef": {"kind": "Pod", "namespace": namespace_of(pod), "name": name_of(pod), "uid": pod["metadata"]["uid"]},
        "nodeName": pod["spec"].get("nodeName", ""),
    }
    if pod["spec"].get("hostname") and pod["spec"].get("subdomain") == name_of(service):
        endpoint["hostname"] = pod["spec"]["hostname"]
    return endpoint


def _create(resources: Resources, service: Object, ports: list[Object], endpoints: list[Object]) -> None:
    labels = {**labels_of(service), _OF_SERVICE: name_of(service), _BY: _MANAGED}
    if at(service, "spec", "clusterIP") == "None":
        labels["service.kubernetes.io/headless"] = ""
    metadata = {"generateName": f"{name_of(service)}-", "labels": labels, "ownerReferences": [reference(service)]}
    new = {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}
    resources.create(_SLICE, namespace_of(service), new, MANAGER)


def _change(resources: Resources, there: Object, ports: list[Object], endpoints: list[Object]) -> None:
    resources.change(_SLICE, there, lambda new: new.update(ports=ports, endpoints=endpoints), MANAGER)
