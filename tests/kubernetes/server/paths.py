"""
What a path of the API means.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris.
"""

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.kubernetes.server.kinds import BY_PLURAL, KINDS, Kind
from tests.kubernetes.server.objects import Object
from tests.kubernetes.server.refusals import no_such_path

# Subresources that are there besides `status` and `scale`, and their verbs of HTTP.
_POD_SUBRESOURCES = {"eviction", "binding", "log", "portforward"}
# Only asked, never kept.
REVIEWS = {
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    ("authorization.k8s.io", "v1", "selfsubjectrulesreviews"): "SelfSubjectRulesReview",
}


@dataclass(frozen=True, slots=True)
class Place:
    """One object, or with an empty *name* all of a kind in a namespace, or with an empty *namespace* everywhere."""

    kind: Kind
    namespace: str
    name: str
    subresource: str


@dataclass(frozen=True, slots=True)
class Asked:
    parts: tuple[str, ...]
    query: dict[str, str]


def review(parts: tuple[str, ...]) -> str:
    """Return the kind of what is only asked; "" of all else."""
    return next((kind for place, kind in REVIEWS.items() if ("apis", *place) == parts), "")


def read(target: str) -> Asked:
    split = urlsplit(target)
    parts = tuple(unquote(part) for part in split.path.split("/") if part)
    return Asked(parts, dict(parse_qsl(split.query, keep_blank_values=True)))


def place(parts: tuple[str, ...]) -> Place:
    """Find the object, or the objects, that a path is of; raises 404."""
    if parts[:2] == ("api", "v1"):
        group, version, rest = "", "v1", parts[2:]
    elif parts[:1] == ("apis",) and len(parts) > 2:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise no_such_path()
    namespace = ""
    if rest[:1] == ("namespaces",) and len(rest) > 2 and rest[2] not in {"status", "finalize"}:
        namespace, rest = rest[1], rest[2:]
    kind = BY_PLURAL.get((group, version, rest[0] if rest else ""))
    if kind is None or len(rest) > 3 or (namespace and not kind.namespaced):
        raise no_such_path()
    name, subresource = (*rest[1:], "", "")[:2]
    if subresource and not _has(kind, subresource):
        raise no_such_path()
    return Place(kind, namespace, name, subresource)


def _has(kind: Kind, subresource: str) -> bool:
    if kind.name == "Pod" and subresource in _POD_SUBRESOURCES:
        return True
    if kind.name == "ServiceAccount":
        return subresource == "token"
    return (subresource == "status" and kind.status) or (subresource == "scale" and kind.scale)


def discovered(parts: tuple[str, ...]) -> Object | None:
    """Return what the discovery documents say: which groups there are, and which resources."""
    if parts == ("version",):
        build = dict.fromkeys(("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler"), "")
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64", **build}
    if parts == ("api",):
        return {"kind": "APIVersions", "versions": ["v1"]}
    groups = sorted({(kind.group, kind.version) for kind in KINDS if kind.group} | {key[:2] for key in REVIEWS})
    if parts == ("apis",):
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(group, version) for group, version in groups]}
    if parts == ("api", "v1"):
        return _resources("", "v1")
    if len(parts) == 2 and parts[0] == "apis":
        return next((_group(group, version) for group, version in groups if group == parts[1]), None)
    if len(parts) == 3 and parts[0] == "apis" and (parts[1], parts[2]) in groups:
        return _resources(parts[1], parts[2])
    return None


def _group(group: str, version: str) -> Object:
    one = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [one], "preferredVersion": one}


def _resources(group: str, version: str) -> Object:
    verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    listed: list[Object] = []
    for kind in KINDS:
        if (kind.group, kind.version) == (group, version):
            one = {"singularName": kind.name.lower(), "namespaced": kind.namespaced, "kind": kind.name}
            listed.append({"name": kind.plural, **one, "verbs": verbs})
            listed += [{"name": f"{kind.plural}/status", **one, "verbs": ["get", "patch", "update"]}] if kind.status else []
    said = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": said, "resources": listed}
