"""
A Kubernetes control plane for tests, and a kubelet that runs pods as processes of this machine.

The stand-in of tests/kubernetes/server is taken unless ROLLOUT_TEST_KUBECONFIG names a real one: a bare kube-apiserver with
controller-manager, with or without nodes and scheduler. Tests can't tell them apart but by *faults*, which only the stand-in has.

A folder whose tests want them has a conftest.py that imports `control_plane` and `kubelet` from here.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from rollout.lab.processes import wait_until
from tests.kubernetes.kubelet.api import said, settings_of
from tests.kubernetes.kubelet.node import Kubelet, node
from tests.kubernetes.server.faults import Faults
from tests.kubernetes.server.running import serving

REAL = "ROLLOUT_TEST_KUBECONFIG"


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """*kubeconfig* is the administrator's, with *namespace* as its own; *faults* is None where the control plane is a real one."""

    kubeconfig: Path
    namespace: str
    faults: Faults | None

    def api(self, kubeconfig: Path | None = None) -> client.ApiClient:
        """Return a new client of the administrator, or of whom *kubeconfig* belongs to. Retries nothing."""
        return client.ApiClient(settings_of(kubeconfig or self.kubeconfig))

    def account(self, name: str, rules: Sequence[Mapping[str, Any]]) -> Path:
        """
        Make a service account that may do what *rules* say (policy rules, as in a Role) in the namespace, and return its kubeconfig.

        A list without rules makes one that may do nothing.
        """
        with self.api() as api:
            core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
            core.create_namespaced_service_account(self.namespace, said({"metadata": {"name": name}}))
            listed = [dict(rule) for rule in rules]
            rbac.create_namespaced_role(self.namespace, said({"metadata": {"name": name}, "rules": listed}))
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
            subject = {"kind": "ServiceAccount", "name": name, "namespace": self.namespace}
            binding = said({"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
            rbac.create_namespaced_role_binding(self.namespace, binding)
            wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
            answer = core.create_namespaced_service_account_token(name, self.namespace, said(wanted))
        assert answer.status is not None
        token = answer.status.token
        settings = yaml.safe_load(self.kubeconfig.read_text())
        settings["users"] = [{"name": "test", "user": {"token": token}}]
        place = self.kubeconfig.with_name(f"kubeconfig-{name}")
        place.write_text(json.dumps(settings))
        if rules:
            wait_until(lambda: self._may(place, rules[-1]), 10, f"{name} may do what was said")
        return place

    def _may(self, kubeconfig: Path, rule: Mapping[str, Any]) -> bool:
        """Tell whether the server knows of a rule yet: it hears of new roles by a watch of its own."""
        resource, _, subresource = rule["resources"][0].partition("/")
        attributes = {
            "namespace": self.namespace,
            "group": rule["apiGroups"][0],
            "resource": resource,
            "subresource": subresource,
            "verb": rule["verbs"][0],
            "name": (rule.get("resourceNames") or [""])[0],
        }
        with self.api(kubeconfig) as api:
            review = said({"spec": {"resourceAttributes": attributes}})
            status = client.AuthorizationV1Api(api).create_self_subject_access_review(review).status
        return status is not None and bool(status.allowed)


def hand_node(namespace: str) -> str:
    """Return the name of the Node that tests of a namespace bind pods to by hand."""
    return f"hand-{namespace.rpartition('-')[2]}"


@pytest.fixture
def control_plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """Give a control plane with a namespace of this test's own."""
    with standing(tmp_path) as plane:
        yield plane


@pytest.fixture
def kubelet(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Kubelet]:
    """Give a node that takes the pods of this test's namespace. Skips, or fails where it must be possible, as hosts do."""
    with node(control_plane.kubeconfig, control_plane.namespace, tmp_path / "node") as it:
        yield it


@contextmanager
def standing(place: Path) -> Iterator[ControlPlane]:
    """Give a control plane, with what belongs to it below *place*."""
    if real := os.environ.get(REAL):
        with _namespace(Path(real), place, None) as plane:
            yield plane
        return
    with serving(place) as server, _namespace(server.kubeconfig, place, server.faults) as plane:
        yield plane


@contextmanager
def _namespace(administrator: Path, place: Path, faults: Faults | None) -> Iterator[ControlPlane]:
    name = f"rollout-test-{secrets.token_hex(4)}"
    plane = ControlPlane(_kubeconfig(administrator, place / "kubeconfig-test", name), name, faults)
    with plane.api() as api:
        core = client.CoreV1Api(api)
        core.create_namespace(said({"metadata": {"name": name}}))
        try:
            _default_account(core, name)
            yield plane
        finally:
            if faults is None:
                core.delete_namespace(name)
                with suppress(client.ApiException):
                    core.delete_node(hand_node(name))


def _default_account(core: client.CoreV1Api, namespace: str) -> None:
    """
    Make sure that pods can be made: they want the account `default`, which the controller-manager makes only where it runs the controller
    for it (https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#serviceaccount-controller).
    """

    def is_there() -> bool:
        try:
            core.read_namespaced_service_account("default", namespace)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return False
        return True

    try:
        core.create_namespaced_service_account(namespace, said({"metadata": {"name": "default"}}))
    except client.ApiException as error:
        if error.status != 409:
            raise
    wait_until(is_there, 10, "the account default is there")


def _kubeconfig(administrator: Path, place: Path, namespace: str) -> Path:
    """Copy a kubeconfig with its current context alone, bound to *namespace*; files it names are named by their whole paths."""
    theirs = yaml.safe_load(administrator.read_text())
    here = next(entry["context"] for entry in theirs["contexts"] if entry["name"] == theirs["current-context"])
    cluster = next(entry["cluster"] for entry in theirs["clusters"] if entry["name"] == here["cluster"])
    user = next(entry["user"] for entry in theirs["users"] if entry["name"] == here["user"])
    for part in (cluster, user):
        for key in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
            if key in part:
                part[key] = str((administrator.parent / part[key]).resolve())
    context = {"cluster": "test", "user": "test", "namespace": namespace}
    mine = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": context}],
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
    }
    place.write_text(json.dumps(mine))
    place.chmod(0o600)
    return place
