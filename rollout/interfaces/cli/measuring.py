"""`observe` and `gate`: measuring what runs, for a baseline or for a ruling. Nothing is touched."""

import difflib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click
from click.core import ParameterSource

from rollout.adapters.documents.read import read_playbook
from rollout.engine import judging
from rollout.engine.survey import Surveyor
from rollout.interfaces.cli.completion import complete_worker, complete_worker_or_file
from rollout.interfaces.cli.durations import Duration
from rollout.interfaces.cli.opening import Opened, before_anything, open_homeserver, open_user_journal
from rollout.interfaces.cli.options import inventory_option, journal_option, json_option, need_playbook, playbook_option
from rollout.interfaces.report.words import duration
from rollout.model.errors import InvalidFileError, RefusedError
from rollout.model.gate import Gate, Ruling, Tally, Verdict
from rollout.model.ids import GateId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.listing import listed
from rollout.model.playbook import Playbook
from rollout.planning.evidence import gates_of, resolved, spent_on
from rollout.planning.standing import judge as judge_standing
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
    found = judging.summed(judging.watch(surveyor, tuple(opened.inventory.workers), seconds, SAMPLE_S, _progress(), _never))
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
@click.argument("words", nargs=-1, metavar="[PLAYBOOK] [WORKER]...", shell_complete=complete_worker_or_file)
@click.option("--worker", "named", multiple=True, metavar="WORKER", shell_complete=complete_worker, help="another one; may be given again")
@click.option(
    "--for", "seconds", type=Duration(),
    help="how long to measure (90, 90s, 5m, 1h); a FAIL ends it earlier  [default: as long as the longest soak]",
)  # fmt: skip
@json_option
@journal_option
@playbook_option
@inventory_option
def gate(
    inventory_path: Path,
    playbook_path: Path | None,
    journal_place: str | None,
    words: tuple[str, ...],
    named: tuple[str, ...],
    seconds: float | None,
    *,
    as_json: bool,
) -> int:
    """
    Rule on workers as they run now, by the playbook's gates, against what `rollout observe` kept of them in the last day.

    PLAYBOOK is a file, as with --playbook; what is the name of a worker is that WORKER. Without any it is about all of them.

    Ends with 3 as soon as a gate fails, and when the time is up with 0 if all pass, else with 7: there is no ruling, since there is no
    baseline, there were too few samples, nothing could be measured, or a WORKER was named that no gate looks at. What a gate with `act:
    false` says is told, and counts for nothing.
    """
    opened = open_homeserver(inventory_path)
    files, workers = _told_apart(words, named, opened.inventory, inventory_path)
    playbook = read_playbook(_only_one(files, playbook_path), opened.inventory)
    with before_anything():
        journal = open_user_journal(journal_place)
    chosen = workers or tuple(opened.inventory.workers)
    gates = asked(chosen, playbook, opened.inventory)
    lasting_s = seconds or max((one.soak_s for its in gates.values() for one in its), default=SAMPLE_S) + SAMPLE_S
    judge = judging.Judge(gates, _kept(journal, opened), opened.clock)
    surveyor, began_s = Surveyor(opened.drivers, opened.inventory, opened.clock), opened.clock.elapsed_s()
    judging.watch(surveyor, tuple(gates), lasting_s, min(SAMPLE_S, lasting_s), _progress(partial(_lacking, judge)), judge.hear)
    heeded = judge.heeded()
    if failed := [f"{worker} {one.gate}" for worker, its in heeded.items() for one in its if one.ruling is Ruling.FAIL]:
        click.echo(f"failed after {duration(opened.clock.elapsed_s() - began_s)}, so no more is measured: {listed(failed)}", err=True)
    _say({worker: judge.verdicts.get(worker, []) for worker in chosen}, _unheeded(playbook), as_json=as_json)
    # Who was asked for by name is owed a ruling; among all of them there may be some that nothing is measured of.
    return _CODES.get(judging.overall({worker: heeded.get(worker, []) for worker in workers} or heeded), NO_RULING)


