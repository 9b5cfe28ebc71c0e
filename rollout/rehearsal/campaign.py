"""
Many rehearsals, in several processes, and what came of them together.

Consecutive seeds go through the whole coverage table (scenario.py). Some are played twice, because a seed that can't be played again is of
no use to anybody.
"""

import gc
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rollout.model.codec import dump_json
from rollout.model.event import Outcome
from rollout.model.ids import PoolId
from rollout.model.inventory import Inventory
from rollout.rehearsal.coverage import Cell, count
from rollout.rehearsal.invariants import judge
from rollout.rehearsal.perform import Account, rehearse_one
from rollout.rehearsal.scenario import Given, draw

# Every so many seeds one is played twice.
TWICE_EVERY = 25
# What was wanted, or what a bad release deserves.
SUCCESSES = frozenset({Outcome.DEPLOYED})
# Seeds given to a process at a time.
_CHUNK = 8
# So many objects more than before are there before garbage is looked for: some dozen rehearsals' cycles, of a few megabytes.
_GARBAGE = 50_000


@dataclass(frozen=True, slots=True)
class Result:
    """What is kept of one rehearsal. *duration_s* is of the rollout, in virtual seconds; *serving_min* by the proxy's backend."""

    seed: int
    outcome: Outcome | None
    why: str
    duration_s: float
    broken: tuple[tuple[str, str], ...]
    struck: tuple[Cell, ...]
    serving_min: dict[str, int]


@dataclass(frozen=True, slots=True)
class Durations:
    """Of the rollouts that ended alike, in seconds."""

    count: int
    median_s: float
    p90_s: float
    worst_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """
    A whole campaign. *broken* lists the seeds by the invariant that they broke; *struck* is the coverage table. *serving_min* is how many
    workers of each backend served at the worst moment of any rehearsal of a given homeserver.
    """

    rehearsals: int
    success_rate: float
    by_outcome: dict[str, Durations]
    serving_min: dict[str, int]
    broken: dict[str, tuple[int, ...]]
    struck: Counter[Cell]


def rehearse_seed(seed: int, given: Given | None = None) -> Result:
    """Play one seed and judge it."""
    account = rehearse_one(draw(seed, given))
    broken = judge(account)
    if seed % TWICE_EVERY == 0 and journal_of(rehearse_one(draw(seed, given))) != journal_of(account):
        broken.append(("same_journal", "the same seed gave another journal"))
    return Result(
        seed=seed,
        outcome=account.outcome,
        why=account.why or account.error,
        duration_s=account.ended_at_s - account.began_at_s,
        broken=tuple(broken),
        struck=tuple(count(account.struck).elements()),
        serving_min=account.serving_min,
    )


def journal_of(account: Account) -> str:
    """Return the journal as it would be kept, a line an event."""
    return "\n".join(dump_json(event) for event in account.events)


def run(seeds: Sequence[int], given: Given | None = None, jobs: int = 1) -> Iterator[Result]:
    """Play many, in *jobs* processes; the results come in the order of the seeds."""
    if jobs <= 1:
        for seed in seeds:
            yield rehearse_seed(seed, given)
        return
    # A fresh process each: whoever calls may have threads, which don't survive a fork.
    with multiprocessing.get_context("spawn").Pool(jobs, collect_seldom) as pool:
        yield from pool.imap(_Player(given), seeds, chunksize=_CHUNK)


def collect_seldom() -> None:
    """
    Collect garbage seldom, in this whole process: of what a rehearsal makes nearly nothing is in cycles, and looking for that after every
    700 objects, as Python does by itself, takes a twentieth of the time.
    """
    gc.freeze()
    gc.set_threshold(_GARBAGE)


@dataclass(frozen=True, slots=True)
class _Player:
    given: Given | None

    def __call__(self, seed: int) -> Result:
        return rehearse_seed(seed, self.given)


def summarise(results: Iterable[Result]) -> Summary:
    """Put them together."""
    everything = list(results)
    durations: dict[str, list[float]] = {}
    broken: dict[str, list[int]] = {}
    struck: Counter[Cell] = Counter()
    serving: dict[str, int] = {}
    for result in everything:
        durations.setdefault(result.outcome.value if result.outcome is not None else "none", []).append(result.duration_s)
        struck.update(result.struck)
        for name, _ in result.broken:
            if result.seed not in broken.setdefault(name, []):
                broken[name].append(result.seed)
        for backend, least in result.serving_min.items():
            serving[backend] = min(least, serving.get(backend, least))
    wanted = sum(result.outcome in SUCCESSES for result in everything)
    return Summary(
        rehearsals=len(everything),
        success_rate=wanted / len(everything) if everything else 0.0,
        by_outcome={outcome: _durations(found) for outcome, found in sorted(durations.items())},
        serving_min=serving,
        broken={name: tuple(seeds) for name, seeds in sorted(broken.items())},
        struck=struck,
    )


def remaining(inventory: Inventory, serving_min: dict[str, int]) -> dict[PoolId, tuple[int, int]]:
    """Say of each pool how many of how many workers served at the worst moment."""
    sizes = Counter(entry.pool for entry in inventory.workers.values() if entry.pool is not None)
    return {pool: (serving_min.get(inventory.pools[pool].backend, size), size) for pool, size in sizes.items()}


def _durations(found: list[float]) -> Durations:
    ordered = sorted(found)
    return Durations(len(ordered), _quantile(ordered, 0.5), _quantile(ordered, 0.9), ordered[-1])


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]
