"""
How busy the workers are, measured before a rollout: a few short windows now, and the journal where nothing could be measured.

What was measured now comes first, because the question is whether the others can carry it now. Several short windows show how much the load
varies by itself; a baseline of the journal is one long sum, of about this hour yesterday.
"""

import threading
from collections.abc import Collection, Mapping

from rollout.engine import baseline
from rollout.engine.survey import Surveyor
from rollout.model.gate import Tally
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.load import Load
from rollout.planning.capacity import load_of
from rollout.ports.journal import Journal

# Three windows or more say how much they vary; six in the same time say it better than three, and cost three sweeps.
WINDOWS = 6
# Below this a window holds next to nothing.
WINDOW_MIN_S = 0.05


def measure(surveyor: Surveyor, workers: Collection[WorkerId], seconds: float) -> dict[WorkerId, Load]:
    """Measure for about *seconds*, or as long as WINDOWS + 1 sweeps take. Who can't be measured is left out."""
    pause = threading.Event()
    # The first sweep only begins the first window; whose page can't be read then isn't waited for six times more.
    unmeasured = surveyor.measure(tuple(workers), with_canaries=False).unmeasured
    tallies: dict[WorkerId, list[Tally]] = {worker: [] for worker in workers if worker not in unmeasured}
    for _ in range(WINDOWS):
        pause.wait(max(WINDOW_MIN_S, seconds / WINDOWS))
        for worker, tally in surveyor.measure(tuple(tallies), with_canaries=False).tallies.items():
            tallies[worker].append(tally)
    return {worker: load for worker, its in tallies.items() if (load := load_of(its, f"measured over {seconds:g} s")) is not None}


def from_journal(journal: Journal, homeserver: str, releases: Mapping[WorkerId, ReleaseId], now_s: float) -> dict[WorkerId, Load]:
    """Return what the journal says of each worker on the release that it runs, at about this hour in the last day."""
    kept = baseline.kept_tallies(journal, homeserver, releases, now_s)
    return {worker: load for worker, tally in kept.items() if (load := load_of((tally,), baseline.HISTORY)) is not None}
