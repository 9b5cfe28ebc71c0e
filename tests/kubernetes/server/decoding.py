"""
Whether an object is of its kind's types, as far as the fields that are told by their names.

Source: Go's encoding/json; https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/ for the types.
"""

from tests.kubernetes.server.kinds import Kind
from tests.kubernetes.server.objects import Object, Value
from tests.kubernetes.server.refusals import UndecodableError

# Fields that have one type wherever they are.
_WHOLE = {
    "replicas", "minReadySeconds", "revisionHistoryLimit", "partition", "terminationGracePeriodSeconds", "progressDeadlineSeconds",
    "parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "leaseDurationSeconds",
    "leaseTransitions", "containerPort", "periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold", "initialDelaySeconds",
    "observedGeneration", "defaultMode",
}  # fmt: skip
_TRUTHS = {"paused", "suspend", "hostNetwork", "readOnly", "optional", "publishNotReadyAddresses", "controller"}
_TEXTS = {"image", "serviceName", "nodeName", "holderIdentity", "restartPolicy", "conditionType", "mountPath", "serviceAccountName"}
_LISTS = {"containers", "initContainers", "volumes", "volumeMounts", "env", "envFrom", "command", "args", "readinessGates", "finalizers"}
_MAPS = {"metadata", "spec", "template", "labels", "annotations", "selector", "matchLabels", "nodeSelector", "strategy", "rollingUpdate"}
_TYPES: tuple[tuple[set[str], type, str], ...] = (
    (_WHOLE, int, "int32"),
    (_TRUTHS, bool, "bool"),
    (_TEXTS, str, "string"),
    (_LISTS, list, "slice"),
    (_MAPS, dict, "struct"),
)
# Under these keys is whatever their owner likes.
_FREE = {
    "data",
    "binaryData",
    "stringData",
    "labels",
    "annotations",
    "matchLabels",
    "nodeSelector",
    "managedFields",
    "fieldsV1",
    "limits",
    "requests",
}


def types(kind: Kind, obj: Object) -> None:
    """Refuse what Go couldn't read into the type of its field."""
    if kind.name not in {"ConfigMap", "Secret", "ControllerRevision"}:
        _typed(kind, obj, "")


def _typed(kind: Kind, value: Value, where: str) -> None:
    if isinstance(value, list):
        for one in value:
            _typed(kind, one, where)
    if not isinstance(value, dict):
        return
    for key, one in value.items():
        for names, sort, spoken in _TYPES:
            right = isinstance(one, sort) and (sort is not int or not isinstance(one, bool))
            if key in names and one is not None and not right and not (key == "selector" and kind.name == "PersistentVolumeClaim"):
                why = f"json: cannot unmarshal {_spoken(one)} into Go struct field {kind.name}{where}.{key} of type {spoken}"
                raise UndecodableError(kind, why)
        if key not in _FREE:
            _typed(kind, one, f"{where}.{key}")


def _spoken(value: Value) -> str:
    return {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}.get(type(value), "null")
