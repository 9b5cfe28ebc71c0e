"""
What the server doesn't accept: only what a test, or what is tested, may come upon.

Source: pkg/apis/{core,apps,coordination,discovery,policy}/validation/validation.go in kubernetes/kubernetes.
"""

import ipaddress
import re
from datetime import UTC, datetime

from tests.kubernetes.server.kinds import Kind
from tests.kubernetes.server.objects import Object, at, name_of
from tests.kubernetes.server.refusals import RefusedError, bad_request, invalid
from tests.kubernetes.server.selectors import matches

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_PATH_NAME = re.compile(r"[^/%]+")
_MICRO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
# What of a StatefulSet's spec may be changed: ValidateStatefulSetUpdate.
_SET_CHANGES = {
    "replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds", "revisionHistoryLimit",
}  # fmt: skip
_SET_FIXED = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', "
    "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_POD_FIXED = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
    "previously negative)"
)
# Set by binding and by admission, never by an update.
_POD_CHANGES = {"activeDeadlineSeconds", "tolerations", "schedulingGates"}

Cause = tuple[str, str, str]


def on_create(kind: Kind, obj: Object) -> None:
    """Refuse a new object that isn't valid."""
    name = name_of(obj)
    pattern = _PATH_NAME if kind.group == "rbac.authorization.k8s.io" else _NAME
    causes: list[Cause] = []
    if not pattern.fullmatch(name):
        causes.append(("FieldValueInvalid", f'Invalid value: "{name}": {_NAME_RULE}', "metadata.name"))
    causes += _common(kind, obj)
    if causes:
        raise invalid(kind, name, causes)


_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


def on_update(kind: Kind, old: Object, new: Object) -> None:
    """Refuse a change that isn't valid."""
    causes: list[Cause] = []
    for field in ("uid", "name", "namespace", "creationTimestamp"):
        if new["metadata"].get(field) != old["metadata"].get(field):
            said = new["metadata"].get(field)
            causes.append(("FieldValueInvalid", f'Invalid value: "{said}": field is immutable', f"metadata.{field}"))
    if old["metadata"].get("deletionTimestamp"):
        added = set(new["metadata"].get("finalizers") or []) - set(old["metadata"].get("finalizers") or [])
        if added:
            why = f"Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}"
            causes.append(("FieldValueForbidden", why, "metadata.finalizers"))
    causes += _common(kind, new)
    causes += _fixed(kind, old, new)
    if causes:
        raise invalid(kind, name_of(old), causes)


def _fixed(kind: Kind, old: Object, new: Object) -> list[Cause]:
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if kind.name == "StatefulSet" and any(before.get(key) != after.get(key) for key in {*before, *after} - _SET_CHANGES):
        return [("FieldValueForbidden", f"Forbidden: {_SET_FIXED}", "spec")]
    if kind.name == "Pod" and _pod_fixed(before) != _pod_fixed(after):
        return [("FieldValueForbidden", f"Forbidden: {_POD_FIXED}", "spec")]
    if kind.name in {"Deployment", "ReplicaSet", "DaemonSet"} and before.get("selector") != after.get("selector"):
        return [("FieldValueInvalid", f"Invalid value: {after.get('selector')}: field is immutable", "spec.selector")]
    if kind.name == "Job" and not before.get("suspend") and before.get("template") != after.get("template"):
        return [("FieldValueInvalid", "Invalid value: field is immutable", "spec.template")]
    if kind.name == "ControllerRevision" and old.get("data") != new.get("data"):
        return [("FieldValueInvalid", "Invalid value: field is immutable", "data")]
    if kind.name == "EndpointSlice" and old["addressType"] != new.get("addressType"):
        return [("FieldValueInvalid", f'Invalid value: "{new.get("addressType")}": field is immutable', "addressType")]
    if kind.name == "RoleBinding" and old["roleRef"] != new["roleRef"]:
        return [("FieldValueInvalid", "Invalid value: cannot change roleRef", "roleRef")]
    return []


def _pod_fixed(spec: Object) -> Object:
    left = {key: value for key, value in spec.items() if key not in _POD_CHANGES}
    for key in ("containers", "initContainers"):
        left[key] = [{name: value for name, value in one.items() if name != "image"} for one in spec.get(key) or []]
    return left


def _labels(labels: Object | None, where: str) -> list[Cause]:
    values = [str(value) for value in (labels or {}).values()]
    return [("FieldValueInvalid", f'Invalid value: "{one}": {_LABEL_RULE}', where) for one in values if not _LABEL.fullmatch(one)]


_LABEL_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex "
    "used for validation is '[-._a-zA-Z0-9]+')"
)


def _common(kind: Kind, obj: Object) -> list[Cause]:
    return _labels(obj["metadata"].get("labels"), "metadata.labels") + _of_its_kind(kind, obj)


