"""
An analysis run of Argo Rollouts.

Follows argoproj/argo-rollouts: analysis/analysis.go (when a measurement is due, assessMetricStatus), utils/evaluate/evaluate.go (an empty
result is an error, not a failure) and utils/defaults/defaults.go. Defaults: failureLimit 0, inconclusiveLimit 0, consecutiveErrorLimit 4,
an error is tried again after 10 s; limits are compared with `>`. Success of at least 95 % is its documentation's example; it has none for
latency, so the p95 may be 500 ms, twice what these workers have. Measured every 30 s, seven times, from one minute on, when the rate's
window lies behind the restart.

A condition for success without one for failure is never inconclusive, so that limit plays no part.
"""

from dataclasses import dataclass, field

from rollout.model.gate import Ruling
from tests.benchmarks.gates import tuned
from tests.benchmarks.gates.judging import Judge
from tests.benchmarks.gates.traces import Restart, Scrape
from tests.benchmarks.gates.windows import Queries, Reading, queries

INITIAL_DELAY_S = 60.0
INTERVAL_S = 30.0
ERROR_RETRY_S = 10.0
COUNT = 7
CONSECUTIVE_ERROR_LIMIT = 4
QUANTILE = 0.95


@dataclass(frozen=True, slots=True)
class Limits:
    """*failure_limit* is how many measurements of one metric may fail; *success_min* is a share of requests."""

    failure_limit: int = 0
    success_min: float = 0.95
    latency_max_s: float = 0.5


@dataclass(slots=True)
class Metric:
    """One metric of a run."""

    due_s: float = INITIAL_DELAY_S
    count: int = 0
    failed: int = 0
    errors_in_a_row: int = 0

    def measure(self, at_s: float, succeeds: bool | None) -> None:  # noqa: FBT001  (what was measured, None for an error)
        if succeeds is None:
            # It doesn't count as a measurement, and is tried again soon.
            self.errors_in_a_row += 1
            self.due_s = at_s + ERROR_RETRY_S
            return
        self.errors_in_a_row = 0
        self.count += 1
        self.failed += not succeeds
        self.due_s = at_s + INTERVAL_S

    def rule(self, failure_limit: int) -> Ruling:
        if self.failed > failure_limit or self.errors_in_a_row > CONSECUTIVE_ERROR_LIMIT:
            return Ruling.FAIL
        return Ruling.PASS if self.count >= COUNT else Ruling.PENDING


@dataclass(slots=True)
class Rule:
    """A run with two metrics. It fails with the first of them and succeeds with the last."""

    limits: Limits
    success: Metric = field(default_factory=Metric)
    latency: Metric = field(default_factory=Metric)
    ruling: Ruling = Ruling.PENDING

    def due(self, at_s: float) -> bool:
        return self.ruling is Ruling.PENDING and at_s >= min(self.success.due_s, self.latency.due_s)

    def tick(self, reading: Reading) -> Ruling:
        if self.ruling is not Ruling.PENDING:
            return self.ruling
        succeeds = None if reading.errors is None else 1 - reading.errors >= self.limits.success_min
        quick = None if reading.latency_s is None else reading.latency_s <= self.limits.latency_max_s
        rulings = []
        for metric, measured in ((self.success, succeeds), (self.latency, quick)):
            if metric.count < COUNT and reading.at_s >= metric.due_s:
                metric.measure(reading.at_s, measured)
            rulings.append(metric.rule(self.limits.failure_limit))
        if Ruling.FAIL in rulings:
            self.ruling = Ruling.FAIL
        elif Ruling.PENDING not in rulings:
            self.ruling = Ruling.PASS
        return self.ruling


@dataclass(slots=True)
class ArgoJudge:
    queries: Queries
    rule: Rule

    def see(self, scrape: Scrape) -> Ruling:
        self.queries.see(scrape)
        if self.rule.due(scrape.at_s):
            return self.rule.tick(self.queries.ask(scrape))
        return self.rule.ruling


@dataclass(frozen=True, slots=True)
class Argo:
    """With its defaults, or with the limits that were chosen for the level."""

    limits: Limits | None = None
    name: str = "Argo"

    def judge(self, restart: Restart, level: float) -> Judge:
        return ArgoJudge(queries(restart.admitted_s, QUANTILE), Rule(self.limits or tuned_limits(level)))


def tuned_limits(level: float) -> Limits:
    chosen = tuned.settings("argo", level)
    return Limits(int(chosen["failure_limit"]), chosen["success_min"], chosen["latency_max_s"])


DEFAULT = Argo(Limits())
TUNED = Argo(None, "Argo, tuned")
