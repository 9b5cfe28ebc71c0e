"""What can come of a restart: the well workers that a gate has to let pass, and the bad ones that it has to take back."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
# How much slower than warm at *t* seconds, given the amplitude and the time constant: A and tau.
Shape: TypeAlias = Callable[[Floats, float, float], Floats]

ERRORS_BASE = 0.001
# Requests per second of one worker: a small server's sender, up to the busiest sync worker of a big one.
LEVELS = (0.2, 1.0, 5.0, 20.0, 200.0)


def exponential(t: Floats, a: float, tau: float) -> Floats:
    return 1 + a * np.exp(-t / tau)


def plateau(t: Floats, a: float, tau: float) -> Floats:
    """Stay slow for *tau*, then get well twice as fast: a cache that helps only once it is nearly full."""
    return 1 + a * np.exp(-np.maximum(t - tau, 0.0) / (tau / 2))


def power_law(t: Floats, a: float, tau: float) -> Floats:
    """Get well soon at first and ever slower later: rooms that are seldom asked for stay cold for long."""
    return 1 + a / (1 + t / tau) ** 1.5


@dataclass(frozen=True, slots=True)
class Transient:
    """How a cold cache gets warm. Its amplitude and time constant (seconds) are drawn where they are not given."""

    shape: Shape = exponential
    amplitude: float | None = None
    tau_s: float | None = None

    def drawn(self, rng: np.random.Generator) -> Callable[[Floats], Floats]:
        """Return the factor on the latency by seconds since the process started."""
        # Both are drawn each time, so that the same seed means the same noise in every scenario.
        a, tau = float(rng.lognormal(0.0, 0.4)), float(rng.lognormal(math.log(40.0), 0.4))
        a, tau = self.amplitude or a, self.tau_s or tau
        return lambda t: self.shape(t, a, tau)


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    One kind of restart.

    *latency* multiplies every request's time and *errors* is the share of requests that fail, from admission on. *slow_share* of the
    requests take *slow_factor* times as long as the others. *leak* is the factor that the latency has grown to, linearly, at the end of the
    horizon.
    """

    name: str
    healthy: bool
    transient: Transient = Transient()
    latency: float = 1.0
    errors: float = ERRORS_BASE
    slow_share: float = 0.0
    slow_factor: float = 50.0
    leak: float = 1.0
    herd: bool = False  # three times its load in the first 30 s
    incident: bool = False  # the shared database is slow for a while; in the others it is in one run of ten
    reset: bool = False  # restarts once more, by itself
    outage: bool = False  # the source of the metrics goes away and doesn't come back


def cold_plateau(t: Floats, a: float, tau: float) -> Floats:
    """Decay a little slower than half its plateau, so that it too takes most of the horizon."""
    return 1 + a * np.exp(-np.maximum(t - tau, 0.0) / 120.0)


SCENARIOS = (
    Scenario("healthy", healthy=True),
    Scenario("healthy, plateau", healthy=True, transient=Transient(plateau)),
    Scenario("healthy, power law", healthy=True, transient=Transient(power_law)),
    Scenario("healthy, herd", healthy=True, herd=True),
    Scenario("healthy, incident", healthy=True, incident=True),
    Scenario("healthy, restarts again", healthy=True, reset=True),
    # Four times as slow at first, and most of the horizon to get over it. Not bad: workers of a big server come back so.
    Scenario("cold", healthy=True, transient=Transient(exponential, 3.0, 300.0)),
    Scenario("cold, plateau", healthy=True, transient=Transient(cold_plateau, 3.0, 300.0)),
    Scenario("cold, power law", healthy=True, transient=Transient(power_law, 3.0, 120.0)),
    Scenario("p95 ×1.2", healthy=False, latency=1.2),
    Scenario("p95 ×1.5", healthy=False, latency=1.5),
    Scenario("p95 ×2", healthy=False, latency=2.0),
    Scenario("cold, p95 ×2", healthy=False, latency=2.0, transient=Transient(exponential, 3.0, 300.0)),
    Scenario("errors 0.5 %", healthy=False, errors=0.005),
    Scenario("errors 1 %", healthy=False, errors=0.01),
    Scenario("errors 5 %", healthy=False, errors=0.05),
    Scenario("never recovers", healthy=False, transient=Transient(plateau, 3.0, math.inf)),
    Scenario("leak", healthy=False, leak=3.0),
    Scenario("1 % take ×50", healthy=False, slow_share=0.01),
    Scenario("outage", healthy=True, outage=True),
    Scenario("outage, p95 ×2, errors 5 %", healthy=False, outage=True, latency=2.0, errors=0.05),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
