"""
Flagger's analysis of a canary.

Follows fluxcd/flagger: pkg/controller/scheduler.go (advanceCanary: the order of its checks), pkg/controller/scheduler_metrics.go (what
makes a check fail) and pkg/metrics/observers (its two built-in metrics). Defaults as its tutorial for a canary of a deployment has them:
every minute, threshold 5, 10 % of the traffic more with each step up to 50 %; request-success-rate at least 99 %, request-duration (the
p99) at most 500 ms.

A restarted worker has all of its traffic from the start, so the weight is only a clock here.
"""

from dataclasses import dataclass

from rollout.model.gate import Ruling
from tests.benchmarks.gates import tuned
from tests.benchmarks.gates.judging import Judge
from tests.benchmarks.gates.traces import Restart, Scrape
from tests.benchmarks.gates.windows import Queries, Reading, queries

INTERVAL_S = 60.0
QUANTILE = 0.99
STEP_WEIGHT = 10
MAX_WEIGHT = 50


@dataclass(frozen=True, slots=True)
class Limits:
    """*threshold* counts failed checks; *success_min* is a share of requests."""

    threshold: int = 5
    success_min: float = 0.99
    latency_max_s: float = 0.5


@dataclass(slots=True)
class Rule:
    """What one tick does to a canary."""

    limits: Limits
    weight: int = 0
    failed_checks: int = 0
    ruling: Ruling = Ruling.PENDING

    def tick(self, reading: Reading) -> Ruling:
        if self.ruling is not Ruling.PENDING:
            return self.ruling
        if self.failed_checks >= self.limits.threshold:
            self.ruling = Ruling.FAIL
        elif self.weight == 0:
            # Nothing is routed to it yet, so nothing is measured: only the hooks run.
            self.weight += STEP_WEIGHT
        elif not self.passes(reading):
            # A check that passes takes none of these back.
            self.failed_checks += 1
        elif self.weight < MAX_WEIGHT:
            self.weight += STEP_WEIGHT
        else:
            self.ruling = Ruling.PASS
        return self.ruling

    def passes(self, reading: Reading) -> bool:
        """Say whether a check does. A value that is missing fails it like one out of range."""
        if reading.errors is None or reading.latency_s is None:
            return False
        return 1 - reading.errors >= self.limits.success_min and reading.latency_s <= self.limits.latency_max_s


@dataclass(slots=True)
class FlaggerJudge:
    queries: Queries
    rule: Rule

    def see(self, scrape: Scrape) -> Ruling:
        self.queries.see(scrape)
        if scrape.at_s % INTERVAL_S == 0:
            return self.rule.tick(self.queries.ask(scrape))
        return self.rule.ruling


@dataclass(frozen=True, slots=True)
class Flagger:
    """With its tutorial's limits, or with those that were chosen for the level."""

    limits: Limits | None = None
    name: str = "Flagger"

    def judge(self, restart: Restart, level: float) -> Judge:
        return FlaggerJudge(queries(restart.admitted_s, QUANTILE), Rule(self.limits or tuned_limits(level)))


def tuned_limits(level: float) -> Limits:
    chosen = tuned.settings("flagger", level)
    return Limits(int(chosen["threshold"]), chosen["success_min"], chosen["latency_max_s"])


DEFAULT = Flagger(Limits())
TUNED = Flagger(None, "Flagger, tuned")
