"""
What the tool itself costs: on the machine that it runs on, and in a person's time.

One row a figure, each with its goal, and whether it was met. *cpu* is processor time of the process that is meant and of nothing else: what
answers it (databases, metrics pages) runs in others. Where a figure is taken several times, it is the median.

The last rows are of a real `rollout deploy` on the lab; `without_lab` gives the others.
"""

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median

import yaml

from rollout.adapters.journal.sql import SqlJournal, open_journal
from rollout.deciding.decide import decide
from rollout.engine.deploy import replay
from rollout.engine.survey import Surveyor
from rollout.interfaces.cli import INTERRUPTED
from rollout.lab import cluster
from rollout.lab.artefacts import VERSIONS
from rollout.lab.load.process import LoadProcess
from rollout.lab.paths import Lab
from rollout.lab.tool import Cost, Tool
from rollout.model.errors import TransientDriverError
from rollout.model.event import DeployBegan, Event, WaitBegan
from rollout.model.ids import DeployId, EffectNumber
from rollout.model.plan import Plan
from rollout.planning.planner import make_plan
from rollout.rehearsal.campaign import collect_seldom, rehearse_seed
from rollout.simulation.journal import MemoryJournal
from rollout.simulation.looking import Sight
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse, set_stage
from tests.benchmarks.sweep import sweep
from tests.contracts.database import postgresql
from tests.simulation.stages import PLAYBOOK

# A homeserver of thirty workers, and one larger than any that is known.
THIRTY = {"main": 1, "event_persister": 4, "sync": 10, "client": 10, "federation_sender": 5}
THOUSAND = {"main": 1, "event_persister": 49, "sync": 400, "client": 450, "federation_sender": 100}
EIGHT = {"main": 1, "event_persister": 1, "sync": 2, "client": 3, "federation_sender": 1}
PROXIED = frozenset({"main", "sync", "client"})

# Near its end: of a rollout's lines, what a crash leaves.
CRASHED_AT = 0.95
TIMES = 5
HELPS = 11
EVENTS = 500
REHEARSALS_S = 15.0
SELDOM = PLAYBOOK.baseline.model_copy(update={"sample_s": 10.0})
# What the whole campaign may take in CI.
WHOLE_CAMPAIGN, CAMPAIGN_S = 20_000, 150.0
# From when a deploy has begun to measure the baseline, for so long, it only waits and looks.
WAITS_AFTER_S, WAITS_FOR_S = 15.0, 60.0
# How often the playbook for production measures, and the demo's.
SAMPLE_S, OFTEN_S = 5.0, 1.0
SETTLE_S = 20.0
ROLLOUT_TIMEOUT_S = 900.0
LAB_PLAYBOOK = Path("playbooks/demo.yaml")

Row = dict[str, object]


def measure(place: Path) -> list[Row]:
    """Take all figures."""
    return [*without_lab(place), *_waiting(place)]


def without_lab(place: Path) -> list[Row]:
    """Take those that need no Synapse."""
    place.mkdir(parents=True, exist_ok=True)
    rows = [_help(), _planning(), *_sweeping()]
    stage, events, plan = _crashed()
    with postgresql(place / "postgresql") as server:
        (place / "overhead.db").unlink(missing_ok=True)
        urls = {"SQLite": str(place / "overhead.db"), "PostgreSQL": server.new_database("overhead")}
        for name, url in urls.items():
            journal = open_journal(url)
            rows += [_durable(journal, name, plan), _resume(journal, name, stage, plan, events)]
            journal.close()
    # Last, because they change how garbage is collected here.
    return [*rows, *_rehearsals()]


def _row(what: str, figure: float, unit: str, goal: float, how: str, *, at_least: bool = False) -> Row:
    met = figure >= goal if at_least else figure <= goal
    return {
        "what": what,
        "figure": float(f"{figure:.3g}"),
        "unit": unit,
        "goal": f"{'≥' if at_least else '≤'} {goal:g}",
        "met": "yes" if met else "NO",
        "how": how,
    }


def _detail(what: str, figure: float, unit: str, how: str) -> Row:
    return {"what": what, "figure": float(f"{figure:.3g}"), "unit": unit, "goal": None, "met": None, "how": how}


