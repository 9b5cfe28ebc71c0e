"""
The chance in a trace, many intervals at a time.

The number of requests in an interval is Poisson, and which bucket each falls into is independent of the others. So the counts of the
buckets are independent Poisson numbers themselves: their means are all there is to compute, means of several workers may be added before
anything is drawn, and a scrape that was missed is a mean that moves on to the next interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from rollout.model.gate import LATENCY_EDGES_S, Tally
from tests.benchmarks.gates.scenarios import Floats

STEP_S = 5.0
BASELINE_STEPS = 360  # 30 min
HORIZON_STEPS = 180  # 15 min
HORIZON_S = HORIZON_STEPS * STEP_S

MEDIAN_S = 0.060
LOG_SD = 0.9  # so that the p95 is 264 ms
WORKER_LOG_SD = 0.1
SHARED_LOG_SD = 0.08
OWN_LOG_SD = 0.05
CORRELATION_S = 120.0
DIURNAL = 0.1
DIURNAL_PERIOD_S = 6 * 3600.0
MISSED_SHARE = 0.02

Bools = npt.NDArray[np.bool_]
EDGES = LATENCY_EDGES_S
_LOG_EDGES = np.log(EDGES)
_BLANK = vars(Tally(0.0, 0.0))


def middles(steps: int) -> Floats:
    """Return the time in the middle of each step, in seconds from the first one's beginning."""
    return STEP_S * np.arange(0.5, steps)


def drift(rng: np.random.Generator, rows: int, steps: int, log_sd: float) -> Floats:
    """Draw *rows* stationary AR(1) series of logarithms, one value a step."""
    keep = math.exp(-STEP_S / CORRELATION_S)
    shocks = rng.standard_normal((rows, steps))
    shocks[:, 1:] *= math.sqrt(1 - keep**2)
    # x[t] = Σ keep^(t−s)·shock[s] as one running sum. The largest weight is keep^−steps: far from overflow below 15,000 steps.
    weights = keep ** np.arange(steps)
    return log_sd * np.cumsum(shocks / weights, axis=1) * weights


def environment(rng: np.random.Generator, workers: int, steps: int) -> tuple[Floats, Floats]:
    """Return what all workers have to live with: logarithms of factors on the latency and on the load, each by worker and step."""
    phase = rng.uniform(0, 2 * math.pi)
    diurnal = DIURNAL * np.sin(phase + 2 * math.pi * STEP_S / DIURNAL_PERIOD_S * np.arange(steps))
    latency = drift(rng, 1, steps, SHARED_LOG_SD) + drift(rng, workers, steps, OWN_LOG_SD) + diurnal
    latency += rng.normal(0.0, WORKER_LOG_SD, (workers, 1))
    load = drift(rng, 1, steps, SHARED_LOG_SD) + drift(rng, workers, steps, OWN_LOG_SD)
    return latency, load


def bucket_shares(log_factor: Floats, slow_share: float = 0.0, slow_factor: float = 1.0) -> Floats:
    """Return the share of each bucket, along a new last axis, where all requests take e^*log_factor* times as long as usual."""
    z = (_LOG_EDGES - (math.log(MEDIAN_S) + log_factor[..., None])) / LOG_SD
    below = ndtr(z)
    if slow_share:
        below = (1 - slow_share) * below + slow_share * ndtr(z - math.log(slow_factor) / LOG_SD)
    shares = np.empty((*log_factor.shape, len(_LOG_EDGES) + 1))
    shares[..., 0] = below[..., 0]
    np.subtract(below[..., 1:], below[..., :-1], out=shares[..., 1:-1])
    shares[..., -1] = 1 - below[..., -1]
    return shares


def missed(rng: np.random.Generator, rows: int, steps: int, boundaries: Sequence[int] = ()) -> Bools:
    """Draw which scrapes are missed: none of those just before a *boundary*, where counts end that belong together."""
    misses = rng.random((rows, steps)) < MISSED_SHARE
    for boundary in (*boundaries, steps):
        misses[:, boundary - 1] = False
    return misses


def move_on(values: Floats, misses: Bools) -> None:
    """Let what was not scraped come with the next scrape: counters are cumulative. *values* by step, in place."""
    for step in np.flatnonzero(misses):
        if step + 1 < len(values):
            values[step + 1] += values[step]
            values[step] = 0


def since(misses: Bools) -> npt.NDArray[np.int_]:
    """Return the step at which each step's counts begin, by row: where the last successful scrape was."""
    steps = np.arange(1, misses.shape[-1] + 1)
    ends = np.maximum.accumulate(np.where(misses, 0, steps), axis=-1)
    begins = np.zeros_like(ends)
    begins[..., 1:] = ends[..., :-1]
    return begins


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests of each step since *begins* by bucket, and how many of them failed. *out* says where nothing was scraped."""

    begins: npt.NDArray[np.int_]
    latency: Floats
    errors: Floats
    out: Bools

    def total(self, from_step: int, until_step: int) -> Tally:
        """Return the sum of all tallies of a stretch that no missed scrape cuts."""
        part = self.latency[from_step:until_step].sum(axis=0)
        errors = self.errors[from_step:until_step].sum()
        return _tally(from_step * STEP_S, until_step * STEP_S, float(part.sum()), float(errors), tuple(part.tolist()))

    def tallies(self, from_step: int, until_step: int) -> list[Tally | None]:
        """Return the tally of each step, None where nothing was scraped."""
        part = slice(from_step, until_step)
        rows = zip(
            (self.begins[part] * STEP_S).tolist(),
            (np.arange(from_step + 1, until_step + 1) * STEP_S).tolist(),
            self.latency[part].sum(axis=1).tolist(),
            self.errors[part].tolist(),
            map(tuple, self.latency[part].tolist()),
            strict=True,
        )
        return [None if out else _tally(*row) for row, out in zip(rows, self.out[part].tolist(), strict=True)]


def count(rng: np.random.Generator, means: Floats, errors: Floats, begins: npt.NDArray[np.int_], out: Bools) -> Counts:
    """Draw what *means* (by step and bucket) come to, and how many of each step's requests fail."""
    counts = rng.poisson(means)
    return Counts(begins, counts.astype(float), rng.binomial(counts.sum(axis=1), errors).astype(float), out)


def _tally(since_s: float, until_s: float, requests: float, errors: float, latency: tuple[float, ...]) -> Tally:
    """Build one quickly: there are a thousand in a trace."""
    made: Tally = object.__new__(Tally)
    fields = _BLANK.copy()
    fields["since_s"] = since_s
    fields["until_s"] = until_s
    fields["requests"] = requests
    fields["errors"] = errors
    fields["latency"] = latency
    object.__setattr__(made, "__dict__", fields)
    return made
