"""
Names of pods, as a cluster's DNS gives them: POD.SERVICE.NAMESPACE.svc.cluster.local is what the Service's EndpointSlices say.

Like CoreDNS it goes on with what it knew while the API server is away; of a headless Service it tells those that are ready, which with
`publishNotReadyAddresses` all are.

Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-hostname-and-subdomain-fields, RFC 1035, 4.1.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from kubernetes import client

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.kubelet.node import Kubelet

SUFFIX = "svc.cluster.local"
_A, _IN, _NO_SUCH_NAME = 1, 1, 3
_TTL_S = 5
_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Dns:
    """Where it answers, for pods too."""

    address: str
    port: int


@contextmanager
def dns(plane: ControlPlane, kubelet: Kubelet) -> Iterator[Dns]:
    """Answer while the block runs."""
    with plane.api() as api:
        core: Any = client.CoreV1Api(api)
        node = core.read_node(kubelet.name)
    address = next(one.address for one in node.status.addresses if one.type == "InternalIP")
    names: dict[str, list[str]] = {}
    ended = threading.Event()
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((address, 0))
    listener.settimeout(_EVERY_S)
    threads = [
        threading.Thread(target=_look, args=(plane, names, ended), daemon=True),
        threading.Thread(target=_serve, args=(listener, names, ended), daemon=True),
    ]
    for one in threads:
        one.start()
    try:
        yield Dns(address, int(listener.getsockname()[1]))
    finally:
        ended.set()
        for one in threads:
            one.join()
        listener.close()


def _look(plane: ControlPlane, names: dict[str, list[str]], ended: threading.Event) -> None:
    with plane.api() as api:
        slices: Any = client.DiscoveryV1Api(api)
        while not ended.wait(_EVERY_S):
            with suppress(Exception):
                found: dict[str, list[str]] = {}
                for one in slices.list_namespaced_endpoint_slice(plane.namespace, _request_timeout=2).items:
                    service = one.metadata.labels["kubernetes.io/service-name"]
                    for endpoint in one.endpoints or ():
                        if endpoint.hostname and (endpoint.conditions is None or endpoint.conditions.ready is not False):
                            name = f"{endpoint.hostname}.{service}.{plane.namespace}.{SUFFIX}"
                            found.setdefault(name, []).extend(endpoint.addresses)
                names.update(found)
                for gone in names.keys() - found.keys():
                    del names[gone]


def _serve(listener: socket.socket, names: dict[str, list[str]], ended: threading.Event) -> None:
    while not ended.is_set():
        with suppress(OSError, ValueError, IndexError):
            asked, whence = listener.recvfrom(1024)
            listener.sendto(answer(asked, names), whence)


def answer(asked: bytes, names: dict[str, list[str]]) -> bytes:
    """Answer a question for one name."""
    labels, at = [], 12
    while size := asked[at]:
        labels.append(asked[at + 1 : at + 1 + size].decode())
        at += 1 + size
    question = asked[12 : at + 5]
    kind = int.from_bytes(asked[at + 1 : at + 3], "big")
    known = names.get(".".join(labels).lower())
    addresses = known if known is not None and kind == _A else []
    # An answer, of who has authority, to a question that wanted recursion, which is to be had.
    flags = 0x8580 | (0 if known is not None else _NO_SUCH_NAME)
    head = asked[:2] + b"".join(one.to_bytes(2, "big") for one in (flags, 1, len(addresses), 0, 0))
    # Its name is that of the question, which begins at 12.
    record = b"\xc0\x0c" + _A.to_bytes(2, "big") + _IN.to_bytes(2, "big") + _TTL_S.to_bytes(4, "big") + (4).to_bytes(2, "big")
    return head + question + b"".join(record + socket.inet_aton(one) for one in addresses)
