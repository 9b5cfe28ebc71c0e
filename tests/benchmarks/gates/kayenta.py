"""
Kayenta's canary judge, as a Spinnaker stage runs it.

Follows spinnaker/kayenta: kayenta-judge/…/NetflixACAJudge.scala (confidence 0.98, tolerance 0.25, allowedIncrease 1.0),
…/classifiers/metric/MannWhitneyClassifier.scala (High where the interval lies above the tolerance and the ratio of the means reaches
allowedIncrease), …/scorers/WeightedSumScorer.scala (a group's score, what Nodata does to it) and
…/classifiers/score/ThresholdScoreClassifier.scala. Two groups of one metric each, p95 and errors, both with direction "increase"; a sample
a minute; judged every three minutes on all that has come in, for a quarter of an hour, against the sum of the peers. Below 75 (marginal) a
stage ends at once, and its last score has to be 95.

Looks are repeated without a correction and samples have no least number: as upstream. A query that finds nothing yields fewer samples, not
an error. Outliers are kept, as they are unless one asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from rollout.model.gate import Ruling
from tests.benchmarks.gates import tuned
from tests.benchmarks.gates.judging import Judge
from tests.benchmarks.gates.mann_whitney import shift
from tests.benchmarks.gates.traces import Restart, Scrape
from tests.benchmarks.gates.windows import Queries, Reading, queries

STEP_S = 60.0
LOOK_S = 180.0
LIFETIME_S = 900.0
QUANTILE = 0.95
CONFIDENCE = 0.98
TOLERANCE = 0.25
MARGINAL = 75.0
PASS = 95.0
NODATA_SHARE_MAX = 0.5
# In place of infinity, where the controls have no errors at all.
RATIO_MAX = 1000.0


class Label(StrEnum):
    """How a metric is classified."""

    GOOD = "Pass"
    HIGH = "High"
    NODATA = "Nodata"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the mean of each metric may rise to, in means of the controls, before it counts."""

    latency_increase: float = 1.0
    errors_increase: float = 1.0


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric at one look: whether the interval lies above the tolerance, and the ratio of the means. None without data."""

    above: bool
    ratio: float


def compare(experiment: Sequence[float], control: Sequence[float]) -> Compared | None:
    if not experiment or not control:
        return None
    if sorted(experiment) == sorted(control):
        return Compared(above=False, ratio=1.0)
    found = shift(np.array(experiment), np.array(control), CONFIDENCE)
    mean, theirs = sum(experiment) / len(experiment), sum(control) / len(control)
    ratio = min(mean / theirs, RATIO_MAX) if theirs else RATIO_MAX
    return Compared(found.lower > TOLERANCE * abs(found.estimate), ratio)


def classify(compared: Compared | None, increase: float) -> Label:
    if compared is None:
        return Label.NODATA
    return Label.HIGH if compared.above and compared.ratio >= increase else Label.GOOD


def group_score(labels: Sequence[Label]) -> float:
    """Return the share of metrics that pass, in per cent, of those with data. A group without any is as good as one that passes."""
    with_data = [label for label in labels if label is not Label.NODATA]
    return 100 * with_data.count(Label.GOOD) / len(with_data) if with_data else 100.0


def score(groups: Sequence[Sequence[Label]]) -> float:
    """Return the mean over the groups, which weigh the same, but nothing where half of all metrics have no data."""
    labels = [label for group in groups for label in group]
    if labels.count(Label.NODATA) >= NODATA_SHARE_MAX * len(labels):
        return 0.0
    return sum(map(group_score, groups)) / len(groups)


@dataclass(frozen=True, slots=True)
class Look:
    at_s: float
    latency: Compared | None
    errors: Compared | None


@dataclass(slots=True)
class Rule:
    """What one look does to a stage."""

    limits: Limits
    ruling: Ruling = Ruling.PENDING

    def tick(self, look: Look) -> Ruling:
        if self.ruling is Ruling.PENDING:
            labels = classify(look.latency, self.limits.latency_increase), classify(look.errors, self.limits.errors_increase)
            scored = score([[label] for label in labels])
            if scored < MARGINAL or (look.at_s >= LIFETIME_S and scored < PASS):
                self.ruling = Ruling.FAIL
            elif look.at_s >= LIFETIME_S:
                self.ruling = Ruling.PASS
        return self.ruling


@dataclass(slots=True)
class Samples:
    """What has come in: the worker's readings and those of the sum of its peers, one of each a minute."""

    own: Queries
    controls: Queries
    own_readings: list[Reading] = field(default_factory=list)
    control_readings: list[Reading] = field(default_factory=list)

    def see(self, scrape: Scrape) -> None:
        self.own.see(scrape)
        self.controls.window.add(scrape.controls)
        if scrape.at_s % STEP_S == 0:
            self.own_readings.append(self.own.ask(scrape))
            self.control_readings.append(self.controls.ask(scrape))

    def look(self, at_s: float) -> Look:
        mine, theirs = self.own_readings, self.control_readings
        return Look(
            at_s,
            compare([r.latency_s for r in mine if r.latency_s is not None], [r.latency_s for r in theirs if r.latency_s is not None]),
            compare([r.errors for r in mine if r.errors is not None], [r.errors for r in theirs if r.errors is not None]),
        )


def samples(restart: Restart) -> Samples:
    return Samples(queries(restart.admitted_s, QUANTILE), queries(restart.admitted_s, QUANTILE))


@dataclass(slots=True)
class KayentaJudge:
    samples: Samples
    rule: Rule

    def see(self, scrape: Scrape) -> Ruling:
        self.samples.see(scrape)
        if scrape.at_s % LOOK_S == 0:
            return self.rule.tick(self.samples.look(scrape.at_s))
        return self.rule.ruling


@dataclass(frozen=True, slots=True)
class Kayenta:
    """With its defaults, or with the increases that were chosen for the level."""

    limits: Limits | None = None
    name: str = "Kayenta"

    def judge(self, restart: Restart, level: float) -> Judge:
        return KayentaJudge(samples(restart), Rule(self.limits or tuned_limits(level)))


def tuned_limits(level: float) -> Limits:
    chosen = tuned.settings("kayenta", level)
    return Limits(chosen["latency_increase"], chosen["errors_increase"])


DEFAULT = Kayenta(Limits())
TUNED = Kayenta(None, "Kayenta, tuned")
