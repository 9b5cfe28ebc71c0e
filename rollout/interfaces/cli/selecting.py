"""What to roll to: from options to a plan."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from rollout.adapters.documents.read import read_playbook
from rollout.engine import loading
from rollout.engine.readiness import Readiness, Seen, may_run
from rollout.engine.survey import Surveyor
from rollout.engine.timings import forecast_by_history
from rollout.homeservers.synapse import hazards
from rollout.interfaces.cli.completion import complete_version
from rollout.interfaces.cli.opening import Opened
from rollout.interfaces.cli.options import DIRECTORY, need_playbook
from rollout.model.errors import InvalidFileError, RefusedError, RolloutError
from rollout.model.gate import GUARDS_OF_PAGES
from rollout.model.ids import ReleaseId, Role, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.load import Load
from rollout.model.plan import Guard, Plan, steps_of
from rollout.model.playbook import Playbook
from rollout.model.release import Release
from rollout.model.sighting import Observation
from rollout.planning.planner import make_plan
from rollout.planning.preflight import Check, Findings, Question, Result, of_files, of_grants, of_past, of_sudo
from rollout.planning.preflight_database import of_database
from rollout.planning.preflight_release import of_release
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
    if not once:
        return look_for(opened, playbook)[1].observation
    return Readiness(opened.drivers, opened.inventory, opened.clock).look_once()


def look_for(opened: Opened, playbook: Playbook | None) -> tuple[Readiness, Seen]:
    """Look at everything, and keep whom to ask for more."""
    readiness = Readiness(opened.drivers, opened.inventory, opened.clock, lambda text: click.echo(text, err=True))
    warms, buys = (playbook is not None and wish(playbook) is not None for wish in _WISHES)
    return readiness, readiness.look(warming=warms, buying=buys)


# What has to be there only where a playbook wants it.
_WISHES: tuple[Callable[[Playbook], object], ...] = (lambda its: its.strategy.warm, lambda its: its.canary_requests)


def with_loads(seen: Seen, opened: Opened, measuring: Measuring) -> Seen:
    """Add how busy workers are: measured now, or by the journal where that isn't possible. What is known of nobody isn't there."""
    loads: dict[WorkerId, Load] = {}
    looked = seen.observation
    standings = {worker: judge(worker, looked, proxied=entry.pool is not None) for worker, entry in opened.inventory.workers.items()}
    if measuring.journal is not None:
        releases = {worker: standing.release for worker, standing in standings.items() if standing.release is not None}
        # A journal that can't be read is said when it is needed.
        with suppress(RolloutError):
            loads |= loading.from_journal(measuring.journal, opened.inventory.homeserver, releases, opened.clock.now_s())
    if measuring.seconds > 0:
        surveyor = Surveyor(opened.drivers, opened.inventory, opened.clock)
        loads |= loading.measure(surveyor, [worker for worker in standings if may_run(looked.sightings.get(worker))], measuring.seconds)
    return replace(seen, observation=replace(looked, loads=loads))


def playbook_for(opened: Opened, playbook_path: Path | None, selection: Selection) -> Playbook:
    """Read the playbook. Raises InvalidFileError; UsageError when there is none, or when it wasn't said what to roll to."""
    if not (selection.to or selection.config or selection.restart):
        raise click.UsageError("what shall run? --to VERSION, --config DIR, or --restart")
    return read_playbook(need_playbook(playbook_path), opened.inventory)


def plan_for(opened: Opened, playbook: Playbook, selection: Selection, measuring: Measuring, *, thorough: bool) -> Plan:
    """
    Look at the homeserver, measure how busy it is, and plan, with a forecast by what the journal has. *thorough*: see Readiness.findings.

    Raises RefusedError naming everything that forbids it at once, be it only that gates and guards would look at what can't be seen;
    InvalidFileError.
    """
    readiness, seen = look_for(opened, playbook)
    to = identify(opened, selection, seen.observation)
    seen = with_loads(seen, opened, measuring)
    plan, blockers = try_to_plan(opened.inventory, playbook, selection, seen.observation, to)
    if plan is not None and not plan.phases:
        return plan
    blockers = [*blockers, *([] if plan is None else _blind(plan, seen))]
    findings = readiness.findings(seen, guards_of(playbook), to, thorough=thorough)
    checks = list(_checks(question(opened.inventory, playbook, findings, to, plan)))
    blockers += [spelled(check) for check in checks if check.refuses]
    if plan is None or blockers:
        raise _refusal(opened, to, blockers)
    plan = replace(plan, notes=(*plan.notes, *(spelled(check) for check in checks if check.result is Result.WARNING)))
    return with_history(plan, seen.observation, opened, measuring.journal)


