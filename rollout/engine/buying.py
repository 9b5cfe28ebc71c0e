"""
Sending canary requests that buy evidence, at the plan's rate.

To each worker one at a time: one that is slow is asked less often, never more at once. Whom to ask is said anew with every decision
(deciding/buying.py); when nothing has been said for a while, whoever decides is gone or stands still, and nobody is asked any more. What
was under way at a worker that is acted on tells of the act and not of the release, so its answer counts for nothing.
"""

import itertools
import threading
from collections.abc import Callable

from rollout.homeservers.synapse.canaries import bought_path
from rollout.model.ids import WorkerId
from rollout.model.plan import Plan
from rollout.ports.clock import Clock
from rollout.ports.probe import Answer, Probe

# Later than this an answer is none. A bad release may be this slow, and then each of its answers costs as much of its time.
TIMEOUT_S = 5.0
# Decisions come twice a second. A journal that takes its time, or a machine that stands still, is not somebody who wants canaries.
HEEDED_S = 5.0


class Buyer:
    """Knows whom to ask and when; *tell* takes the answers. For use by several threads, of which no two ask the same worker."""

    def __init__(self, plan: Plan, probe: Probe, clock: Clock, tell: Callable[[WorkerId, Answer], None]) -> None:
        self._probe = probe
        self._clock = clock
        self._tell = tell
        self._roles = {worker.id: worker.role for worker in plan.workers}
        self._every_s = 0.0 if plan.buying is None else 1.0 / plan.buying.per_s
        # Another one for each life of the tool: what was just asked is answered from a cache (homeservers/synapse/canaries.py).
        self._nonces = itertools.count(int(clock.now_s() * 1000))
        self._lock = threading.Lock()
        self._asked: frozenset[WorkerId] = frozenset()
        self._heeded_until_s = float("-inf")
        self._due_s: dict[WorkerId, float] = {}
        self._acts: dict[WorkerId, int] = {}

    def attend(self, asked: frozenset[WorkerId]) -> frozenset[WorkerId]:
        """Ask these from now on, and nobody else; return those who have never been asked before."""
        now_s = self._clock.elapsed_s()
        with self._lock:
            self._asked, self._heeded_until_s = asked, now_s + HEEDED_S
            new = asked.difference(self._due_s)
            # Not all at the same moment: they share a database.
            self._due_s.update({worker: now_s + self._every_s * place / len(new) for place, worker in enumerate(sorted(new))})
        return new

    def leave(self, worker: WorkerId | None) -> None:
        """Leave a worker alone from this moment on: something is done to it."""
        if worker is not None:
            with self._lock:
                self._asked -= {worker}
                self._acts[worker] = self._acts.get(worker, 0) + 1

    def is_due(self, worker: WorkerId) -> bool:
        """Tell whether it is time for a worker's next request."""
        now_s = self._clock.elapsed_s()
        with self._lock:
            return worker in self._asked and now_s < self._heeded_until_s and now_s >= self._due_s[worker]

    def ask(self, worker: WorkerId) -> None:
        """Send one request, and wait for its answer."""
        began_s = self._clock.elapsed_s()
        with self._lock:
            # What couldn't be sent in time isn't sent later: no bursts.
            next_s = self._due_s[worker] + self._every_s
            self._due_s[worker] = next_s if next_s > began_s else began_s + self._every_s
            acts, nonce = self._acts.get(worker, 0), next(self._nonces)
        path = bought_path(self._roles[worker], nonce)
        answer = None if path is None else self._probe.canary({worker: path}, TIMEOUT_S).get(worker)
        with self._lock:
            still = self._acts.get(worker, 0) == acts
        if answer is not None and still:
            self._tell(worker, answer)
