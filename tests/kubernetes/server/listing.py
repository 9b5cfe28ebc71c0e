"""
Lists, in pieces where that is asked for, and as they were at an earlier revision.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks and #resource-versions;
staging/src/k8s.io/apiserver/pkg/storage/etcd3/errors.go for the words of 410.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass

from tests.kubernetes.server.kinds import Kind
from tests.kubernetes.server.objects import Object, name_of, namespace_of
from tests.kubernetes.server.refusals import RefusedError, bad_request, expired
from tests.kubernetes.server.selectors import Test, by_fields, by_labels
from tests.kubernetes.server.store import Store

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue "
    "parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token "
    "results in an inconsistent list - objects that were created, modified, or deleted between the time "
    "the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a list or a watch is to show."""

    kind: Kind
    namespace: str
    labels: Test
    fields: Test
    selective: bool

    def has(self, obj: Object) -> bool:
        if self.namespace and namespace_of(obj) != self.namespace:
            return False
        return self.labels(obj) and self.fields(obj)


def wanted(kind: Kind, namespace: str, query: Mapping[str, str]) -> Wanted:
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    return Wanted(kind, namespace, by_labels(labels), by_fields(kind, fields), bool(labels or fields))


def revision_in(query: Mapping[str, str]) -> int | None:
    """Return the revision that was asked for: None without one; 0 means any."""
    said = query.get("resourceVersion", "")
    if not said:
        return None
    if not said.isdigit():
        raise bad_request(f"invalid resource version: {said}")
    return int(said)


def number_in(query: Mapping[str, str], key: str) -> int:
    said = query.get(key, "")
    if said and not said.isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{said}": invalid syntax')
    return int(said or 0)


def listed(store: Store, which: Wanted, query: Mapping[str, str]) -> Object:
    """Return a list, as it is answered."""
    limit = number_in(query, "limit")
    with store.held():
        revision, after = _start(store, query)
        there = store.all_at(revision, which.kind, which.namespace)
    shown = [obj for obj in there if which.has(obj) and (namespace_of(obj), name_of(obj)) > after]
    metadata: Object = {"resourceVersion": str(revision)}
    if limit and len(shown) > limit:
        last = shown[limit - 1]
        metadata["continue"] = _token(revision, namespace_of(last), name_of(last))
        if not which.selective:
            metadata["remainingItemCount"] = len(shown) - limit
        shown = shown[:limit]
    # Items of a typed list carry neither kind nor apiVersion: they are encoded as parts of the list.
    items = [{key: value for key, value in obj.items() if key not in {"kind", "apiVersion"}} for obj in shown]
    return {"kind": f"{which.kind.name}List", "apiVersion": which.kind.api_version, "metadata": metadata, "items": items}


def _start(store: Store, query: Mapping[str, str]) -> tuple[int, tuple[str, str]]:
    """Return the revision that the list is of, and the namespace and name that it begins after."""
    asked = revision_in(query)
    if token := query.get("continue"):
        if asked:
            raise bad_request("specifying resource version is not allowed when using continue")
        revision, namespace, name = _read(token)
        if revision == -1:
            return store.revision, (namespace, name)
        if revision < store.compacted:
            raise expired(_TOO_OLD, {"continue": _token(-1, namespace, name)})
        return revision, (namespace, name)
    match = query.get("resourceVersionMatch")
    if asked and asked > store.revision:
        causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
        why = f"Timeout: Too large resource version: {asked}, current: {store.revision}"
        raise RefusedError(504, "Timeout", why, {"causes": causes, "retryAfterSeconds": 1})
    if asked and match == "Exact":
        if asked < store.compacted:
            raise expired("The resourceVersion for the provided list is too old.")
        return asked, ("", "")
    return store.revision, ("", "")


def _token(revision: int, namespace: str, name: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([revision, namespace, name]).encode()).decode()


def _read(token: str) -> tuple[int, str, str]:
    try:
        revision, namespace, name = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        raise bad_request("continue key is not valid") from None
    return int(revision), str(namespace), str(name)
