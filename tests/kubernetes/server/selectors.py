"""
Label and field selectors.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors and …/field-selectors/.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from tests.kubernetes.server.kinds import Kind
from tests.kubernetes.server.objects import Object, at, labels_of
from tests.kubernetes.server.refusals import bad_request

Test: TypeAlias = Callable[[Object], bool]

_SET = re.compile(r"(?P<key>[\w./-]+)\s+(?P<op>in|notin)\s*\((?P<values>[^)]*)\)")
_EQUAL = re.compile(r"(?P<key>[\w./-]+)\s*(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)")
_BARE = re.compile(r"(?P<no>!?)\s*(?P<key>[\w./-]+)")

# Which fields each kind can be selected by, beyond its name and namespace: `selectableFields` or ToSelectableFields of each strategy.go.
_FIELDS = {
    "Pod": {
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork", "status.phase",
        "status.podIP", "status.nominatedNodeName",
    },
    "Event": {
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion",
        "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type",
    },
    "Job": {"status.successful"},
    "Namespace": {"status.phase"},
    "Node": {"spec.unschedulable"},
    "ReplicaSet": {"status.replicas"},
    "Secret": {"type"},
}  # fmt: skip


def by_labels(text: str) -> Test:
    """Read a selector as it stands in a query."""
    tests = [_label_test(part) for part in re.split(r",(?![^(]*\))", text) if part.strip()]
    return lambda obj: all(test(labels_of(obj)) for test in tests)


def _label_test(text: str) -> Callable[[Mapping[str, str]], bool]:
    part = text.strip()
    if found := _SET.fullmatch(part):
        key, values, within = found["key"], {one.strip() for one in found["values"].split(",")}, found["op"] == "in"
        # A label that isn't there is not in any set, so it passes `notin`.
        return lambda labels: (labels.get(key) in values) == within
    if found := _EQUAL.fullmatch(part):
        key, value, same = found["key"], found["value"], found["op"] != "!="
        return lambda labels: (labels.get(key) == value) == same
    if found := _BARE.fullmatch(part):
        key, there = found["key"], not found["no"]
        return lambda labels: (key in labels) == there
    raise bad_request(f"unable to parse requirement: {part}")


def matches(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Tell whether a LabelSelector picks these labels: none picks nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(one, labels) for one in selector.get("matchExpressions") or [])


def _expression(one: Object, labels: Mapping[str, str]) -> bool:
    key, values = one["key"], one.get("values") or []
    match one["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def by_fields(kind: Kind, text: str) -> Test:
    tests = [_field_test(kind, part) for part in text.split(",") if part.strip()]
    return lambda obj: all(test(obj) for test in tests)


def _field_test(kind: Kind, text: str) -> Test:
    found = re.fullmatch(r"\s*(?P<key>[\w./-]+?)\s*(?P<op>==|=|!=)\s*(?P<value>.*?)\s*", text)
    if found is None:
        raise bad_request(f"invalid selector: '{text}'; can't understand '{text}'")
    key, value, same = found["key"], found["value"], found["op"] != "!="
    known = _FIELDS.get(kind.name, set()) | {"metadata.name"} | ({"metadata.namespace"} if kind.namespaced else set())
    if key not in known:
        raise bad_request(f"field label not supported: {key}")
    path = key.split(".") if key != "source" else ["source", "component"]
    if key == "status.successful":
        path = ["status", "succeeded"]

    def said(obj: Object) -> str:
        there = at(obj, *path)
        if isinstance(there, bool):
            return str(there).lower()
        if there is None:
            return {"spec.unschedulable": "false", "spec.hostNetwork": "false", "status.replicas": "0", "status.successful": "0"}.get(
                key, ""
            )
        return str(there)

    return lambda obj: (said(obj) == value) == same
