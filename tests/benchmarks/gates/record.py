"""
Take one restart out of a rollout's journal, as a gate has seen it, for all gates of the benchmark to judge:
`python -m tests.benchmarks.gates.record JOURNAL DEPLOY_ID WORKER OUT.json`, with `--bad` if the release was.

It begins with the worker's baseline and ends when the worker is drained again, or with the rollout. What was measured in between is joined
to scrapes of the benchmark's own length, because its peers look at whole minutes. Nothing in it names a host, a user or a date: times count
from the beginning of the baseline.

A longer last watch makes a longer recording, and one with `until: canary` keeps siblings to compare with. A gate that takes the worker back
ends it: for others to have their time as well, roll with `act: false`.
"""

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from rollout.adapters.journal.sql import open_journal
from rollout.deciding.fold import fold, start
from rollout.deciding.state import DeployState, WorkerState
from rollout.model.event import Event, SamplesTaken
from rollout.model.gate import Measured, Tally
from rollout.model.ids import DeployId, WorkerId
from rollout.model.plan import Plan
from tests.benchmarks.gates.draw import STEP_S
from tests.benchmarks.gates.recorded import ADAPTER
from tests.benchmarks.gates.traces import Restart, Scrape, Truth

# To a tenth of a millisecond, and without spaces: a recording of a quarter of an hour is some tens of kilobytes.
_DIGITS = 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Read a journal and write a recording."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gates.record", description=main.__doc__)
    parser.add_argument("journal", help="as for ROLLOUT_JOURNAL")
    parser.add_argument("deploy_id", type=DeployId, help="as in `rollout history`")
    parser.add_argument("worker", type=WorkerId)
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--bad", action="store_true", help="this release was bad, whatever any gate said of it")
    chosen = parser.parse_args(arguments)
    journal = open_journal(chosen.journal)
    try:
        plan, events = journal.plan(chosen.deploy_id), [event for _, event in journal.events(chosen.deploy_id)]
    finally:
        journal.close()
    restart = recorded(plan, events, chosen.worker, healthy=not chosen.bad)
    if restart is None:
        parser.error(f"{chosen.worker} was not restarted by {chosen.deploy_id}, or had no baseline: there is nothing to judge")
    write(restart, chosen.out)


def recorded(plan: Plan, events: Iterable[Event], worker: WorkerId, *, healthy: bool) -> Restart | None:
    """Return what was seen of the first restart of *worker*; None if it never had its full share again, or there is no baseline."""
    siblings = _siblings(plan, worker)
    surveyed: list[tuple[Tally | None, Tally | None]] = []
    swept: list[tuple[Tally | None, Tally | None]] = []
    state, at_admission = start(plan), None
    for event in events:
        before, state = state, fold(plan, state, event)
        known = state.workers[worker]
        if at_admission is None and known.touched and known.admitted_at_s is not None:
            at_admission = state
        if at_admission is not None and not _as_it_was(known, at_admission.workers[worker]):
            break
        if isinstance(event, SamplesTaken):
            untouched = [sibling for sibling in siblings if not before.workers[sibling].touched]
            sweep = (event.measured.tallies.get(worker), _sum(event.measured, untouched))
            if at_admission is not None:
                swept.append(sweep)
            elif known.baseline is not before.workers[worker].baseline:
                surveyed.append(sweep)
    return None if at_admission is None else _restart(plan, at_admission, worker, surveyed, swept, healthy=healthy)


def _siblings(plan: Plan, worker: WorkerId) -> tuple[WorkerId, ...]:
    """List those that a gate may compare it with: of its pool, and not on the release already."""
    pools = {one.id: one.pool for one in plan.workers}
    pool = pools[worker]
    return tuple(
        one
        for one, its in pools.items()
        if one != worker and pool is not None and its == pool and plan.from_releases.get(one) != plan.to_release.id
    )


def _as_it_was(known: WorkerState, admitted: WorkerState) -> bool:
    return known.admitted_at_s == admitted.admitted_at_s and not known.drained_by_us


