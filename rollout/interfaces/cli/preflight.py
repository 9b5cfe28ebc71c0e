"""`preflight`: whether a rollout could begin now."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import click

from rollout.adapters.documents.read import read_playbook
from rollout.engine.leasing import TIMEOUT_MAX_S
from rollout.engine.readiness import Readiness
from rollout.interfaces.cli.desk import hold
from rollout.interfaces.cli.keeping import goes_with_the_runner
from rollout.interfaces.cli.opening import Opened, open_homeserver, open_user_journal
from rollout.interfaces.cli.options import inventory_option, journal_option, json_option, need_playbook, playbook_option
from rollout.interfaces.cli.selecting import (
    Measuring,
    Selection,
    guards_of,
    identify,
    measure_option,
    question,
    selectors,
    try_to_plan,
    with_loads,
)
from rollout.interfaces.preflight_text import preflight_text
from rollout.interfaces.report.lease import lease_text
from rollout.model.errors import RefusedError, RolloutError
from rollout.model.gate import Measured
from rollout.model.ids import DeployId
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook
from rollout.model.release import Release
from rollout.model.sighting import Observation
from rollout.planning.preflight import Check, Result, of_blockers, of_files, of_grants, of_guards, of_metrics, of_past, of_sudo, of_workers
from rollout.planning.preflight_database import of_database
from rollout.planning.preflight_release import of_release

ABORT = "`rollout status` shows it; `rollout abort` ends it"


@click.command()
@selectors
@click.option("--accept-no-way-back", is_flag=True, help="that after the migration there is only forward is no refusal")
@click.option("--watch", "watch_s", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="measure so long: growth takes 30")
@json_option
@measure_option
@journal_option
@playbook_option
@inventory_option
def preflight(
    inventory_path: Path,
    playbook_path: Path | None,
    journal_place: str | None,
    selection: Selection,
    watch_s: float,
    measure_s: float,
    *,
    accept_no_way_back: bool,
    as_json: bool,
) -> int:
    """
    Look at everything that a rollout needs, and say whether one could begin now. Nothing is touched.

    Asked is for the version or configuration that is named, else for a restart.
    """
    opened = open_homeserver(inventory_path)
    playbook = read_playbook(need_playbook(playbook_path), opened.inventory)
    wanted = selection if selection.to or selection.config else replace(selection, restart=True)
    checks, blockers = _look(opened, playbook, wanted, watch_s, Measuring(measure_s, None), no_way_back=accept_no_way_back)
    checks += [_of_lease(opened), _of_journal(journal_place)]
    checks += of_blockers("\n".join(blockers), checks)
    click.echo(
        json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False) if as_json else preflight_text(checks), nl=as_json
    )
    return RefusedError.exit_code if any(check.refuses for check in checks) else 0


def _look(
    opened: Opened, playbook: Playbook, selection: Selection, watch_s: float, measuring: Measuring, *, no_way_back: bool
) -> tuple[list[Check], list[str]]:
    """Return what was found of the homeserver, and what a planner says forbids the rollout."""
    readiness = Readiness(opened.drivers, opened.inventory, opened.clock, lambda text: click.echo(text, err=True))
    warms, buys = playbook.strategy.warm is not None, playbook.canary_requests is not None
    seen = with_loads(readiness.look(warming=warms, watch_s=watch_s, with_canaries=True, buying=buys), opened, measuring)
    to, plan, blockers = _planned(opened, playbook, selection, seen.observation)
    asked = question(opened.inventory, playbook, readiness.findings(seen, guards_of(playbook), to, thorough=True), to, plan)
    asked = replace(asked, no_way_back=no_way_back)
    checks = [
        *of_workers(opened.inventory, seen.observation),
        *of_metrics(asked),
        *_of_canaries(seen.measured),
        *of_files(asked),
        *of_guards(asked),
        *of_sudo(asked),
        *of_grants(asked),
        *of_database(asked),
        *of_release(asked),
        *of_past(asked),
        *([_of_warming(seen.observation.no_warming)] if warms else []),
        *([_of_buying(seen.observation.no_canaries)] if buys else []),
    ]
    return checks, blockers


def _planned(opened: Opened, playbook: Playbook, selection: Selection, seen: Observation) -> tuple[Release | None, Plan | None, list[str]]:
    try:
        to = identify(opened, selection, seen)
        plan, blockers = try_to_plan(opened.inventory, playbook, selection, seen, to)
    except RefusedError as error:
        return None, None, error.why.splitlines() or [error.what]
    except RolloutError as error:
        return None, None, [_said(error)]
    return to, plan, blockers


def _of_canaries(measured: Measured) -> Iterator[Check]:
    for worker, tally in measured.tallies.items():
        if tally.canary_failures:
            why = "its page can be read, but a canary request to it was not answered"
            yield Check(f"canary to {worker}", Result.NO, why, "the application service of probe_driver, and the worker's log")


def _of_warming(no_warming: str) -> Check:
    if no_warming:
        return Check("warming", Result.NO, no_warming, "warming_driver and database_driver in the inventory, or a playbook without `warm`")
    return Check("warming", Result.OK, "the homeserver knows the application service")


def _of_buying(no_canaries: str) -> Check:
    if no_canaries:
        return Check(
            "canary requests", Result.NO, no_canaries, "as_token and user of probe_driver, or a playbook without `canary_requests`"
        )
    return Check("canary requests", Result.OK, "the homeserver knows the application service and its user")


def _of_lease(opened: Opened) -> Check:
    """Find out whether a rollout would get it. One that has run out is left alone: its holder may only have been stopped for a while."""
    try:
        lease = opened.drivers.lease.read(TIMEOUT_MAX_S)
        if lease is not None and lease.held:
            return Check(
                "lease", Result.OK if lease.free else Result.NO, lease_text(lease, opened.clock.now_s()), "" if lease.free else ABORT
            )
        with hold(opened, "preflight", DeployId("preflight")):
            return Check("lease", Result.OK, "nobody else is at it")
    except RolloutError as error:
        return Check("lease", Result.NO, _said(error), error.remedy)


def _of_journal(place: str | None) -> Check:
    try:
        journal = open_user_journal(place)
        journal.prove()
        goes = goes_with_the_runner(journal.keeping(), os.environ)
    except RolloutError as error:
        return Check("journal", Result.NO, _said(error), error.remedy)
    if goes:
        remedy = "--journal postgresql://…, or a path that outlives the job"
        return Check("journal", Result.WARNING, "it is a file on a CI runner, and goes with it", remedy)
    return Check("journal", Result.OK, "can be written")


def _said(error: RolloutError) -> str:
    return f"{error.what}: {'; '.join(error.why.splitlines())}" if error.why else error.what
