"""
Creating, changing and deleting objects: what both the server's callers and its controllers do.

Source, unless said elsewhere: staging/src/k8s.io/apiserver/pkg/registry/generic/registry/store.go and
endpoints/handlers/{create,update,patch}.go in kubernetes/kubernetes; https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.kubernetes.server import decoding, defaults, pruning, validation
from tests.kubernetes.server.apply import Manager, after_update, applied
from tests.kubernetes.server.kinds import BY_NAME, Kind
from tests.kubernetes.server.objects import Object, Value, at, copied, name_of, namespace_of, now
from tests.kubernetes.server.patching import APPLY, patched
from tests.kubernetes.server.refusals import (
    RefusedError,
    UndecodableError,
    bad_request,
    conflict,
    exists,
    forbidden,
    invalid,
    not_found,
    stale,
)
from tests.kubernetes.server.store import Store

# What generateName draws from, so that no word comes out: staging/src/k8s.io/apimachinery/pkg/util/rand/rand.go.
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes, as managedFields name it, and whether it shall only be tried."""

    manager: str
    dry_run: bool = False
    subresource: str = ""
    force: bool = False
    strict: bool = False
    warnings: list[str] = field(default_factory=list)


def letters(count: int = 5) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(count))


class Resources:
    """All objects, with the rules for writing them. Everything raises RefusedError."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # What went wrong in the stand-in itself: running.py.
        self.failures: list[str] = []

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        found = self.store.get(kind, namespace, name)
        if found is None:
            raise not_found(kind, name)
        return found

    def create(self, kind: Kind, namespace: str, said: Object, by: Writer) -> Object:
        """Make a new object out of what was said, which is copied."""
        obj = copied(said)
        metadata = obj["metadata"] = obj.get("metadata") or {}
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.name
        self._place(kind, namespace, metadata)
        _named(kind, metadata)
        if kind.status:
            obj.pop("status", None)
        with self.store.held():
            self._admit(kind, namespace, name_of(obj))
            if self.store.get(kind, namespace, name_of(obj)) is not None:
                raise exists(kind, name_of(obj))
            metadata["uid"] = str(uuid.uuid4())
            metadata["creationTimestamp"] = now()
            if kind.generation:
                metadata["generation"] = 1
            if (status := defaults.starting_status(kind.name)) is not None:
                obj["status"] = status
            _checked(kind, obj, by)
            if not metadata.get("managedFields"):
                metadata.pop("managedFields", None)
                metadata["managedFields"] = after_update(kind, None, obj, Manager(by.manager, applies=False))
            return obj if by.dry_run else self.store.write(kind, obj)

    def _place(self, kind: Kind, namespace: str, metadata: Object) -> None:
        if not kind.namespaced:
            metadata.pop("namespace", None)
        elif metadata.setdefault("namespace", namespace) != namespace:
            why = "the namespace of the provided object does not match the namespace sent on the request"
            raise bad_request(why)

    def _admit(self, kind: Kind, namespace: str, name: str) -> None:
        """Admission: NamespaceLifecycle and ServiceAccount."""
        if not kind.namespaced:
            return
        within = BY_NAME["Namespace"]
        found = self.store.get(within, "", namespace)
        if found is None:
            raise not_found(within, namespace)
        if at(found, "status", "phase") == "Terminating":
            raise forbidden(kind, name, f"unable to create new content in namespace {namespace} because it is being terminated")
        if kind.name == "Pod" and self.store.get(BY_NAME["ServiceAccount"], namespace, "default") is None:
            why = f'error looking up service account {namespace}/default: serviceaccount "default" not found'
            raise forbidden(kind, name, why)

    def replace(self, kind: Kind, namespace: str, name: str, said: Object, by: Writer) -> tuple[Object, bool]:
        """Do a PUT; return the object, and whether it is new."""
        told = at(said, "metadata", "name")
        if told != name:
            raise bad_request(f"the name of the object ({told}) does not match the name on the URL ({name})")
        with self.store.held():
            old = self.store.get(kind, namespace, name)
            if old is None:
                if kind.created_by_put and not by.subresource:
                    return self.create(kind, namespace, said, by), True
                raise not_found(kind, name)
            wanted = at(said, "metadata", "uid")
            if wanted and wanted != old["metadata"]["uid"]:
                why = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {old['metadata']['uid']}"
                raise conflict(kind, name, why)
            if not at(said, "metadata", "resourceVersion") and not kind.unconditional:
                why = "Invalid value: 0: must be specified for an update"
                raise invalid(kind, name, [("FieldValueInvalid", why, "metadata.resourceVersion")])
            new = copied(said)
            new["apiVersion"], new["kind"] = kind.api_version, kind.name
            return self._written(kind, old, new, by), False

    def patch(self, kind: Kind, namespace: str, name: str, how: str, patch: Value, by: Writer) -> tuple[Object, bool]:
        """Do a PATCH; return the object, and whether it is new, as it can be after an apply."""
        with self.store.held():
            old = self.store.get(kind, namespace, name)
            if how == APPLY:
                return self._applied(kind, (namespace, name), old, patch, by)
            if old is None:
                raise not_found(kind, name)
            try:
                return self._written(kind, old, patched(kind.name, copied(old), how, patch), by), False
            except UndecodableError as error:
                # Of a patch it is what comes of it that can't be read: endpoints/handlers/patch.go.
                why = f"Invalid value: {error.message}"
                raise RefusedError(422, "Invalid", f' "" is invalid: patch: {why}', _patch_cause(why)) from None

    def _applied(self, kind: Kind, where: tuple[str, str], old: Object | None, said: Value, by: Writer) -> tuple[Object, bool]:
        if not by.manager:
            why = "metadata.fieldManager: Required value: is required for apply patch"
            raise RefusedError(422, "Invalid", f'PatchOptions.meta.k8s.io "" is invalid: {why}')
        namespace, name = where
        config = _configuration(kind, namespace, name, said)
        metadata = config["metadata"]
        version = metadata.pop("resourceVersion", None)
        if old is None:
            if metadata.get("uid"):
                why = f"uid mismatch: the provided object specified uid {metadata['uid']}, and no existing object was found"
                raise conflict(kind, name, why)
            if by.subresource:
                raise not_found(kind, name)
        elif version not in {None, "", old["metadata"]["resourceVersion"]}:
            raise stale(kind, name)
        writer = Manager(by.manager, applies=True, subresource=by.subresource)
        new = applied(kind, old, _reached(kind, config, by), writer, force=by.force)
        if old is None:
            return self.create(kind, namespace, new, by), True
        return self._written(kind, old, new, by, applies=True), False

    def _written(self, kind: Kind, old: Object, new: Object, by: Writer, *, applies: bool = False) -> Object:
        """Put a new state of an object in place of an old one, once it is seen to be allowed. *new* is handed over."""
        was, metadata = old["metadata"], new["metadata"]
        if metadata.get("resourceVersion") not in {None, "", was["resourceVersion"]}:
            raise stale(kind, name_of(old))
        _kept(was, metadata)
        _untouched(kind, old, new, by.subresource)
        validation.labels(kind, new)
        _filled(kind, new, by)
        if by.subresource != "binding":
            validation.on_update(kind, old, new)
        validation.times(new)
        if _counts(kind, old, new):
            metadata["generation"] = was.get("generation", 0) + 1
        cleared = not applies and metadata.get("managedFields") == []
        if not applies:
            metadata["managedFields"] = after_update(kind, old, new, Manager(by.manager, applies=False, subresource=by.subresource))
        if _same(old, new) and not cleared and (not applies or _shares(old) == _shares(new)):
            return old
        if by.dry_run:
            return new
        if was.get("deletionTimestamp") and not metadata.get("finalizers") and not was.get("deletionGracePeriodSeconds"):
            # The last finalizer is gone: https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/.
            return self.store.remove(kind, new)
        return self.store.write(kind, new)

    def change(self, kind: Kind, obj: Object, change: Callable[[Object], None], by: Writer) -> Object | None:
        """Change an object as it is now, unless it has gone or isn't the same one any more: for controllers."""
        with self.store.held():
            there = self.store.get(kind, namespace_of(obj), name_of(obj))
            if there is None or there["metadata"]["uid"] != obj["metadata"]["uid"]:
                return None
            new = copied(there)
            change(new)
            return self._written(kind, there, new, by)

    def set_status(self, kind: Kind, obj: Object, status: Object, manager: str) -> Object | None:
        """Give an object another status, unless it has gone: for controllers."""

        def change(new: Object) -> None:
            new["status"] = copied(status)

        return self.change(kind, obj, change, Writer(manager, subresource="status"))

    def bind(self, namespace: str, name: str, node: str, by: Writer) -> None:
        """
        Say on which node a pod runs, once.

        Source: BindingREST in pkg/registry/core/pod/storage/storage.go.
        """
        kind = BY_NAME["Pod"]
        with self.store.held():
            pod = self.get(kind, namespace, name)
            if pod["metadata"].get("deletionTimestamp"):
                raise conflict(replace(kind, plural="pods/binding"), name, f"pod {name} is being deleted, cannot be assigned to a host")
            if bound := pod["spec"].get("nodeName"):
                why = f'pod {name} is already assigned to node "{bound}"'
                raise conflict(replace(kind, plural="pods/binding"), name, why)
            new = copied(pod)
            new["spec"]["nodeName"] = node
            others = [one for one in at(new, "status", "conditions") or [] if one["type"] != "PodScheduled"]
            scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now()}
            new["status"]["conditions"] = [*others, scheduled]
            self._written(kind, pod, new, replace(by, subresource="binding"))


