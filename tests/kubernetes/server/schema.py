"""
How lists and maps are merged, by where they are.

Source: the markers `listType`, `listMapKey`, `mapType`, `patchStrategy` and `patchMergeKey` in staging/src/k8s.io/api/*/types.go of
kubernetes/kubernetes; what they mean: https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy.

Only what pods, workloads and their like have is here; a list that isn't is atomic, as a list without markers is.
"""

from typing import TypeAlias

# The names of the fields on the way, without items of lists.
Path: TypeAlias = tuple[str, ...]

_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")

# For server-side apply: which fields tell the items of a list apart.
_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "podIPs": ("ip",),
}
# Strategic merge knows one key, and some lists that server-side apply sees as atomic.
_MERGED_BY = {name: keys[0] for name, keys in _KEYS.items()}
_SETS = ("finalizers",)
_ATOMIC_MAPS = {
    "selector", "matchLabels", "nodeSelector", "labelSelector", "fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef",
    "scaleTargetRef", "objectReference", "roleRef", "claimRef", "targetRef", "namespaceSelector", "fieldsV1", "involvedObject",
}  # fmt: skip


def keys_of(kind: str, path: Path) -> tuple[str, ...]:
    """Return the fields that tell a list's items apart, or none for a list that is a whole."""
    last = path[-1]
    if last == "ports":
        return _ports(kind, path)
    if last == "addresses" and kind == "Node":
        return ("type",)
    if last == "conditions" and "status" not in path:
        return ()
    return _KEYS.get(last, ())


def _ports(kind: str, path: Path) -> tuple[str, ...]:
    if len(path) > 1 and path[-2] in _CONTAINERS:
        return ("containerPort", "protocol")
    return ("port", "protocol") if kind == "Service" else ()


def merge_key(kind: str, path: Path) -> str | None:
    """Return what a strategic merge tells a list's items apart by."""
    if path[-1] == "ports":
        keys = _ports(kind, path)
        return keys[0] if keys else None
    if path[-1] == "addresses" and kind == "Node":
        return "type"
    return _MERGED_BY.get(path[-1])


def is_set(path: Path) -> bool:
    return path[-1] in _SETS


def is_atomic_map(kind: str, path: Path) -> bool:
    """A selector of labels is a whole; so are a Service's and references to another object."""
    return path[-1] in _ATOMIC_MAPS and (path[-1] != "selector" or kind != "")
