"""Canary requests that buy evidence where users ask too little: how many, from whom, and what they may cost."""

from dataclasses import dataclass

from rollout.model.ids import WorkerId


@dataclass(frozen=True, slots=True)
class Buying:
    """
    *per_s* requests a second are sent to each of *workers*, one at a time, and to none of them more than *requests_max* in one rollout.

    A worker that uses more than *cpu_max* of a core (0–1) is left alone meanwhile.
    """

    per_s: float
    requests_max: int
    cpu_max: float
    workers: tuple[WorkerId, ...]
