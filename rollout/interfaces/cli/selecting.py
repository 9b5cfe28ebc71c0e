"""What to roll to: from options to a plan."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from rollout.adapters.documents.read import read_playbook
from rollout.engine import loading
from rollout.engine.survey import Surveyor
from rollout.interfaces.cli.completion import complete_version
from rollout.interfaces.cli.opening import Opened
from rollout.interfaces.cli.options import DIRECTORY, need_playbook
from rollout.model.errors import InvalidFileError, RefusedError, RolloutError
from rollout.model.ids import ReleaseId, Role, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.load import Load
from rollout.model.plan import Plan, steps_of
from rollout.model.playbook import Playbook
from rollout.model.release import Release
from rollout.model.sighting import Observation, Sighting
from rollout.planning.planner import make_plan
from rollout.planning.standing import judge
from rollout.ports.journal import Journal

# Six windows of a second: enough to tell .4 of a core from .6 where a few requests come each second.
MEASURE_S = 6.0


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for. A version, a directory with a configuration, both, or a restart; *only* and *until* cut the rollout short."""

    to: str | None
    config: Path | None
    restart: bool
    only: Role | None
    until: str | None

    def __bool__(self) -> bool:
        """Tell whether anything was asked for."""
        return bool(self.to or self.config or self.restart or self.only or self.until)


@dataclass(frozen=True, slots=True)
class Measuring:
    """How it becomes known how busy workers are: *seconds* of measuring (0: not at all), and what *journal* says of the others."""

    seconds: float
    journal: Journal | None