def _configuration(kind: Kind, namespace: str, name: str, said: Value) -> Object:
    """Return what is to be applied, once it is seen to be an object of that kind and name."""
    config: Object = copied(said)
    if not isinstance(said, dict) or config.get("kind") != kind.name or config.get("apiVersion") != kind.api_version:
        raise bad_request(f"invalid object type: expected {kind.api_version} {kind.name}")
    metadata = config.setdefault("metadata", {})
    if metadata.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    if unknown := pruning.pruned(kind, config):
        why = f"failed to create typed patch object ({namespace}/{name}; {kind.api_version}, Kind={kind.name})"
        raise RefusedError(500, "", f"{why}: .{unknown[0]}: field not declared in schema")
    if metadata.setdefault("name", name) != name:
        raise bad_request(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
    return config


def _patch_cause(why: str) -> Object:
    return {"causes": [{"reason": "FieldValueInvalid", "message": why, "field": "patch"}]}


def _named(kind: Kind, metadata: Object) -> None:
    """Give a new object a name if it has none, and take away what only the server says."""
    if metadata.get("resourceVersion"):
        raise RefusedError(500, "InternalError", "resourceVersion should not be set on objects to be created")
    if not metadata.get("name"):
        if not metadata.get("generateName"):
            why = "Required value: name or generateName is required"
            raise invalid(kind, "", [("FieldValueRequired", why, "metadata.name")])
        metadata["name"] = metadata["generateName"] + letters()
    for key in ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"):
        metadata.pop(key, None)


def _checked(kind: Kind, obj: Object, by: Writer) -> None:
    """Fill in and check a new object."""
    validation.labels(kind, obj)
    _filled(kind, obj, by)
    if kind.name == "Job":
        defaults.own_selector(obj)
    validation.on_create(kind, obj)
    validation.times(obj)


def _kept(was: Object, metadata: Object) -> None:
    """Keep what a writer may leave out, and what only the server says."""
    for key in ("uid", "name", "namespace", "creationTimestamp"):
        if key in was and not metadata.get(key):
            metadata[key] = was[key]
    for key in ("generation", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"):
        metadata.pop(key, None)
        if key in was:
            metadata[key] = was[key]


def _reached(kind: Kind, config: Object, by: Writer) -> Object:
    """Leave out of an applied configuration what the endpoint resets: the status, or all but it."""
    if not kind.status:
        return config
    if by.subresource == "status":
        return {key: value for key, value in config.items() if key != "spec"}
    return {key: value for key, value in config.items() if key != "status"}


def _filled(kind: Kind, obj: Object, by: Writer) -> None:
    """Leave out what isn't known, refuse what isn't of its type, and fill in the defaults."""
    unknown = [f'unknown field "{one}"' for one in pruning.pruned(kind, obj)]
    if unknown and by.strict:
        why = f"strict decoding error: {', '.join(unknown)}"
        raise UndecodableError(kind, why)
    by.warnings.extend(unknown)
    decoding.types(kind, obj)
    try:
        defaults.fill(obj)
    except (AttributeError, KeyError, TypeError) as error:
        # Go refuses to decode what is of another type than its field.
        raise bad_request(f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: {error}') from None


def _untouched(kind: Kind, old: Object, new: Object, subresource: str) -> None:
    """Put back what an endpoint doesn't change: the status, or all but the status; a pod's node but by binding."""
    if subresource == "status":
        for key in [key for key in new if key not in {"apiVersion", "kind", "metadata", "status"}]:
            del new[key]
        new |= {key: value for key, value in old.items() if key not in {"apiVersion", "kind", "metadata", "status"}}
        for key in ("ownerReferences", "finalizers"):
            new["metadata"].pop(key, None)
            if key in old["metadata"]:
                new["metadata"][key] = old["metadata"][key]
    elif kind.status and subresource != "binding":
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    if kind.name == "Service" and "clusterIP" in (old.get("spec") or {}):
        for key in ("clusterIP", "clusterIPs"):
            new["spec"].setdefault(key, old["spec"][key])


def _counts(kind: Kind, old: Object, new: Object) -> bool:
    """Tell whether a change is one of the generation: of the spec, and of a Deployment's annotations (its strategy.go)."""
    if not kind.generation:
        return False
    if kind.name == "Deployment" and old["metadata"].get("annotations") != new["metadata"].get("annotations"):
        return True
    outside = {"apiVersion", "kind", "metadata", "status"}
    return {key: one for key, one in old.items() if key not in outside} != {key: one for key, one in new.items() if key not in outside}


def _same(old: Object, new: Object) -> bool:
    """Tell whether nothing but who owns it differs: then nothing is written, and the resourceVersion stays."""

    def plain(obj: Object) -> Object:
        return obj | {"metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}

    return plain(old) == plain(new)


def _shares(obj: Object) -> list[Object]:
    return [{key: value for key, value in one.items() if key != "time"} for one in at(obj, "metadata", "managedFields") or []]
