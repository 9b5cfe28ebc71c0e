"""`observe` and `gate`: measuring what runs, for a baseline or for a ruling. Nothing is touched."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from rollout.adapters.documents.read import read_playbook
from rollout.engine import judging
from rollout.engine.survey import Surveyor
from rollout.interfaces.cli.completion import complete_worker
from rollout.interfaces.cli.durations import Duration
from rollout.interfaces.cli.opening import Opened, before_anything, open_homeserver, open_user_journal
from rollout.interfaces.cli.options import inventory_option, journal_option, json_option, need_playbook, playbook_option
from rollout.interfaces.report.words import duration
from rollout.model.errors import RefusedError
from rollout.model.gate import Gate, Ruling, Tally, Verdict
from rollout.model.ids import WorkerId
from rollout.planning.evidence import gates_of, odds_of, resolved
from rollout.planning.standing import judge as judge_standing
from rollout.ports.clock import Clock
from rollout.ports.journal import Baseline, Journal

SAMPLE_S = 5.0
DAY_S = 86_400.0
NO_RULING = 7
_CODES = {Ruling.PASS: 0, Ruling.FAIL: 3}
_PROGRESS_EVERY_S = 30.0


@click.command()
@click.option("--for", "seconds", type=Duration(), default="5m", show_default=True, help="how long (90, 90s, 5m, 1h); ^C ends it earlier")
@journal_option
@inventory_option
def observe(inventory_path: Path, journal_place: str | None, seconds: float) -> int:
    """Watch the homeserver as it is, and keep that as the baseline of the next rollout within a day, at about this hour."""
    opened = open_homeserver(inventory_path)
    with before_anything():
        journal = open_user_journal(journal_place)
    surveyor = Surveyor(opened.drivers, opened.inventory, opened.clock)
    standings = {
        worker: judge_standing(worker, seen, proxied=entry.pool is not None)
        for seen in (surveyor.look(thorough=True),)
        for worker, entry in opened.inventory.workers.items()
    }
    found = judging.summed(judging.watch(surveyor, tuple(opened.inventory.workers), seconds, SAMPLE_S, _progress()))
    tallies = {worker: (release, tally) for worker, tally in found.items() if (release := standings[worker].release) is not None}
    if not tallies:
        raise RefusedError("nothing could be measured", remedy="rollout status")
    journal.keep_baseline(Baseline(opened.inventory.homeserver, opened.clock.now_s(), tallies))
    for worker in opened.inventory.workers:
        if worker in tallies:
            tally = tallies[worker][1]
            click.echo(f"{worker}: {tally.requests + tally.polls:.0f} requests in {duration(tally.until_s - tally.since_s)}")
        else:
            click.echo(f"{worker}: not measured, or what it runs isn't known")
    return 0


@click.command()
@click.argument("workers", nargs=-1, metavar="[WORKER]...", shell_complete=complete_worker)
@click.option("--worker", "named", multiple=True, metavar="WORKER", shell_complete=complete_worker, help="likewise; may be given again")
@click.option("--for", "seconds", type=Duration(), help="how long to measure (90, 90s, 5m, 1h)  [default: as long as the longest soak]")
@json_option
@journal_option
@playbook_option
@inventory_option
def gate(
    inventory_path: Path,
    playbook_path: Path | None,
    journal_place: str | None,
    workers: tuple[str, ...],
    named: tuple[str, ...],
    seconds: float | None,
    *,
    as_json: bool,
) -> int:
    """
    Rule on workers as they run now, by the playbook's gates, against what `rollout observe` kept of them in the last day.

    Ends with 0 when all pass, 3 when one fails, and 7 when there is no ruling: no baseline, too few samples, nothing to measure, or a
    WORKER was named that no gate looks at.
    """
    opened = open_homeserver(inventory_path)
    playbook = read_playbook(need_playbook(playbook_path), opened.inventory)
    with before_anything():
        journal = open_user_journal(journal_place)
    chosen = _choose(opened, (*workers, *named))
    entries_of = opened.inventory.workers
    names = {worker: gates_of(entries_of[worker].role, playbook, proxied=entries_of[worker].pool is not None) for worker in chosen}
    # As in a rollout, the budget of false alarms is one for all that are asked together.
    entries = {entry.id: resolved(entry, odds_of(sum(map(len, names.values())), playbook.false_alarms)) for entry in playbook.gates}
    gates = {worker: [entries[name] for name in its] for worker, its in names.items() if its}
    lasting_s = seconds or max((one.soak_s for its in gates.values() for one in its), default=SAMPLE_S) + SAMPLE_S
    surveyor = Surveyor(opened.drivers, opened.inventory, opened.clock)
    kept = _kept(journal, opened)
    lacking = partial(_lacking, gates, kept, opened.clock)
    after = judging.watch(surveyor, tuple(gates), lasting_s, min(SAMPLE_S, lasting_s), _progress(lacking))
    verdicts = judging.judge(gates, after, kept, opened.clock.now_s())
    told = {worker: verdicts.get(worker, []) for worker in chosen}
    _say(told, as_json=as_json)
    # Who was asked for by name is owed a ruling; among all of them there may be some that nothing is measured of.
    return _CODES.get(judging.overall(told if workers or named else verdicts), NO_RULING)


def _choose(opened: Opened, workers: tuple[str, ...]) -> tuple[WorkerId, ...]:
    known = opened.inventory.workers
    for worker in workers:
        if worker not in known:
            raise click.UsageError(f"there is no worker {worker}; there are {', '.join(known)}")
    return tuple(WorkerId(worker) for worker in workers) or tuple(known)


def _kept(journal: Journal, opened: Opened) -> dict[WorkerId, Tally]:
    kept = journal.baselines(opened.inventory.homeserver, opened.clock.now_s() - DAY_S)
    return judging.joined([{worker: tally for worker, (_, tally) in one.tallies.items()} for one in kept])


def _say(verdicts: Mapping[WorkerId, list[Verdict]], *, as_json: bool) -> None:
    if as_json:
        values = {worker: [asdict(verdict) for verdict in its] for worker, its in verdicts.items()}
        click.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    for worker, its in verdicts.items():
        for verdict in its:
            click.echo(f"{worker}: {verdict.gate} {verdict.ruling}: {verdict.because}")
        if not its:
            click.echo(f"{worker}: no gate looks at it")


def _lacking(
    gates: Mapping[WorkerId, Collection[Gate]], kept: Mapping[WorkerId, Tally], clock: Clock, found: Mapping[WorkerId, tuple[Tally, ...]]
) -> list[str]:
    """Say what each gate that has not passed would say now."""
    verdicts = judging.judge(gates, found, kept, clock.now_s()) if found else {}
    return [
        f"  {worker}: {verdict.gate} {verdict.ruling}: {verdict.because}"
        for worker, its in verdicts.items()
        for verdict in its
        if verdict.ruling is not Ruling.PASS
    ]


def _progress(lacking: Callable[[Mapping[WorkerId, tuple[Tally, ...]]], list[str]] | None = None) -> judging.Progress:
    said_s: list[float] = []

    def say(left_s: float, found: Mapping[WorkerId, tuple[Tally, ...]]) -> None:
        if not said_s or said_s[-1] - left_s >= _PROGRESS_EVERY_S:
            said_s.append(left_s)
            lines = [f"measuring for another {duration(left_s)}", *(lacking(found) if lacking is not None else [])]
            click.echo("\n".join(lines), err=True)

    return say