def _told_apart(
    words: tuple[str, ...], named: tuple[str, ...], inventory: Inventory, inventory_path: Path
) -> tuple[list[Path], tuple[WorkerId, ...]]:
    """Tell files and workers apart. Raises InvalidFileError for what is neither, and for who is *named* and is no worker."""
    known = inventory.workers
    files = [Path(word) for word in words if word not in known]
    for word in (*named, *map(str, files)):
        if word in known or (word not in named and _is_there(Path(word))):
            continue
        close = difflib.get_close_matches(word, known, n=1)
        raise InvalidFileError(
            f'there is no worker "{word}"' + ("" if word in named else ", and no file of that name"),
            where=str(inventory_path),
            why=f"there are {listed(tuple(known))}",
            remedy=(close[0] if close else "one of them") + ("" if word in named else ", or the path of a playbook"),
        )
    return files, tuple(WorkerId(word) for word in (*words, *named) if word in known)


def _is_there(path: Path) -> bool:
    """Tell whether it is something that can be read; whoever reads it says what forbids that. A pipe is, a directory isn't."""
    try:
        return path.exists() and not path.is_dir()
    except PermissionError:
        return True
    except OSError:
        return False


def _only_one(files: Sequence[Path], playbook_path: Path | None) -> Path:
    """Return the playbook; one that is an argument wins over the environment's. Raises UsageError when there are two, or none."""
    source = click.get_current_context().get_parameter_source("playbook_path")
    given = [*files, *([playbook_path] if playbook_path is not None and source is ParameterSource.COMMANDLINE else [])]
    if len(given) > 1:
        raise click.UsageError(f"one playbook is enough, and there are {listed(tuple(map(str, given)))}")
    return given[0] if given else need_playbook(playbook_path)


def asked(workers: Collection[WorkerId], playbook: Playbook, inventory: Inventory) -> dict[WorkerId, list[Gate]]:
    """Say by which gates each of *workers* is asked; the budget of false alarms is spent as in a rollout of them."""
    entries = {worker: inventory.workers[worker] for worker in workers}
    names = {worker: gates_of(entry.role, playbook, proxied=entry.pool is not None) for worker, entry in entries.items()}
    each = [(worker, name) for worker, its in names.items() for name in its]
    roles = {worker: entry.role for worker, entry in entries.items()}
    gates = spent_on(each, {entry.id: resolved(entry) for entry in playbook.gates}, roles, playbook.false_alarms)
    return {worker: [gates[name] for name in its] for worker, its in names.items() if its}


def _unheeded(playbook: Playbook) -> frozenset[GateId]:
    return frozenset(entry.id for entry in playbook.gates if not entry.act)


def _kept(journal: Journal, opened: Opened) -> dict[WorkerId, Tally]:
    kept = journal.baselines(opened.inventory.homeserver, opened.clock.now_s() - DAY_S)
    return judging.joined([{worker: tally for worker, (_, tally) in one.tallies.items()} for one in kept])


def _say(verdicts: Mapping[WorkerId, list[Verdict]], unheeded: Collection[GateId], *, as_json: bool) -> None:
    if as_json:
        values = {worker: [{**asdict(one), "acts": one.gate not in unheeded} for one in its] for worker, its in verdicts.items()}
        click.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    for worker, its in verdicts.items():
        for verdict in its:
            click.echo(_sentence(worker, verdict, unheeded))
        if all(verdict.gate in unheeded for verdict in its):
            click.echo(f"{worker}: no gate {'that acts ' if its else ''}looks at it")


def _sentence(worker: WorkerId, verdict: Verdict, unheeded: Collection[GateId]) -> str:
    nobody = ", which nobody heeds" if verdict.gate in unheeded else ""
    return f"{worker}: {verdict.gate} {verdict.ruling}{nobody}: {verdict.because}"


def _lacking(judge: judging.Judge, found: judging.Found) -> list[str]:
    """Say what each gate that acts and has not passed says; before anything was measured that goes without saying."""
    if not found:
        return []
    return [
        f"  {_sentence(worker, verdict, ())}"
        for worker, its in judge.heeded().items()
        for verdict in its
        if verdict.ruling is not Ruling.PASS
    ]


def _never(_found: judging.Found) -> bool:
    return False


def _progress(lacking: Callable[[judging.Found], list[str]] | None = None) -> judging.Progress:
    said_s: list[float] = []

    def say(left_s: float, found: judging.Found) -> None:
        if not said_s or said_s[-1] - left_s >= _PROGRESS_EVERY_S:
            said_s.append(left_s)
            lines = [f"measuring for another {duration(left_s)}", *(lacking(found) if lacking is not None else [])]
            click.echo("\n".join(lines), err=True)

    return say
