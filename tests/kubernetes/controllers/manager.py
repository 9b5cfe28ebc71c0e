"""The controllers, in one thread: each is asked again whenever something has changed."""

import threading
import time
import traceback
from collections.abc import Callable
from typing import TypeAlias

from tests.kubernetes.controllers.deployment import deployments
from tests.kubernetes.controllers.disruption import budgets
from tests.kubernetes.controllers.endpoint_slice import endpoint_slices
from tests.kubernetes.controllers.garbage import garbage
from tests.kubernetes.controllers.job import jobs
from tests.kubernetes.controllers.replica_set import replica_sets
from tests.kubernetes.controllers.stateful_set import stateful_sets
from tests.kubernetes.server.refusals import RefusedError
from tests.kubernetes.server.resources import Resources

# Does what there is to do, and returns when it wants to be asked again even if nothing changes (seconds from now), or None.
Controller: TypeAlias = Callable[[Resources], float | None]

CONTROLLERS: tuple[Controller, ...] = (stateful_sets, deployments, replica_sets, jobs, budgets, endpoint_slices, garbage)


class Controllers:
    """They begin to work with `go_on`."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._may_work = threading.Event()
        self._idle = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        self._may_work.set()

    def stand_still(self) -> None:
        """Let them finish what they are at, and do no more."""
        self._may_work.clear()
        with self._idle:
            pass

    def end(self) -> None:
        self._ended = True
        self._may_work.set()
        with self._resources.store.changed:
            self._resources.store.changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        store = self._resources.store
        seen = 0
        due = time.monotonic()
        while True:
            self._may_work.wait()
            with store.changed:
                if store.revision == seen and not self._ended:
                    store.changed.wait(min(max(due - time.monotonic(), 0.001), 0.5))
            if self._ended:
                return
            if not self._may_work.is_set() or (store.revision == seen and time.monotonic() < due):
                continue
            seen = store.revision
            due = time.monotonic() + self._once()

    def _once(self) -> float:
        again = 3600.0
        with self._idle:
            for controller in CONTROLLERS:
                if not self._may_work.is_set():
                    return 0.0
                try:
                    wanted = controller(self._resources)
                except RefusedError:
                    # As their queues do: what was refused is tried again.
                    wanted = 0.2
                except Exception:  # noqa: BLE001 - whatever it is, the others go on, and the test fails of it
                    self._resources.failures.append(traceback.format_exc())
                    wanted = 1.0
                again = min(again, wanted if wanted is not None else again)
        return again
