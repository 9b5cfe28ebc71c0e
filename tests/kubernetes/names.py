"""
The cluster's DNS, as far as headless Services go: the addresses behind a Service, and each pod of a StatefulSet by its own name.

`SERVICE.NAMESPACE.svc.cluster.local` has the addresses of all endpoints that are ready, `POD.SERVICE.NAMESPACE.svc.cluster.local` that of
one. They come from EndpointSlices, as CoreDNS has them. A name of which nothing is known is NXDOMAIN, and so is a Service without anybody.

Source: https://github.com/kubernetes/dns/blob/master/docs/specification.md#24---records-for-a-headless-service; RFC 1035, section 4.
"""

import ipaddress
import socket
import struct
import threading
from contextlib import suppress
from typing import Any

from kubernetes import client

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.kubelet.node import Kubelet

ZONE = "svc.cluster.local"
PORT = 53
_LOOK_EVERY_S = 0.2
_HEADER = struct.Struct("!6H")
_A, _IN, _NO_SUCH_NAME = 1, 1, 3
# Response and recursion available, and whether recursion was asked for is given back.
_ANSWERED, _ASKED_TO_RECURSE = 0x8080, 0x0100
# A name that was asked for, told again: a pointer to where the question has it.
_SAME_NAME = 0xC000 + _HEADER.size
# Nobody keeps it: a pod has another address each time.
_TTL_S = 0


class Names:
    """
    Tells the names of one namespace, to whoever asks over UDP: at the *address* that this machine has for the pods of *kubelet*, and at
    *port* (0: any that is free).
    """

    def __init__(self, plane: ControlPlane, kubelet: Kubelet, port: int = PORT) -> None:
        with plane.api() as api:
            found: Any = client.CoreV1Api(api).read_node(kubelet.name)
        address = next(str(one.address) for one in found.status.addresses if one.type == "InternalIP")
        self._plane = plane
        self._records: dict[str, list[str]] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, port))
        self.address, self.port = self._socket.getsockname()
        self._socket.settimeout(_LOOK_EVERY_S)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._look, self._serve)]
        for one in self._threads:
            one.start()

    def close(self) -> None:
        self._ended.set()
        for one in self._threads:
            one.join()
        self._socket.close()

    def addresses(self, name: str) -> list[str]:
        """Return what is known of a name now."""
        return self._records.get(name.lower().rstrip("."), [])

    def _look(self) -> None:
        with self._plane.api() as api:
            slices = client.DiscoveryV1Api(api)
            while not self._ended.wait(_LOOK_EVERY_S):
                # While the API server is away what was known last goes on.
                with suppress(Exception):
                    found = slices.list_namespaced_endpoint_slice(self._plane.namespace, _request_timeout=2).items
                    self._records = _records(found, f"{self._plane.namespace}.{ZONE}")

    def _serve(self) -> None:
        while not self._ended.is_set():
            # A silence, or somebody who has gone meanwhile.
            with suppress(OSError):
                asked, whom = self._socket.recvfrom(4096)
                if answer := _answer(asked, self):
                    self._socket.sendto(answer, whom)


def _records(slices: list[Any], zone: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in slices:
        service = (one.metadata.labels or {}).get("kubernetes.io/service-name", "")
        for endpoint in one.endpoints or ():
            if endpoint.conditions is not None and endpoint.conditions.ready is False:
                continue
            for name in (service, *([f"{endpoint.hostname}.{service}"] if endpoint.hostname else [])):
                found.setdefault(f"{name}.{zone}", []).extend(endpoint.addresses)
    return found


def _answer(asked: bytes, names: Names) -> bytes:
    """Answer one question; nothing for what is none."""
    try:
        number, flags, *_ = _HEADER.unpack_from(asked)
        labels, end = [], _HEADER.size
        while length := asked[end]:
            labels.append(asked[end + 1 : end + 1 + length].decode("ascii"))
            end += 1 + length
        kind, _ = struct.unpack_from("!2H", asked, end + 1)
    except (struct.error, IndexError, UnicodeDecodeError):
        return b""
    known = names.addresses(".".join(labels))
    told = known if kind == _A else []
    said = _ANSWERED | (flags & _ASKED_TO_RECURSE) | (0 if known else _NO_SUCH_NAME)
    records = [struct.pack("!3HIH", _SAME_NAME, _A, _IN, _TTL_S, 4) + ipaddress.IPv4Address(one).packed for one in told]
    return _HEADER.pack(number, said, 1, len(records), 0, 0) + asked[_HEADER.size : end + 5] + b"".join(records)
