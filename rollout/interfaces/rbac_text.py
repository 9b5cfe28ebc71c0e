"""What an account has to be granted in a cluster, as manifests for `kubectl apply -f -`."""

import json
from collections.abc import Sequence
from itertools import groupby

from rollout.ports.privileges import Grant


def rbac_text(grants: Sequence[Grant], account: str) -> str:
    """Write ServiceAccount, Role and RoleBinding for each namespace: these verbs, on objects of these names."""
    ordered = sorted(grants, key=lambda one: one.namespace)
    return "---\n".join(_of_namespace(name, list(its), account) for name, its in groupby(ordered, key=lambda one: one.namespace))


def _of_namespace(namespace: str, grants: Sequence[Grant], account: str) -> str:
    # JSON is YAML, and quotes whatever has to be quoted.
    head = f"# What rollout does in namespace {namespace}, as ServiceAccount {account}: these verbs, and no other.\n"
    where = f"metadata: {{name: {json.dumps(account)}, namespace: {json.dumps(namespace)}}}\n"
    rules = "".join(_rule(one) for one in grants)
    return (
        f"{head}apiVersion: v1\nkind: ServiceAccount\n{where}---\n"
        f"apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n{where}rules:\n{rules}---\n"
        f"apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n{where}"
        f"roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {json.dumps(account)}}}\n"
        f"subjects:\n  - {{kind: ServiceAccount, name: {json.dumps(account)}, namespace: {json.dumps(namespace)}}}\n"
    )


def _rule(one: Grant) -> str:
    names = f", resourceNames: {json.dumps(one.names)}" if one.names else ""
    return f"  - {{apiGroups: [{json.dumps(one.group)}], resources: [{json.dumps(one.resource)}]{names}, verbs: {json.dumps(one.verbs)}}}\n"
