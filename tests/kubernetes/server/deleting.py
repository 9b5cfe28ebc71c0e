"""
Deleting: with grace, preconditions and finalizers.

Source: staging/src/k8s.io/apiserver/pkg/registry/rest/delete.go (BeforeDelete) and generic/registry/store.go (Delete) in
kubernetes/kubernetes; CheckGracefulDelete of pkg/registry/core/pod/strategy.go;
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.kubernetes.server.kinds import Kind
from tests.kubernetes.server.objects import Object, at, copied, name_of, parsed, stamp
from tests.kubernetes.server.refusals import RefusedError, bad_request
from tests.kubernetes.server.resources import Resources

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


@dataclass(frozen=True, slots=True)
class Options:
    """DeleteOptions, from the body of a request or from its query."""

    grace_s: int | None = None
    uid: str | None = None
    version: str | None = None
    propagation: str | None = None
    dry_run: bool = False


def delete(resources: Resources, kind: Kind, namespace: str, name: str, options: Options) -> tuple[Object, bool]:
    """Delete an object, or begin to; return it as it is then, and whether it has gone."""
    with resources.store.held():
        old = resources.get(kind, namespace, name)
        _check(kind, old, options)
        if options.propagation not in {None, "Background", "Foreground", "Orphan"}:
            raise bad_request(f"invalid propagationPolicy: {options.propagation}")
        new = copied(old)
        metadata = new["metadata"]
        pending = _with_grace(kind, new, options)
        _with_finalizer(kind, metadata, options)
        if pending is None and metadata.get("finalizers") and not metadata.get("deletionTimestamp"):
            metadata["deletionTimestamp"], metadata["deletionGracePeriodSeconds"] = stamp(datetime.now(UTC)), 0
            if "generation" in metadata:
                metadata["generation"] += 1
        if kind.name == "Namespace" and not metadata.get("deletionTimestamp"):
            # Its own finalizer is in the spec: https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/.
            metadata["deletionTimestamp"] = stamp(datetime.now(UTC))
        stays = pending is not None or bool(metadata.get("finalizers")) or kind.name == "Namespace"
        if options.dry_run:
            return new, not stays
        if stays:
            if kind.name == "Namespace":
                new["status"]["phase"] = "Terminating"
            return (new if new == old else resources.store.write(kind, new)), False
        return resources.store.remove(kind, old), True


def _check(kind: Kind, old: Object, options: Options) -> None:
    metadata = old["metadata"]
    why = ""
    if options.uid is not None and options.uid != metadata["uid"]:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({metadata['uid']}). "
            "The object might have been deleted and then recreated"
        )
    elif options.version is not None and options.version != metadata["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({options.version}) does not match the ResourceVersion in record "
            f"({metadata['resourceVersion']}). The object might have been modified"
        )
    if why:
        # Here it is the kind that is named, not the resource.
        details = {"name": name_of(old), "kind": kind.name} | ({"group": kind.group} if kind.group else {})
        whose = f"{kind.name}.{kind.group}" if kind.group else kind.name
        raise RefusedError(409, "Conflict", f'Operation cannot be fulfilled on {whose} "{name_of(old)}": {why}', details)


def _with_grace(kind: Kind, pod: Object, options: Options) -> int | None:
    """Let a pod end in time; return how many seconds it has, or None where it goes at once."""
    if kind.name != "Pod":
        return None
    metadata, asked = pod["metadata"], options.grace_s
    if asked is not None and asked < 0:
        asked = 1
    if metadata.get("deletionTimestamp"):
        left = int(metadata.get("deletionGracePeriodSeconds") or 0)
        if left == 0:
            return None
        if asked is None or asked >= left:
            return left
        began = parsed(metadata["deletionTimestamp"]) - timedelta(seconds=left)
        metadata["deletionTimestamp"] = stamp(began + timedelta(seconds=asked))
        metadata["deletionGracePeriodSeconds"] = asked
        return asked or None
    grace_s = asked if asked is not None else int(at(pod, "spec", "terminationGracePeriodSeconds") or 0)
    # A pod that is nowhere, or has ended, has nothing to end.
    if not pod["spec"].get("nodeName") or at(pod, "status", "phase") in {"Succeeded", "Failed"}:
        grace_s = 0
    metadata["deletionTimestamp"] = stamp(datetime.now(UTC) + timedelta(seconds=grace_s))
    metadata["deletionGracePeriodSeconds"] = grace_s
    if "generation" in metadata:
        metadata["generation"] += 1
    return grace_s or None


def _with_finalizer(kind: Kind, metadata: Object, options: Options) -> None:
    """
    Say by a finalizer what shall become of the dependents; the garbage collector takes it away.

    Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/#cascading-deletion.
    """
    if kind.name in {"Pod", "Namespace"}:
        return
    wanted = options.propagation or ("Orphan" if kind.orphans else "Background")
    finalizers = [one for one in metadata.get("finalizers") or [] if one not in {FOREGROUND, ORPHAN} or options.propagation is None]
    more = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(wanted)
    if more and more not in finalizers:
        finalizers.append(more)
    metadata.pop("finalizers", None)
    if finalizers:
        metadata["finalizers"] = finalizers
