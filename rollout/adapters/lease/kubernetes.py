"""
The lease as a Lease of coordination.k8s.io/v1: what others read of it is in its fields, all that we need in an annotation of ours.

Whether it has run out is decided by the API server's clock, which every answer brings along, and it is compared and set by its
resourceVersion. Of a holder on this machine it is seen whether the process is still there.
Source: https://kubernetes.io/docs/concepts/architecture/leases/
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from rollout.adapters.kubernetes.access import ClusterSettings, read_settings
from rollout.adapters.kubernetes.cluster import ConflictError, Object
from rollout.adapters.kubernetes.grants import not_granted
from rollout.adapters.kubernetes.kinds import LEASES
from rollout.adapters.kubernetes.looking import looking
from rollout.adapters.kubernetes.objects import PREFIX, annotation
from rollout.adapters.lease.asking import AgentLease
from rollout.agent.lease import Answer, Content, acquired, answered, released, renewed, understood
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.inventory import Inventory
from rollout.ports.privileges import Grant

WHERE = "lease_driver"
CONTENT = f"{PREFIX}/lease"
TRIES_MAX = 10
_NOT_PLAIN = re.compile(r"[^a-z0-9.-]+")


class LeaseSettings(ClusterSettings):
    """*ttl_s*: how long it is valid without being renewed, in seconds. For the others see access.ClusterSettings."""

    ttl_s: float = Field(default=30.0, ge=1)


def build(settings: Mapping[str, object], inventory: Inventory) -> "KubernetesLease":
    """Open the driver; nothing is connected yet."""
    return KubernetesLease(read_settings(LeaseSettings, settings, inventory, WHERE), inventory.homeserver)


class KubernetesLease(AgentLease):
    """See ports.lease."""

    def __init__(self, settings: LeaseSettings, homeserver: str) -> None:
        super().__init__(homeserver, settings.ttl_s)
        self._looking = looking(settings)
        self._cluster = self._looking.cluster
        self._namespace = settings.namespace
        self._name = "rollout-" + _NOT_PLAIN.sub("-", homeserver.lower()).strip("-.")

    @property
    def where(self) -> str:
        """See AgentLease."""
        return f"Lease {self._name} in {self._cluster.where}"

    def ask(self, order: Mapping[str, Any], timeout_s: float) -> Answer:
        """See AgentLease: the same answers as the agent's file gives."""
        match order["do"]:
            case "acquire":
                return self._set(
                    lambda before, now_s: acquired(before, now_s, order["wanted"], above=order["above"], take_over=order["take_over"]),
                    timeout_s,
                )
            case "renew":
                return self._set(lambda before, now_s: renewed(before, now_s, order["mine"]), timeout_s)
            case "release":
                return self._set(lambda before, _: released(before, order["token"]), timeout_s)
            case _:
                content, _ = self._read(timeout_s)
                return answered(content, self._cluster.now_s())

    def grants(self) -> tuple[Grant, ...]:
        """See ports.privileges."""
        group = "coordination.k8s.io"
        return (
            Grant(self._namespace, group, "leases", ("create",)),
            Grant(self._namespace, group, "leases", ("get", "update"), (self._name,)),
        )

    def not_granted(self, timeout_s: float, *, thorough: bool) -> tuple[str, ...]:
        """See ports.privileges."""
        return not_granted(self._looking, self.grants(), timeout_s, thorough=thorough)

    def _set(self, change: Callable[[Content | None, float], Content | None], timeout_s: float) -> Answer:
        """Compare and set: *change* returns what shall be there, or None if what is there stays, which is refused then."""
        for _ in range(TRIES_MAX):
            before, found = self._read(timeout_s)
            now_s = self._cluster.now_s()
            wanted = change(before, now_s)
            if wanted is None:
                return answered(before, now_s, refused=True)
            try:
                self._write(found, wanted, timeout_s)
            except ConflictError:
                continue
            except OutcomeUnknownError as error:
                # Whether it is ours now is told by looking; what isn't known to have been set is not held.
                if self._read(timeout_s)[0] != wanted:
                    raise TransientDriverError("the lease could not be set", where=self.where, why=str(error)) from error
            return answered(wanted, now_s)
        raise TransientDriverError("others write the lease all the time", where=self.where)

    def _read(self, timeout_s: float) -> tuple[Content | None, Object | None]:
        found = self._cluster.get(LEASES, self._name, timeout_s)
        if found is None:
            return None, None
        try:
            return understood(json.loads(annotation(found, CONTENT) or "")), found
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            remedy = "see to it that nobody is rolling this homeserver, then delete it: the ledger knows the last token too"
            raise PermanentDriverError("it is no lease of ours", where=self.where, why=type(error).__name__, remedy=remedy) from error

    def _write(self, found: Object | None, content: Content, timeout_s: float) -> None:
        spec = {
            "holderIdentity": f"{content['holder']} on {content['host']} (process {content['pid']})" if content["held"] else None,
            "leaseDurationSeconds": max(1, round(content["ttl_s"])),
            "acquireTime": _moment(content["since_s"]),
            "renewTime": _moment(content["renewed_at_s"]),
            "leaseTransitions": content["token"],
        }
        body = found or {"metadata": {"name": self._name}}
        annotations = {**(body["metadata"].get("annotations") or {}), CONTENT: json.dumps(content)}
        body = {**body, "metadata": {**body["metadata"], "annotations": annotations}, "spec": spec}
        if found is None:
            self._cluster.create(LEASES, body, timeout_s)
        else:
            self._cluster.replace(LEASES, body, timeout_s)


def _moment(at_s: float) -> str:
    """Write a MicroTime."""
    return datetime.fromtimestamp(at_s, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
