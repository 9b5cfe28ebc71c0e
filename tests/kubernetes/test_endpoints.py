"""What we rely on in EndpointSlices and readiness: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions."""

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import Hand, eventually, hand, pod, refused
from tests.kubernetes.kubelet.api import Object


def _service(it: Hand, **spec: object) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    it.create(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"selector": {"tier": "a"}, "ports": ports, **spec}}
    )


def _pod(it: Hand, name: str, address: str, *, ready: bool = True) -> Object:
    one = pod(name)
    one["metadata"]["labels"]["tier"] = "a"
    one["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": 8080}]
    it.create(one)
    it.ready(name, ready=ready, address=address)
    return it.get("Pod", name)


def _endpoints(it: Hand) -> dict[str, Object]:
    found = it.list("EndpointSlice", labelSelector="kubernetes.io/service-name=s")["items"]
    return {one["targetRef"]["name"]: one for slice_ in found for one in slice_.get("endpoints") or []}


def _are(it: Hand, **wanted: tuple[bool, bool, bool]) -> None:
    def look() -> bool:
        told = {name: one["conditions"] for name, one in _endpoints(it).items()}
        return {name: (one["ready"], one["serving"], one["terminating"]) for name, one in told.items()} == wanted

    eventually(look, f"the endpoints are {wanted}")


def test_ready_pods_are_endpoints_and_pods_that_end_serve_on(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _service(it)
    made = _pod(it, "a", "10.9.0.1")
    _pod(it, "b", "10.9.0.2", ready=False)
    _are(it, a=(True, True, False), b=(False, False, False))
    one = _endpoints(it)["a"]
    assert one["addresses"] == ["10.9.0.1"]
    assert one["targetRef"]["uid"] == made["metadata"]["uid"]
    assert one["nodeName"] == it.node
    slice_ = it.list("EndpointSlice", labelSelector="kubernetes.io/service-name=s")["items"][0]
    assert slice_["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert slice_["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"
    it.delete("Pod", "a")
    _are(it, a=(False, True, True), b=(False, False, False))
    it.gone("a")
    _are(it, b=(False, False, False))


def test_pod_that_leaves_the_selector_leaves_the_service(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _service(it)
    _pod(it, "a", "10.9.0.1")
    _are(it, a=(True, True, False))
    it.patch("Pod", "a", {"metadata": {"labels": {"tier": None}}})
    _are(it)
    it.patch("Pod", "a", {"metadata": {"labels": {"tier": "a"}}})
    _are(it, a=(True, True, False))


def test_service_may_publish_those_that_are_not_ready(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _service(it, publishNotReadyAddresses=True, clusterIP="None")
    _pod(it, "a", "10.9.0.1", ready=False)
    _are(it, a=(True, False, False))


def test_pod_of_a_node_that_is_not_there_is_no_endpoint(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _service(it)
    one = pod("lost")
    one["metadata"]["labels"]["tier"] = "a"
    one["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": 8080}]
    it.create(one)
    it.bind("lost", "nowhere")
    it.ready("lost", address="10.9.0.3")
    _pod(it, "a", "10.9.0.1")
    _are(it, a=(True, True, False))


def test_slices_of_ones_own_are_left_alone_and_checked(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _service(it)
    labels = {"kubernetes.io/service-name": "s", "endpointslice.kubernetes.io/managed-by": "example.org"}
    metadata = {"name": "mine", "labels": labels}
    mine = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4", "ports": []}
    with refused(422, "Invalid"):
        it.create(mine | {"endpoints": [{"addresses": ["127.0.0.1"]}]})
    it.create(mine | {"endpoints": [{"addresses": ["10.9.0.7"]}]})
    _pod(it, "a", "10.9.0.1")
    eventually(lambda: len(it.list("EndpointSlice", labelSelector="kubernetes.io/service-name=s")["items"]) == 2, "both are there")
    assert it.get("EndpointSlice", "mine")["endpoints"][0]["addresses"] == ["10.9.0.7"]