def measure_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--measure-s`: how long to look how busy workers are before a plan is made, or believed."""
    return click.option(
        "--measure-s", "measure_s", type=click.FloatRange(min=0, max=600), default=MEASURE_S, envvar="ROLLOUT_MEASURE_S",
        show_envvar=True, show_default=True,
        help="seconds to see how busy workers are, and so whether the others can do without each; 0: as the journal says, if it does",
    )(function)  # fmt: skip


def selectors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that make up a selection; the command gets them as one argument, *selection*."""

    @wraps(function)
    def command(to: str | None, config: Path | None, only: Role | None, until: str | None, *, restart: bool, **others: object) -> Any:  # noqa: ANN401  (whatever the command returns)
        if restart and (to or config):
            raise click.UsageError("--restart keeps version and configuration: it goes with neither --to nor --config")
        return function(selection=Selection(to, config, restart, only, until), **others)

    for option in (
        click.option("--until", metavar="NAME", help="end after `canary`, a role or a worker"),
        click.option("--only", metavar="role=ROLE", callback=_role, help="leave all other roles alone"),
        click.option("--config", type=DIRECTORY, help="a directory with the new configuration"),
        click.option("--restart", is_flag=True, help="the same release again, in new processes"),
        click.option("--to", metavar="VERSION", shell_complete=complete_version, help="the version to roll to"),
    ):
        command = option(command)
    return command


def _role(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Role | None:
    if value is None:
        return None
    kind, _, name = value.partition("=")
    if kind != "role" or not name:
        raise click.BadParameter("write it as role=ROLE")
    return Role(name)


def observe(opened: Opened, playbook: Playbook | None = None, *, once: bool = False) -> Observation:
    """
    Look at everything; whether workers could be warmed only if *playbook* wants it.

    What isn't seen to be well is looked at a second time, as befits whoever refuses for it, unless *once*.
    """
    return _observe(opened, playbook, once=once)[0]


def _observe(opened: Opened, playbook: Playbook | None, *, once: bool = False) -> tuple[Observation, dict[WorkerId, str]]:
    """Say also which of the workers that run can't be measured, and why."""
    surveyor = Surveyor(opened.drivers, opened.inventory, opened.clock)
    # One guard is read from the metrics pages.
    measured = surveyor.measure(tuple(opened.inventory.workers), with_canaries=False)
    seen = surveyor.look(thorough=True) if once else surveyor.look_twice()
    if playbook is not None and playbook.strategy.warm is not None:
        seen = replace(seen, no_warming=surveyor.why_no_warming())
    unmeasured = {worker: why for worker, why in measured.unmeasured.items() if _may_run(seen.sightings.get(worker))}
    sightings = {
        worker: replace(sighting, unseen=(*sighting.unseen, f"its metrics: {unmeasured[worker]}")) if worker in unmeasured else sighting
        for worker, sighting in seen.sightings.items()
    }
    return replace(seen, sightings=sightings), unmeasured


def with_loads(seen: Observation, opened: Opened, measuring: Measuring) -> Observation:
    """Add how busy workers are: measured now, or by the journal where that isn't possible. What is known of nobody isn't there."""
    loads: dict[WorkerId, Load] = {}
    standings = {worker: judge(worker, seen, proxied=entry.pool is not None) for worker, entry in opened.inventory.workers.items()}
    if measuring.journal is not None:
        releases = {worker: standing.release for worker, standing in standings.items() if standing.release is not None}
        # A journal that can't be read is said when it is needed.
        with suppress(RolloutError):
            loads |= loading.from_journal(measuring.journal, opened.inventory.homeserver, releases, opened.clock.now_s())
    if measuring.seconds > 0:
        surveyor = Surveyor(opened.drivers, opened.inventory, opened.clock)
        loads |= loading.measure(surveyor, [worker for worker in standings if _may_run(seen.sightings.get(worker))], measuring.seconds)
    return replace(seen, loads=loads)


def _may_run(sighting: Sighting | None) -> bool:
    return sighting is not None and (sighting.process is None or sighting.process.running)


def playbook_for(opened: Opened, playbook_path: Path | None, selection: Selection) -> Playbook:
    """Read the playbook. Raises InvalidFileError; UsageError when there is none, or when it wasn't said what to roll to."""
    if not (selection.to or selection.config or selection.restart):
        raise click.UsageError("what shall run? --to VERSION, --config DIR, or --restart")
    return read_playbook(need_playbook(playbook_path), opened.inventory)


def plan_for(opened: Opened, playbook: Playbook, selection: Selection, measuring: Measuring) -> Plan:
    """
    Look at the homeserver, measure how busy it is, and plan.

    Raises RefusedError naming what forbids it, be it only that gates and guards would look at what can't be seen; InvalidFileError.
    """
    config = selection.config
    if config is not None and not config.is_dir():
        raise InvalidFileError("there is no such directory", where=str(config), remedy="--config DIR, with homeserver.yaml in it")
    seen, unmeasured = _observe(opened, playbook)
    base = common_release(opened.inventory, seen)
    to = opened.drivers.releases.identify(
        selection.to, None if config is None else str(config.resolve()), base, next_generation=selection.restart
    )
    seen = with_loads(seen, opened, measuring)
    plan = make_plan(playbook, opened.inventory, seen, to, only=selection.only, until=selection.until)
    if blind := [*_blind_gates(plan, unmeasured), *_blind_guards(plan, seen)]:
        what = f"{opened.inventory.homeserver} can't be rolled to {to.id} now"
        raise RefusedError(what, why="\n".join(blind), remedy="settle what is listed, then plan again; nothing was touched")
    return plan


def _blind_gates(plan: Plan, unmeasured: Mapping[WorkerId, str]) -> Iterator[str]:
    gated = dict.fromkeys(step.worker for step in steps_of(plan.phases) if step.gates and step.worker is not None)
    yield from (f"{worker}'s gates would have nothing to look at ({unmeasured[worker]})" for worker in gated if worker in unmeasured)


def _blind_guards(plan: Plan, seen: Observation) -> Iterator[str]:
    unread = {reading.guard: reading.detail for reading in seen.guards if reading.value is None}
    if plan.phases:
        yield from (f"guard {guard.guard} can't be read ({unread[guard.guard]})" for guard in plan.guards if guard.guard in unread)


def plan_back(opened: Opened, playbook_path: Path | None, release: Release, workers: Collection[WorkerId]) -> Plan:
    """Look at the homeserver and plan the way of *workers*, and of nobody else, to a release that is known already."""
    playbook = read_playbook(need_playbook(playbook_path), opened.inventory)
    return make_plan(playbook, opened.inventory, observe(opened, playbook), release, among=workers)


def common_release(inventory: Inventory, seen: Observation) -> ReleaseId:
    """
    Name the release that most workers run: what isn't asked to change stays as it is there.

    Raises RefusedError with what is known of each worker when no worker's release is.
    """
    standings = {worker: judge(worker, seen, proxied=entry.pool is not None) for worker, entry in inventory.workers.items()}
    running = Counter(standing.release for standing in standings.values() if standing.release is not None)
    if not running:
        blockers = "\n".join(blocker for standing in standings.values() for blocker in standing.blockers)
        raise RefusedError(f"what {inventory.homeserver} runs is not known", why=blockers, remedy="rollout status")
    return max(running, key=lambda release: running[release])
