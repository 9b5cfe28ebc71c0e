"""
Where the chance of a trace comes from.

A figure means something only where no threshold was chosen on the traces that it was measured on. So the first element of every seed is the
name of the purpose, and no trace of one purpose can be one of the other.
"""

import zlib
from enum import StrEnum

import numpy as np


class Purpose(StrEnum):
    """What traces are drawn for."""

    CALIBRATION = "calibration"  # thresholds were, or may be, chosen on these
    EVALUATION = "evaluation"  # nothing is chosen on these; of rollouts only from FRESH on
    REGRESSION = "regression"  # what CI watches: nothing is chosen on these, and no figure of the benchmark is of them


# Of the evaluation's rollouts those before were counted while odds and excuses were chosen (docs/decisions/0016), so no figure is of them.
FRESH = 300


def seed(purpose: Purpose, *names: object) -> list[int]:
    """Return the entropy of what *names* say: a scenario, a level, the number of the run."""
    return [zlib.crc32(str(name).encode()) for name in (purpose, *names)]


def generator(purpose: Purpose, *names: object) -> np.random.Generator:
    """Return the chance of what *names* say, the same one each time."""
    return np.random.default_rng(np.random.SeedSequence(seed(purpose, *names)))
