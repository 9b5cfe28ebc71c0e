"""
What is left over: dependents of what has gone, namespaces that shall go, the account that every namespace has.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/; pkg/controller/garbagecollector/garbagecollector.go,
pkg/controller/namespace/deletion and pkg/controller/serviceaccount/serviceaccounts_controller.go in kubernetes/kubernetes.
"""

from tests.kubernetes.controllers.common import MANAGER, delete, is_terminating
from tests.kubernetes.server.deleting import FOREGROUND, ORPHAN
from tests.kubernetes.server.kinds import BY_NAME, KINDS
from tests.kubernetes.server.objects import Object, name_of
from tests.kubernetes.server.resources import Resources

_NAMESPACE, _ACCOUNT = BY_NAME["Namespace"], BY_NAME["ServiceAccount"]


def garbage(resources: Resources) -> float | None:
    everything = [obj for kind in KINDS for obj in resources.store.all(kind)]
    uids = {obj["metadata"]["uid"]: obj for obj in everything}
    dependents: dict[str, list[Object]] = {}
    for obj in everything:
        references = obj["metadata"].get("ownerReferences") or []
        for reference in references:
            dependents.setdefault(reference["uid"], []).append(obj)
        if references and not any(reference["uid"] in uids for reference in references) and not is_terminating(obj):
            delete(resources, obj, "Background")
    for obj in everything:
        finalizers = obj["metadata"].get("finalizers") or []
        if is_terminating(obj) and ORPHAN in finalizers:
            for one in dependents.get(obj["metadata"]["uid"], []):
                _disown(resources, one, obj)
            _let_go(resources, obj, ORPHAN)
        elif is_terminating(obj) and FOREGROUND in finalizers:
            _delete_dependents(resources, obj, dependents.get(obj["metadata"]["uid"], []))
    _namespaces(resources)
    return None


def _delete_dependents(resources: Resources, owner: Object, dependents: list[Object]) -> None:
    """Delete them first; only those that block it keep it from going."""
    uid = owner["metadata"]["uid"]
    for one in dependents:
        if not is_terminating(one):
            delete(resources, one, "Foreground")
    blocking = [
        one for one in dependents for ref in one["metadata"]["ownerReferences"] if ref["uid"] == uid and ref.get("blockOwnerDeletion")
    ]
    if not blocking:
        _let_go(resources, owner, FOREGROUND)


def _disown(resources: Resources, obj: Object, owner: Object) -> None:
    def change(new: Object) -> None:
        left = [one for one in new["metadata"]["ownerReferences"] if one["uid"] != owner["metadata"]["uid"]]
        new["metadata"].pop("ownerReferences")
        if left:
            new["metadata"]["ownerReferences"] = left

    resources.change(BY_NAME[obj["kind"]], obj, change, MANAGER)


def _let_go(resources: Resources, obj: Object, finalizer: str) -> None:
    def change(new: Object) -> None:
        left = [one for one in new["metadata"].get("finalizers") or [] if one != finalizer]
        new["metadata"].pop("finalizers", None)
        if left:
            new["metadata"]["finalizers"] = left

    resources.change(BY_NAME[obj["kind"]], obj, change, MANAGER)


def _namespaces(resources: Resources) -> None:
    for namespace in resources.store.all(_NAMESPACE):
        name = name_of(namespace)
        if not is_terminating(namespace):
            if resources.store.get(_ACCOUNT, name, "default") is None:
                resources.create(_ACCOUNT, name, {"metadata": {"name": "default"}}, MANAGER)
            continue
        inside = [obj for kind in KINDS if kind.namespaced for obj in resources.store.all(kind, name)]
        for obj in inside:
            if not is_terminating(obj):
                delete(resources, obj, "Background")
        if not inside:
            resources.store.remove(_NAMESPACE, namespace)
