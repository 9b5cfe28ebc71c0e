"""
Watches.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes, #watch-bookmarks and #streaming-lists;
staging/src/k8s.io/apiserver/pkg/storage/cacher/cacher.go (too old a version is an event of the type ERROR; a bookmark before the end).
"""

import time
from collections.abc import Iterator, Mapping

from tests.kubernetes.server.listing import Wanted, number_in, revision_in
from tests.kubernetes.server.objects import Object
from tests.kubernetes.server.refusals import RefusedError, expired
from tests.kubernetes.server.store import Change, Store

# A server ends a watch without a timeout after half an hour to an hour: --min-request-timeout.
_LASTS_S = 1800
_BOOKMARK_S = 60.0
_BOOKMARK_BEFORE_END_S = 2.0


def watched(store: Store, which: Wanted, query: Mapping[str, str], ended: "Ended") -> Iterator[Object | None]:
    """Return events; None, now and then, while there are none. They end in time, and when *ended* says so. Raises at once."""
    lasts_s = number_in(query, "timeoutSeconds") or _LASTS_S
    try:
        asked = revision_in(query)
    except RefusedError as error:
        # An InvalidError of the storage, which the watch cache hands on and nobody translates (Watch in cacher.go).
        raise RefusedError(500, "", error.message) from error
    return _watched(store, which, query, ended, (asked, time.monotonic() + lasts_s))


def _watched(
    store: Store, which: Wanted, query: Mapping[str, str], ended: "Ended", bounds: tuple[int | None, float]
) -> Iterator[Object | None]:
    asked, until = bounds
    bookmarks = query.get("allowWatchBookmarks") in {"true", "1"}
    initial = query.get("sendInitialEvents")
    with store.held():
        refused: Object | None = None
        seen, begun = 0, list[Object]()
        if asked and asked < store.watchable and initial != "true":
            refused = expired(f"too old resource version: {asked} ({store.watchable})").status()
        else:
            from_now = not asked or initial == "true"
            seen = store.revision if from_now else asked or 0
            begun = [obj for obj in store.all(which.kind, which.namespace) if which.has(obj)] if from_now and initial != "false" else []
    if refused:
        yield {"type": "ERROR", "object": refused}
        return
    for obj in begun:
        yield {"type": "ADDED", "object": obj}
    if initial == "true" and bookmarks:
        yield _bookmark(which, seen, {"annotations": {"k8s.io/initial-events-end": "true"}})
    yield from _followed(store, which, seen, until, ended, bookmarks=bookmarks)


class Ended:
    """Whether all watches shall end: a count that is compared with what it was."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.count = 0

    def now(self) -> None:
        with self._store.changed:
            self.count += 1
            self._store.changed.notify_all()


def _followed(store: Store, which: Wanted, seen: int, until: float, ended: Ended, *, bookmarks: bool) -> Iterator[Object | None]:
    at_first = ended.count
    marked = time.monotonic()
    last_mark_sent = False
    while ended.count == at_first and (left := until - time.monotonic()) > 0:
        mark = bookmarks and (time.monotonic() - marked > _BOOKMARK_S or (left < _BOOKMARK_BEFORE_END_S and not last_mark_sent))
        with store.changed:
            if store.revision == seen and not mark and ended.count == at_first:
                store.changed.wait(min(left, 0.5))
            lost = seen < store.compacted and store.revision != seen
            new = _since(store, seen)
            now = store.revision
        if lost:
            yield {"type": "ERROR", "object": expired(f"too old resource version: {seen} ({now})").status()}
            return
        told = [event for change in new if (event := _event(which, change)) is not None]
        yield from told
        seen = now
        if mark:
            marked = time.monotonic()
            last_mark_sent = left < _BOOKMARK_BEFORE_END_S
            yield _bookmark(which, seen, {})
        elif not told:
            yield None


def _since(store: Store, seen: int) -> list[Change]:
    new: list[Change] = []
    for change in reversed(store.history):
        if change.revision <= seen:
            break
        new.append(change)
    return new[::-1]


def _event(which: Wanted, change: Change) -> Object | None:
    """Say what a change is to one who sees only some objects: one that leaves those is gone, one that joins them is new."""
    if change.kind is not which.kind:
        return None
    before = change.old is not None and which.has(change.old)
    if change.new is not None and which.has(change.new):
        return {"type": "MODIFIED" if before else "ADDED", "object": change.new}
    if not before:
        return None
    assert change.old is not None
    last = change.last or change.old | {"metadata": change.old["metadata"] | {"resourceVersion": str(change.revision)}}
    return {"type": "DELETED", "object": last}


def _bookmark(which: Wanted, revision: int, metadata: Object) -> Object:
    said = {"resourceVersion": str(revision), "creationTimestamp": None} | metadata
    return {"type": "BOOKMARK", "object": {"kind": which.kind.name, "apiVersion": which.kind.api_version, "metadata": said}}
