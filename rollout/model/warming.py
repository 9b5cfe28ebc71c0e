"""Filling a worker's caches before its users come: how much may be asked of it, and what came of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WarmBudget:
    """
    What warming may cost: at most *users_max* users, *concurrency* requests at a time and *seconds*.

    While the worker uses more than *cpu_max* of one core (0–1), nothing is asked of it.
    """

    users_max: int
    concurrency: int
    seconds: float
    cpu_max: float


@dataclass(frozen=True, slots=True)
class Warmed:
    """
    What was done, and its proof.

    *users* were answered with 200, *failures* requests were not. *cold_s* is the median of first answers, *warm_s* that of the last few of
    the same users when they are asked once more, with another filter; both are None where nobody was answered. The hit ratios are those of
    all caches during the first and the last part, None where the metrics page didn't tell. *stopped* is "time" or "cpu" when not all users
    were asked.
    """

    users: int
    failures: int
    seconds: float
    cold_s: float | None = None
    warm_s: float | None = None
    hit_ratio_before: float | None = None
    hit_ratio_after: float | None = None
    stopped: str = ""