def _stage(sizes: dict[str, int]) -> Stage:
    roles = {
        f"{role}{number}" if role != "main" else "main": (role, role if role in PROXIED else None)
        for role, count in sizes.items()
        for number in range(1, count + 1)
    }
    return set_stage(roles)


def _help() -> Row:
    """Processor time of `rollout --help`, beyond what Python takes to do nothing."""

    def cpu_s(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # In turns, so that no one of them has the quiet part of the minute for itself.
    pairs = [(cpu_s("-m", "rollout", "--help"), cpu_s("-c", "pass")) for _ in range(HELPS)]
    ours, bare = (median(column) for column in zip(*pairs, strict=True))
    return _row("rollout --help", 1000 * (ours - bare), "ms cpu", 60, f"beyond bare Python's {1000 * bare:.0f} ms; median of {HELPS}")


def _planning() -> Row:
    stage = _stage(THOUSAND)
    seen = Surveyor(stage.drivers, stage.inventory, stage.clock).look(thorough=True)
    release = stage.drivers.releases.identify("2.0.0", None, stage.old.id, next_generation=False)
    times = []
    steps = 0
    for _ in range(TIMES):
        began_s = time.process_time()
        plan = make_plan(PLAYBOOK, stage.inventory, seen, release)
        times.append(time.process_time() - began_s)
        steps = sum(len(wave.steps) for phase in plan.phases for wave in phase.waves)
    return _row("plan for 1,000 workers", median(times), "s cpu", 1, f"{steps} steps; median of {TIMES}")


def _sweeping() -> list[Row]:
    spent, bytes_each = sweep(_stage(THOUSAND))
    whole = _row(
        "sweep of 1,000 metrics pages", spent.pop("all"), "s cpu", 3, f"{bytes_each / 1000:.0f} KB each, over HTTP; to tallies; median of 3"
    )
    return [whole, *(_detail(f"… {phase}", seconds, "s cpu", "") for phase, seconds in spent.items())]


def _rehearsals() -> list[Row]:
    """How many rollouts can be rehearsed. With quick looks the journal is the same as by the long way; sparing ones decide the same."""
    # As each process of a campaign does.
    collect_seldom()
    ways = (("real gates", Sight.SPARING, 100), ("scripted verdicts", Sight.SCRIPTED, 1000))
    rows = []
    for what, sight, goal in ways:
        rate, count = _rate(partial(_rehearse, sight))
        how = f"8 workers, no faults, {sight} looks, {count} times"
        rows.append(_row(f"rehearsals, {what}", rate, "a second and core", goal, how, at_least=True))
    rate, count = _rate(rehearse_seed)
    how = f"with faults, half by quick looks; seeds 0 to {count - 1}; at the goal {WHOLE_CAMPAIGN:,} are {CAMPAIGN_S:.0f} s on two cores"
    rows.append(_row("rehearsals of a campaign", rate, "a second and core", round(WHOLE_CAMPAIGN / 2 / CAMPAIGN_S), how, at_least=True))
    for sight in (Sight.QUICK, Sight.REAL):
        rate, count = _rate(partial(_rehearse, sight))
        rows.append(_detail(f"… real gates, {sight} looks", rate, "a second and core", f"as the first of these, {count} times"))
    return rows


def _rehearse(sight: Sight, _number: int) -> None:
    stage = _stage(EIGHT)
    stage.sight = sight
    if sight is not Sight.REAL:
        # As in a campaign: nobody reads it back.
        stage.journal = MemoryJournal(codec=False)
    # One measurement says all that a script has to say.
    playbook = PLAYBOOK.model_copy(update={"baseline": SELDOM}) if sight is Sight.SCRIPTED else PLAYBOOK
    rehearse(stage, stage.plan(playbook))


def _rate(play: Callable[[int], object]) -> tuple[float, int]:
    """Play one after the other, by number, for a while; how many a second of processor time, and how many."""
    # Whatever is worked out once a process.
    play(0)
    began_s = time.process_time()
    count = 0
    while (took_s := time.process_time() - began_s) < REHEARSALS_S:
        play(count)
        count += 1
    return count / took_s, count


def _crashed() -> tuple[Stage, list[Event], Plan]:
    """Roll thirty workers, and return the lines that a crash near the end leaves."""
    stage = _stage(THIRTY)
    plan = stage.plan(PLAYBOOK)
    rehearse(stage, plan)
    events = [event for _, event in stage.journal.events(DEPLOY)]
    return stage, events[: round(len(events) * CRASHED_AT)], plan


def _durable(journal: SqlJournal, name: str, plan: Plan) -> Row:
    """Append one event at a time, as the loop does with an intent; each is durable before the next."""
    deploy_id = DeployId("durable")
    journal.begin(deploy_id, plan, DeployBegan(0.0, deploy_id, plan.digest, 1, "benchmark", EffectNumber(0)))
    began_s = time.perf_counter()
    for number in range(EVENTS):
        journal.append(deploy_id, [WaitBegan(float(number), "drain", "sync1 has 3 sessions")])
    rate = EVENTS / (time.perf_counter() - began_s)
    return _row(f"durable events, {name}", rate, "a second", 500, f"{EVENTS} transactions of one event each", at_least=True)


def _resume(journal: SqlJournal, name: str, stage: Stage, plan: Plan, events: Sequence[Event]) -> Row:
    """From a journal that is open to the first decision."""
    first, *others = events
    journal.begin(DEPLOY, plan, first)
    journal.append(DEPLOY, others)
    times = []
    for _ in range(TIMES):
        began_s = time.perf_counter()
        known = journal.plan(DEPLOY)
        state = replay(journal, known, DEPLOY)
        decide(known, state, state.last_at_s)
        times.append(time.perf_counter() - began_s)
    count = len(stage.inventory.workers)
    return _row(f"resume of {count} workers, {name}", median(times), "s", 2, f"{len(events)} events; read, fold, decide; median of {TIMES}")


def _waiting(place: Path) -> list[Row]:
    """Roll the lab under load, and look at the process while it measures the baseline and nothing is to be done."""
    directory = place / "lab"
    cluster.down(directory, purge=True, say=lambda _: None)
    try:
        lab = cluster.up(directory, VERSIONS[1], venvs=Path("build/venvs"))
        with LoadProcess(lab, place / "load") as load:
            time.sleep(SETTLE_S)
            seldom, _ = _roll(lab, place, SAMPLE_S, to_its_end=False)
            often, whole = _roll(lab, place, OFTEN_S, to_its_end=True)
            load.stop()
    finally:
        cluster.down(directory)
    how = f"{WAITS_FOR_S:.0f} s of the baseline, 7 workers of the lab, measured every {{:g}} s"
    return [
        _row("deploy while it waits", seldom, "% of a core", 2, f"{how.format(SAMPLE_S)} as by playbooks/synapse-workers.yaml"),
        _detail("… as the demo does", often, "% of a core", how.format(OFTEN_S)),
        _row("deploy, resident at most", whole.rss_mb, "MB", 120, "the whole rollout"),
    ]


def _roll(lab: Lab, place: Path, sample_s: float, *, to_its_end: bool) -> tuple[float, Cost]:
    """Return which share of a core (%) it took to wait, and what the rollout cost as far as it went."""
    playbook = yaml.safe_load(LAB_PLAYBOOK.read_text())
    playbook["baseline"] = {"baseline_s": WAITS_AFTER_S + WAITS_FOR_S, "sample_s": sample_s}
    file = place / f"every-{sample_s:g}-s.yaml"
    file.write_text(yaml.safe_dump(playbook))
    log = file.with_suffix(".log")
    with Tool(lab, file, file.with_suffix(".db")).start("deploy", "--restart", "--yes", log=log) as rollout:
        # It is not over by then, which is all that is asked here.
        with suppress(TransientDriverError):
            rollout.wait(WAITS_AFTER_S)
        earlier = rollout.cost
        with suppress(TransientDriverError):
            rollout.wait(WAITS_FOR_S)
        waited = rollout.cost
        if not to_its_end:
            rollout.process.send_signal(signal.SIGINT)
        code = rollout.wait(ROLLOUT_TIMEOUT_S)
    if code != (0 if to_its_end else INTERRUPTED):
        msg = f"the rollout ended with {code}; see {log}"
        raise RuntimeError(msg)
    return 100 * (waited.cpu_s - earlier.cpu_s) / WAITS_FOR_S, rollout.cost
