"""Requests whose time is log-normal, as those of real workers nearly are, and what buckets they fall into."""

import math

import numpy as np
from scipy.special import ndtr

from rollout.model.gate import LATENCY_EDGES_S

MEDIAN_S = 0.060
LOG_SD = 0.9


def expected(requests: float, shift: float = 0.0) -> tuple[float, ...]:
    """Return how many of *requests* fall into each bucket on average, when all take e^*shift* times as long."""
    below = ndtr((np.log(LATENCY_EDGES_S) - math.log(MEDIAN_S) - shift) / LOG_SD)
    return tuple((requests * np.diff(below, prepend=0.0, append=1.0)).tolist())


def drawn(rng: np.random.Generator, requests: float, shift: float = 0.0) -> tuple[float, ...]:
    """Draw them."""
    return tuple(map(float, rng.poisson(expected(requests, shift))))
