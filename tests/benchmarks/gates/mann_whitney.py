"""
Mann–Whitney's test as Kayenta uses it: for the confidence interval of the shift between two samples, not for a p-value.

Follows spinnaker/kayenta: kayenta-mannwhitney/src/main/scala/com/netflix/kayenta/mannwhitney/MannWhitney.scala, which in turn does as R's
wilcox.test does for large samples: the ends of the interval are the shifts at which the normal approximation, corrected for continuity,
reaches the quantile. Where it looks for those with a root finder, we read them off the sorted differences of all pairs, on which the
statistic changes: it is a step function, so the two agree to within the finder's tolerance.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tests.benchmarks.gates.scenarios import Floats


@dataclass(frozen=True, slots=True)
class Shift:
    """How much larger an experiment is than its control: between *lower* and *upper*, most likely *estimate* (Hodges–Lehmann)."""

    lower: float
    upper: float
    estimate: float


def shift(experiment: Floats, control: Floats, confidence: float) -> Shift:
    """Return the interval. Neither sample may be empty."""
    m, n = len(experiment), len(control)
    differences = np.sort(np.subtract.outer(experiment, control), axis=None)
    # Ties between the two samples come and go with the shift; the sigma without them is the wider one.
    sigma = math.sqrt(m * n / 12 * (m + n + 1))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * sigma + 0.5
    # The statistic at a shift is the number of differences above it less mn/2. It falls to *reach* where mn/2 − reach of them lie below.
    below = math.floor(m * n / 2 - reach)
    if below < 0:
        # So few values never reach the quantile, and the finder gives the ends of the range.
        return Shift(float(differences[0]), float(differences[-1]), float(np.median(differences)))
    return Shift(float(differences[below]), float(differences[m * n - 1 - below]), float(np.median(differences)))
