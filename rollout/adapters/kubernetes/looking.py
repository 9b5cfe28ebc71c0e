"""
What several drivers of one inventory share for a moment: a look asks workers, releases, traffic and ledger one after the other, and each
of them would list the same pods.
"""

import threading
from collections.abc import Callable
from time import monotonic  # noqa: TID251  (how old a list is, whatever clock a rollout goes by)
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from rollout.adapters.kubernetes.access import ClusterSettings
from rollout.adapters.kubernetes.cluster import Cluster, Door, Object
from rollout.adapters.kubernetes.kinds import Kind

_T = TypeVar("_T")

# Less than the time between two looks, and than what a controller takes to act on anything.
SHARED_FOR_S = 0.3

_LOCK = threading.Lock()
_KEPT: "WeakValueDictionary[Door, Looking]" = WeakValueDictionary()


class Looking:
    """One namespace, as all drivers of this process see it. For use by several threads."""

    def __init__(self, door: Door) -> None:
        self.cluster = Cluster(door)
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, str], tuple[float, int, Any]] = {}

    def all_of(self, kind: Kind, labels: str, timeout_s: float) -> list[Object]:
        """Return all objects of a kind, as they were no longer than a moment ago, and not before anything that we wrote since."""
        return self._kept((kind.plural, labels), lambda: self.cluster.all_of(kind, timeout_s, labels=labels))

    def get(self, kind: Kind, name: str, timeout_s: float) -> Object | None:
        """Return one object, as `all_of` does; None if there is none of that name."""
        return next(iter(self._kept((kind.plural, f"/{name}"), lambda: _some(self.cluster.get(kind, name, timeout_s)))), None)

    def rules(self, namespace: str, timeout_s: float) -> tuple[list[Object], bool]:
        """See Cluster.rules; as they were no longer than a moment ago."""
        return self._kept(("rules", namespace), lambda: self.cluster.rules(namespace, timeout_s))

    def _kept(self, key: tuple[str, str], ask: Callable[[], _T]) -> _T:
        # Who asks at the same time waits for the same answer.
        with self._lock:
            kept = self._answers.get(key)
            if kept is not None and monotonic() - kept[0] <= SHARED_FOR_S and kept[1] == self.cluster.writes:
                found: _T = kept[2]
                return found
            asked_s, writes = monotonic(), self.cluster.writes
            found = ask()
            self._answers[key] = asked_s, writes, found
            return found


def _some(one: Object | None) -> list[Object]:
    return [] if one is None else [one]


def looking(settings: ClusterSettings) -> Looking:
    """Return what drivers that name the same place share; nothing is connected by that."""
    return looking_through(Door(settings.namespace, None if settings.kubeconfig is None else str(settings.kubeconfig), settings.context))


def looking_through(door: Door) -> Looking:
    """As `looking`."""
    with _LOCK:
        found = _KEPT.get(door)
        if found is None:
            found = _KEPT[door] = Looking(door)
        return found