def _sum(measured: Measured, workers: Iterable[WorkerId]) -> Tally | None:
    tallies = [measured.tallies[worker] for worker in workers if worker in measured.tallies]
    return reduce(add, tallies) if tallies else None


def _restart(
    plan: Plan,
    state: DeployState,
    worker: WorkerId,
    surveyed: Sequence[tuple[Tally | None, Tally | None]],
    swept: Sequence[tuple[Tally | None, Tally | None]],
    *,
    healthy: bool,
) -> Restart | None:
    known = state.workers[worker]
    own, admitted_at_s = known.baseline, known.admitted_at_s
    if own is None or admitted_at_s is None or not own.requests:
        return None
    theirs = [its for sibling in _siblings(plan, worker) if (its := state.workers[sibling].baseline) is not None]
    pool = reduce(add, theirs) if theirs else None
    zero_s = own.since_s
    scrapes = [mine for mine, _ in surveyed if mine is not None] or [own]
    pool_scrapes = [its for _, its in surveyed if its is not None] or ([] if pool is None else [pool])
    return Restart(
        rate=round(own.requests / (own.until_s - own.since_s), 2),
        admitted_s=admitted_at_s - zero_s,
        baseline=_from(own, zero_s),
        baseline_scrapes=tuple(_from(one, zero_s) for one in _in_steps(scrapes, own.since_s) if one is not None),
        controls_baseline=None if pool is None else _from(pool, zero_s),
        controls_baseline_scrapes=tuple(_from(one, zero_s) for one in _in_steps(pool_scrapes, own.since_s) if one is not None),
        scrapes=_scrapes(swept, admitted_at_s, zero_s),
        truth=Truth(f"recorded, {plan.to_release.version}", healthy),
    )


def _scrapes(swept: Sequence[tuple[Tally | None, Tally | None]], admitted_at_s: float, zero_s: float) -> tuple[Scrape, ...]:
    """Leave out what holds a part of the ramp, as a rollout does."""
    own = _in_steps([mine for mine, _ in swept if mine is not None and mine.since_s >= admitted_at_s], admitted_at_s)
    controls = _in_steps([its for _, its in swept if its is not None and its.since_s >= admitted_at_s], admitted_at_s)
    found = []
    for step in range(max(len(own), len(controls))):
        mine, its = (one[step] if step < len(one) else None for one in (own, controls))
        found.append(
            Scrape((step + 1) * STEP_S, None if mine is None else _from(mine, zero_s), None if its is None else _from(its, zero_s))
        )
    return tuple(found)


def _in_steps(tallies: Sequence[Tally], since_s: float) -> list[Tally | None]:
    """Join those that end within the same step; None where none does."""
    steps: list[Tally | None] = []
    for tally in tallies:
        step = max(0, math.ceil((tally.until_s - since_s) / STEP_S) - 1)
        steps.extend([None] * (step + 1 - len(steps)))
        before = steps[step]
        steps[step] = tally if before is None else before + tally
    return steps


def _from(tally: Tally, zero_s: float) -> Tally:
    """Let its time count from *zero_s*."""
    return replace(tally, since_s=tally.since_s - zero_s, until_s=tally.until_s - zero_s)


def write(restart: Restart, out: Path) -> None:
    """Write a recording, a scrape on each line."""
    plain = _rounded(ADAPTER.dump_python(restart, mode="json", exclude_defaults=True))
    lines = []
    for name, value in plain.items():
        if isinstance(value, list):
            inner = ",\n".join(f"    {_line(one)}" for one in value)
            lines.append(f'  "{name}": [\n{inner}\n  ]' if value else f'  "{name}": []')
        else:
            lines.append(f'  "{name}": {_line(value)}')
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _line(plain: Any) -> str:  # noqa: ANN401  (JSON)
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False)


def _rounded(plain: Any) -> Any:  # noqa: ANN401  (JSON)
    if isinstance(plain, dict):
        return {key: _rounded(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_rounded(one) for one in plain]
    if isinstance(plain, float):
        return int(plain) if plain.is_integer() else round(plain, _DIGITS)
    return plain


if __name__ == "__main__":
    main()
