"""
rollout's sequential gate, as a rollout asks it: one gate on latency and one on errors, each with its part of the budget of false alarms.

What it knows of how workers of this kind recover it has learned from earlier restarts, as a rollout does from its journal. These are drawn
for the purpose of calibration.
"""

from dataclasses import dataclass, field
from functools import lru_cache

from rollout.gating import sequential, windows
from rollout.gating.curves import name_of, named
from rollout.gating.sequential import Kept, Odds, Seen
from rollout.model.gate import Gate, Metric, Ruling, Verdict
from rollout.model.ids import GateId
from rollout.planning.evidence import odds_of
from tests.benchmarks.gates import traces
from tests.benchmarks.gates.seeds import Purpose
from tests.benchmarks.gates.traces import Restart, Scrape

METRICS = (Metric.LATENCY_P95, Metric.ERRORS)
# As many as the journal of a few rollouts holds. Their numbers are far from those on which anything was tuned.
_EARLIER = range(90_000, 90_020)
_UNTIL_S = 360.0


def gate(metric: Metric, odds: float) -> Gate:
    """Return a gate with the defaults of a playbook's entry."""
    return Gate(GateId(metric.value), metric, None, 0.0, None, 30, 30.0, 10.0, 900.0, "pause", "pause", odds)


@dataclass(slots=True)
class Judge:
    """
    Watches one restart.

    As in a rollout, once it has passed only a FAIL is asked for; unless it *rules_on*.
    """

    restart: Restart
    gates: tuple[Gate, ...]
    earlier: tuple[int, ...]
    blocks: tuple[windows.Window, ...] = ()
    kept: dict[Metric, Kept | None] = field(default_factory=dict)
    odds: dict[Metric, Odds | None] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    passed: bool = False
    rules_on: bool = False

    def see(self, scrape: Scrape) -> Ruling:
        now_s = self.restart.admitted_s + scrape.at_s
        if scrape.own is not None:
            self.blocks = windows.extend_blocks(self.blocks, scrape.own, scrape.controls, sequential.BLOCK_S, sequential.BLOCKS_MAX)
        if self.passed:
            return Ruling.FAIL if scrape.own is not None and any(self._fails(one) for one in self.gates) else Ruling.PASS
        self.verdicts = [self._rule(one, now_s, "" if scrape.own is not None else "its metrics page was not read") for one in self.gates]
        rulings = {verdict.ruling for verdict in self.verdicts}
        for ruling in (Ruling.FAIL, Ruling.UNMEASURABLE, Ruling.PENDING):
            if ruling in rulings:
                return ruling
        self.passed = not self.rules_on
        return Ruling.PASS

    def _rule(self, one: Gate, now_s: float, unmeasured: str) -> Verdict:
        odds = self._weigh(one)
        return sequential.rule(one, self.seen(), odds, unmeasured=unmeasured or None, now_s=now_s)

    def _fails(self, one: Gate) -> bool:
        return sequential.fails(one, self._weigh(one))

    def _weigh(self, one: Gate) -> Odds | None:
        self.odds[one.metric], self.kept[one.metric] = sequential.weigh(one, self.seen(), self.kept.get(one.metric), passed=self.passed)
        return self.odds[one.metric]

    def seen(self) -> Seen:
        """Return what its gates are told."""
        return Seen(self.blocks, self.restart.baseline, self.restart.controls_baseline, self.earlier, self.restart.admitted_s)


@dataclass(frozen=True, slots=True)
class Ours:
    """*restarts* is over how many the budget of 1 % is spent; *learns*: whether earlier restarts are known."""

    name: str
    restarts: int = 1
    learns: bool = True

    @property
    def odds(self) -> float:
        """Those at which a gate fails."""
        return odds_of(self.restarts * len(METRICS), 0.01)

    def judge(self, restart: Restart, level: float) -> Judge:
        return Judge(restart, tuple(gate(metric, self.odds) for metric in METRICS), earlier(level) if self.learns else ())


@lru_cache(maxsize=16)
def earlier(level: float) -> tuple[int, ...]:
    """Return by which curves workers with so much traffic recovered before."""
    return named([recovery(traces.trace(Purpose.CALIBRATION, "healthy", level, run)) for run in _EARLIER])


def recovery(restart: Restart) -> str:
    """Name the curve that fits a restart best, as a verdict's evidence has it."""
    judge = Judge(restart, (gate(Metric.LATENCY_P95, 1e9),), (), rules_on=True)
    for scrape in restart.scrapes:
        if scrape.at_s <= _UNTIL_S:
            judge.see(scrape)
    kept = judge.kept[Metric.LATENCY_P95]
    assert kept is not None
    return judge.verdicts[0].evidence.curve or name_of(0)


PER_RESTART = Ours("rollout, 1 % a restart")
PER_ROLLOUT = Ours("rollout, 1 % a rollout of 30", restarts=30)
UNLEARNED = Ours("rollout, first time", learns=False)
