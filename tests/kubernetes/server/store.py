"""
What the stand-in knows: objects, one count of revisions for all of them, and what changed at which revision.

As in etcd, every write gets a revision of its own, a list can be read as it was at an earlier one, and history older than `compacted` is
gone (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.kubernetes.server.kinds import Kind
from tests.kubernetes.server.objects import Object, name_of, namespace_of

# Where an etcd that has served a while is; nobody should rely on small numbers.
FIRST_REVISION = 1000


@dataclass(frozen=True, slots=True)
class Change:
    """*old* is None for a new object, *new* for one that has gone; *last* is the object as it was when it went, at this revision."""

    revision: int
    kind: Kind
    old: Object | None
    new: Object | None
    last: Object | None = None


class Store:
    """All objects. What it gives out is shared: whoever wants to change something copies it first."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.revision = FIRST_REVISION
        self.compacted = FIRST_REVISION
        # Watches reach back as far as the server's own cache, which begins when the server does.
        self.watchable = FIRST_REVISION
        self.history: list[Change] = []
        self._objects: dict[Kind, dict[tuple[str, str], Object]] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody else read or write meanwhile."""
        with self.changed:
            yield

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        with self.changed:
            return self._objects.get(kind, {}).get((namespace, name))

    def all(self, kind: Kind, namespace: str = "") -> list[Object]:
        """Return those of a namespace, or of all, by namespace and name."""
        with self.changed:
            there = self._objects.get(kind, {})
            return [there[key] for key in sorted(there) if not namespace or key[0] == namespace]

    def all_at(self, revision: int, kind: Kind, namespace: str = "") -> list[Object]:
        """Return them as they were at a revision that isn't compacted."""
        with self.changed:
            there = {(namespace_of(obj), name_of(obj)): obj for obj in self.all(kind, namespace)}
            for change in reversed(self.history):
                if change.revision <= revision:
                    break
                if change.kind is not kind:
                    continue
                some = change.new or change.old
                assert some is not None
                key = (namespace_of(some), name_of(some))
                if namespace and key[0] != namespace:
                    continue
                if change.old is None:
                    there.pop(key, None)
                else:
                    there[key] = change.old
            return [there[key] for key in sorted(there)]

    def write(self, kind: Kind, obj: Object) -> Object:
        """Put a new object, or a new state of one, and return it with its resourceVersion. The caller hands it over."""
        with self.changed:
            self.revision += 1
            obj["metadata"]["resourceVersion"] = str(self.revision)
            key = (namespace_of(obj), name_of(obj))
            there = self._objects.setdefault(kind, {})
            self.history.append(Change(self.revision, kind, there.get(key), obj))
            there[key] = obj
            self.changed.notify_all()
            return obj

    def remove(self, kind: Kind, obj: Object) -> Object:
        """Take an object away, and return it as it was at last."""
        with self.changed:
            self.revision += 1
            old = self._objects[kind].pop((namespace_of(obj), name_of(obj)))
            last = obj | {"metadata": obj["metadata"] | {"resourceVersion": str(self.revision)}}
            self.history.append(Change(self.revision, kind, old, None, last))
            self.changed.notify_all()
            return last

    def compact(self) -> None:
        with self.changed:
            self.compacted = self.watchable = self.revision
            self.history.clear()
            self.changed.notify_all()
