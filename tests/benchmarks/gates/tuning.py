"""
Choose the peers' thresholds, for each level of traffic: `python -m tests.benchmarks.gates.tuning` writes tuned.json.

With hindsight that nobody has in practice: on well restarts of exactly the kind that they are then measured on (other seeds), for about 1 %
that are taken back, over both metrics. Of the settings that keep to it, the one is chosen that finds most of the regressions, of just the
sizes that it will be measured on.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from rollout.model.gate import Ruling
from tests.benchmarks.gates import argo, flagger, kayenta, traces, tuned
from tests.benchmarks.gates.draw import HORIZON_S
from tests.benchmarks.gates.scenarios import LEVELS
from tests.benchmarks.gates.seeds import Purpose
from tests.benchmarks.gates.traces import Restart
from tests.benchmarks.gates.windows import Reading, queries

COMMAND = "python -m tests.benchmarks.gates.tuning"
FALSE_SHARE = 0.01
REGRESSIONS = ("p95 ×1.5", "p95 ×2", "errors 1 %", "errors 5 %")
HEALTHY_RUNS = 1000
REGRESSION_RUNS = 100
# How much of what is allowed may go to errors (latency gets the rest), and how far beyond that their threshold is moved. Looser is often
# better: Flagger adds up the failed checks of both, so a threshold that chance reaches now and then costs latency a lot.
ERRORS_SHARES = ((0.5, 1.0), (0.0, 1.0), (0.0, 2.0), (0.0, 4.0))
# A search by halves of the logarithm, between this and what never fails: to within 1 %.
LEAST = 1e-4
HALVINGS = 11


def main() -> None:
    """Choose and keep."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=main.__doc__)
    parser.add_argument("levels", nargs="*", type=float, default=LEVELS)
    kept: dict[str, Any] = json.loads(tuned.PLACE.read_text()) if tuned.PLACE.exists() else {"settings": {}}
    kept["command"], kept["seeds"] = COMMAND, str(Purpose.CALIBRATION)
    for level in parser.parse_args().levels or LEVELS:
        for gate, chosen in choose(level, HEALTHY_RUNS, REGRESSION_RUNS).items():
            kept["settings"].setdefault(gate, {})[str(level)] = chosen
        tuned.PLACE.write_text(json.dumps(kept, indent=2) + "\n")


def choose(level: float, healthy_runs: int, regression_runs: int) -> dict[str, dict[str, float]]:
    """Return the settings of each peer."""
    seen = {"healthy": _seen("healthy", level, healthy_runs)}
    seen |= {name: _seen(name, level, regression_runs) for name in REGRESSIONS}
    return {"flagger": _flagger(seen), "argo": _argo(seen), "kayenta": _kayenta(seen)}


# What the three see of one restart: everything that their rules decide on.
Seen = tuple[list[Reading], list[Reading], list[kayenta.Look]]
ByScenario = dict[str, list[Seen]]
Limits = TypeVar("Limits")


def _seen(scenario: str, level: float, runs: int) -> list[Seen]:
    return [_looks(traces.trace(Purpose.CALIBRATION, scenario, level, run)) for run in range(runs)]


def _looks(restart: Restart) -> Seen:
    high, low = queries(restart.admitted_s, flagger.QUANTILE), queries(restart.admitted_s, argo.QUANTILE)
    samples = kayenta.samples(restart)
    highs, lows, looks = [], [], []
    for scrape in restart.scrapes:
        high.see(scrape)
        low.see(scrape)
        samples.see(scrape)
        if scrape.at_s % flagger.INTERVAL_S == 0:
            highs.append(high.ask(scrape))
        if scrape.at_s % argo.ERROR_RETRY_S == 0:
            lows.append(low.ask(scrape))
        if scrape.at_s % kayenta.LOOK_S == 0:
            looks.append(samples.look(scrape.at_s))
    return highs, lows, looks


def _flagger(seen: ByScenario) -> dict[str, float]:
    def fails_s(limits: flagger.Limits, one: Seen) -> float:
        rule = flagger.Rule(limits)
        return next((reading.at_s for reading in one[0] if rule.tick(reading) is Ruling.FAIL), math.inf)

    def made(threshold: int, errors: float, latency_s: float) -> flagger.Limits:
        return flagger.Limits(threshold, 1 - errors, latency_s)

    best = _best([partial(made, threshold) for threshold in range(1, 6)], fails_s, seen, 10.0)
    return {"threshold": best.threshold, "success_min": best.success_min, "latency_max_s": best.latency_max_s}


def _argo(seen: ByScenario) -> dict[str, float]:
    def fails_s(limits: argo.Limits, one: Seen) -> float:
        rule = argo.Rule(limits)
        return next((reading.at_s for reading in one[1] if rule.due(reading.at_s) and rule.tick(reading) is Ruling.FAIL), math.inf)

    def made(limit: int, errors: float, latency_s: float) -> argo.Limits:
        return argo.Limits(limit, 1 - errors, latency_s)

    best = _best([partial(made, limit) for limit in range(4)], fails_s, seen, 10.0)
    return {"failure_limit": best.failure_limit, "success_min": best.success_min, "latency_max_s": best.latency_max_s}


def _kayenta(seen: ByScenario) -> dict[str, float]:
    def fails_s(limits: kayenta.Limits, one: Seen) -> float:
        rule = kayenta.Rule(limits)
        return next((look.at_s for look in one[2] if rule.tick(look) is Ruling.FAIL), math.inf)

    def made(errors: float, latency: float) -> kayenta.Limits:
        return kayenta.Limits(latency, errors)

    best = _best([made], fails_s, seen, 2 * kayenta.RATIO_MAX)
    return {"latency_increase": best.latency_increase, "errors_increase": best.errors_increase}


def _best(
    families: Sequence[Callable[[float, float], Limits]], fails_s: Callable[[Limits, Seen], float], seen: ByScenario, high: float
) -> Limits:
    """Try every family of limits (of errors, then of latency up to *high*), and to spend more and less on the errors."""
    candidates = []
    for made in families:
        for spent, slack in ERRORS_SHARES:
            errors = slack * _least(lambda x, made=made: made(x, high), fails_s, seen, high, spent)  # type: ignore[misc]
            latency = _least(lambda x, made=made, errors=errors: made(errors, x), fails_s, seen, high, 1.0)  # type: ignore[misc]
            candidates.append(made(errors, latency))
    return max(candidates, key=lambda limits: _worth(limits, fails_s, seen))


def _worth(limits: Limits, fails_s: Callable[[Limits, Seen], float], seen: ByScenario) -> tuple[int, float]:
    """Count the regressions that are found. Only among equals the sooner ones win: or all would give up the latency for the errors."""
    times_s = [fails_s(limits, one) for name in REGRESSIONS for one in seen[name]]
    return sum(map(math.isfinite, times_s)), -sum(min(time_s, HORIZON_S) for time_s in times_s)


def _least(made: Callable[[float], Limits], fails_s: Callable[[Limits, Seen], float], seen: ByScenario, high: float, spent: float) -> float:
    """Return about the smallest threshold with which no more well workers are taken back than *spent* of what is allowed."""
    allowed, low = spent * FALSE_SHARE * len(seen["healthy"]), LEAST
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        failed = (one for one in seen["healthy"] if fails_s(made(middle), one) < math.inf)
        if len(list(islice(failed, int(allowed) + 1))) > allowed:
            low = middle
        else:
            high = middle
    return float(f"{high:.4g}")


if __name__ == "__main__":
    main()