def still_ready(opened: Opened, plan: Plan, playbook: Playbook | None, seen: tuple[Readiness, Seen]) -> None:
    """
    Look at what may have come about since *plan* was saved: in the database, on disk, in processes.

    Hazards were weighed when it was made, for these same releases. Raises RefusedError.
    """
    readiness, looked = seen
    findings = readiness.findings(looked, plan.guards, plan.to_release, thorough=True)
    asked = question(opened.inventory, playbook, findings, plan.to_release, plan)
    asked = replace(asked, guards=plan.guards, accepted=tuple(hazards.ids()))
    if blockers := [*_blind(plan, looked), *(spelled(check) for check in _checks(asked) if check.refuses)]:
        raise _refusal(opened, plan.to_release, blockers)


def identify(opened: Opened, selection: Selection, seen: Observation) -> Release:
    """Say what is selected, on top of what runs. Raises RefusedError, DriverError and InvalidFileError."""
    config = selection.config
    if config is not None and not config.is_dir():
        raise InvalidFileError("there is no such directory", where=str(config), remedy="--config DIR, with homeserver.yaml in it")
    base = common_release(opened.inventory, seen)
    to = opened.drivers.releases.identify(
        selection.to, None if config is None else str(config.resolve()), base, next_generation=selection.restart
    )
    # What is prepared already knows its schema.
    return seen.releases.get(to.id, to)


def try_to_plan(
    inventory: Inventory, playbook: Playbook, selection: Selection, seen: Observation, to: Release
) -> tuple[Plan | None, list[str]]:
    """Return the plan, or what forbids it, a line each."""
    try:
        return make_plan(playbook, inventory, seen, to, only=selection.only, until=selection.until), []
    except RefusedError as refusal:
        return None, refusal.why.splitlines()


def guards_of(playbook: Playbook) -> tuple[Guard, ...]:
    return tuple(Guard(entry.guard, entry.max, entry.deadline_s) for entry in playbook.guards)


def question(inventory: Inventory, playbook: Playbook | None, findings: Findings, to: Release | None, plan: Plan | None) -> Question:
    """Put together what is asked. Whether to go where no way leads back from is asked when it is deployed."""
    return Question(
        inventory=inventory,
        guards=() if playbook is None else guards_of(playbook),
        findings=findings,
        to=to,
        plan=plan,
        accepted=() if playbook is None else playbook.accept_hazards,
        background="refuse" if playbook is None else playbook.background_updates,
        no_way_back=True,
    )


def _checks(asked: Question) -> Iterator[Check]:
    """Look at what no plan shows. What the planner says by itself is left out."""
    yield from (check for check in of_files(asked) if check.result is Result.NO)
    yield from of_sudo(asked)
    yield from of_grants(asked)
    yield from of_database(asked)
    yield from (check for check in of_release(asked) if check.name != "way back")
    yield from of_past(asked)


def spelled(check: Check) -> str:
    """Write a check in one line."""
    beside = [f"{word}: {told}" for word, told in (("try", check.remedy), ("see", check.source)) if told]
    return f"{check.name}: {check.why}" + (f" ({'; '.join(beside)})" if beside else "")


def _refusal(opened: Opened, to: Release, blockers: Sequence[str]) -> RefusedError:
    what = f"{opened.inventory.homeserver} can't be rolled to {to.id} now"
    return RefusedError(what, why="\n".join(blockers), remedy="settle what is listed, then plan again; nothing was touched")


def _blind(plan: Plan, seen: Seen) -> list[str]:
    return [*_blind_gates(plan, seen.unmeasured), *_blind_guards(plan, seen.observation)]


def _blind_gates(plan: Plan, unmeasured: Mapping[WorkerId, str]) -> Iterator[str]:
    gated = dict.fromkeys(step.worker for step in steps_of(plan.phases) if step.gates and step.worker is not None)
    yield from (f"{worker}'s gates would have nothing to look at ({unmeasured[worker]})" for worker in gated if worker in unmeasured)


def _blind_guards(plan: Plan, seen: Observation) -> Iterator[str]:
    # What takes time is measured once the rollout has begun, before anybody goes out.
    unread = dict.fromkeys(GUARDS_OF_PAGES.difference(reading.guard for reading in seen.guards), "no metrics page tells it")
    unread |= {reading.guard: reading.detail for reading in seen.guards if reading.value is None and not reading.short}
    if plan.phases:
        yield from (f"guard {guard.guard} can't be read ({unread[guard.guard]})" for guard in plan.guards if guard.guard in unread)


def plan_back(opened: Opened, playbook_path: Path | None, release: Release, workers: Collection[WorkerId], journal: Journal) -> Plan:
    """
    Look at the homeserver and plan the way of *workers*, and of nobody else, to a release that is known already.

    Going back is for when something is wrong, at any hour.
    """
    playbook = read_playbook(need_playbook(playbook_path), opened.inventory).model_copy(update={"windows": None})
    seen = observe(opened, playbook)
    plan = make_plan(playbook, opened.inventory, seen, release, among=workers)
    return with_history(plan, seen, opened, journal)


def with_history(plan: Plan, seen: Observation, opened: Opened, journal: Journal | None) -> Plan:
    """Forecast a plan by what the journal has of earlier rollouts, if there is one."""
    return plan if journal is None else forecast_by_history(opened.drivers, journal, plan, seen, opened.clock.now_s())


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