def _of_its_kind(kind: Kind, obj: Object) -> list[Cause]:
    if kind.name in {"StatefulSet", "Deployment", "ReplicaSet", "DaemonSet"}:
        return _workload(obj)
    if kind.name in {"Pod", "Job"}:
        return _pod_spec(at(obj, "spec") if kind.name == "Pod" else at(obj, "spec", "template", "spec"), kind.name)
    if kind.name == "Lease":
        return _lease(obj)
    if kind.name in {"ConfigMap", "Secret"}:
        keys = [*(obj.get("data") or {}), *(obj.get("binaryData") or {})]
        return [("FieldValueInvalid", f'Invalid value: "{key}": {_KEY_RULE}', f"data[{key}]") for key in keys if not _KEY.fullmatch(key)]
    if kind.name == "EndpointSlice":
        return _slice(obj)
    if kind.name == "PodDisruptionBudget" and at(obj, "spec", "minAvailable") is not None and at(obj, "spec", "maxUnavailable") is not None:
        return [("FieldValueInvalid", "Invalid value: minAvailable and maxUnavailable cannot be both set", "spec")]
    return []


def _workload(obj: Object) -> list[Cause]:
    spec = obj["spec"]
    causes: list[Cause] = []
    selector, labels = spec.get("selector"), at(spec, "template", "metadata", "labels") or {}
    if not selector:
        causes.append(("FieldValueRequired", "Required value", "spec.selector"))
    elif not matches(selector, labels):
        said = "{" + ",".join(f'"{key}":"{value}"' for key, value in sorted(labels.items())) + "}"
        why = f"Invalid value: {said}: `selector` does not match template `labels`"
        causes.append(("FieldValueInvalid", why, "spec.template.metadata.labels"))
    if isinstance(spec.get("replicas"), int) and spec["replicas"] < 0:
        causes.append(("FieldValueInvalid", f"Invalid value: {spec['replicas']}: must be greater than or equal to 0", "spec.replicas"))
    partition = at(spec, "updateStrategy", "rollingUpdate", "partition")
    if partition is not None and partition < 0:
        why = f"Invalid value: {partition}: must be greater than or equal to 0"
        causes.append(("FieldValueInvalid", why, "spec.updateStrategy.rollingUpdate.partition"))
    if at(spec, "updateStrategy", "type") == "OnDelete" and at(spec, "updateStrategy", "rollingUpdate") is not None:
        why = "Invalid value: only allowed for updateStrategy 'RollingUpdate'"
        causes.append(("FieldValueInvalid", why, "spec.updateStrategy.rollingUpdate"))
    return causes + _pod_spec(at(spec, "template", "spec"), "template")


def _pod_spec(spec: Object | None, where: str) -> list[Cause]:
    field = "spec.containers" if where == "Pod" else "spec.template.spec.containers"
    if not spec or not spec.get("containers"):
        return [("FieldValueRequired", "Required value", field)]
    causes: list[Cause] = []
    for number, one in enumerate(spec["containers"]):
        causes += [("FieldValueRequired", "Required value", f"{field}[{number}].{key}") for key in ("name", "image") if not one.get(key)]
    causes += _labels(spec.get("nodeSelector"), "spec.nodeSelector" if where == "Pod" else "spec.template.spec.nodeSelector")
    policy = spec.get("restartPolicy")
    if where == "Job" and policy not in {"OnFailure", "Never"}:
        listed = 'Required value: valid values: "OnFailure", "Never"'
        causes.append(("FieldValueRequired", listed, "spec.template.spec.restartPolicy"))
    if where == "template" and policy != "Always":
        why = f'Unsupported value: "{policy}": supported values: "Always"'
        causes.append(("FieldValueNotSupported", why, "spec.template.spec.restartPolicy"))
    return causes


def _lease(obj: Object) -> list[Cause]:
    spec = obj.get("spec") or {}
    for key in ("renewTime", "acquireTime"):
        # metav1.MicroTime is read with exactly six digits: staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/micro_time.go.
        if spec.get(key) is not None and not _MICRO.fullmatch(str(spec[key])):
            why = f'parsing time "{spec[key]}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse'
            raise bad_request(f'Lease in version "v1" cannot be handled as a Lease: {why}')
    causes: list[Cause] = []
    seconds, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if seconds is not None and seconds <= 0:
        causes.append(("FieldValueInvalid", f"Invalid value: {seconds}: must be greater than 0", "spec.leaseDurationSeconds"))
    if transitions is not None and transitions < 0:
        causes.append(("FieldValueInvalid", f"Invalid value: {transitions}: must be greater than or equal to 0", "spec.leaseTransitions"))
    return causes


def _slice(obj: Object) -> list[Cause]:
    causes: list[Cause] = []
    for number, endpoint in enumerate(obj.get("endpoints") or []):
        for place, address in enumerate(endpoint.get("addresses") or []):
            if ipaddress.ip_address(address).is_loopback:
                why = f'Invalid value: "{address}": may not be in the loopback range (127.0.0.0/8, ::1/128)'
                causes.append(("FieldValueInvalid", why, f"endpoints[{number}].addresses[{place}]"))
    return causes


def times(obj: Object) -> None:
    """Write a Lease's times as the server does: in UTC, with six digits."""
    spec = obj.get("spec") or {}
    for key in ("renewTime", "acquireTime"):
        if spec.get(key) is not None:
            spec[key] = datetime.fromisoformat(spec[key]).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def labels(kind: Kind, obj: Object) -> None:
    """Refuse labels that aren't text."""
    said: Object = obj["metadata"].get("labels") or {}
    for key, value in said.items():
        if not isinstance(value, str):
            why = f"json: cannot unmarshal {type(value).__name__} into Go struct field ObjectMeta.metadata.labels of type string"
            raise RefusedError(
                400, "BadRequest", f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: {why} ({key})'
            )
