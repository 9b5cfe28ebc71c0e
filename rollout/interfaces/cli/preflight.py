"""`preflight`: whether a rollout could begin now."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from rollout.adapters.documents.read import read_playbook
from rollout.engine.leasing import TIMEOUT_MAX_S
from rollout.engine.survey import Surveyor
from rollout.gating import guards
from rollout.interfaces.cli.desk import hold
from rollout.interfaces.cli.keeping import goes_with_the_runner
from rollout.interfaces.cli.opening import Opened, open_homeserver, open_user_journal
from rollout.interfaces.cli.options import inventory_option, journal_option, json_option, need_playbook, playbook_option
from rollout.interfaces.cli.selecting import common_release
from rollout.interfaces.report.lease import lease_text
from rollout.interfaces.report.words import table
from rollout.model.errors import RefusedError, RolloutError
from rollout.model.gate import Measured
from rollout.model.ids import DeployId
from rollout.model.inventory import Inventory
from rollout.model.plan import Guard
from rollout.model.playbook import Playbook
from rollout.model.sighting import Observation
from rollout.planning.planner import make_plan
from rollout.planning.preflight import Check, of_blockers, of_workers

_WORDS = {True: "ok", False: "no", None: "unknown"}


@click.command()
@json_option
@journal_option
@playbook_option
@inventory_option
def preflight(inventory_path: Path, playbook_path: Path | None, journal_place: str | None, *, as_json: bool) -> int:
    """Look at everything that a rollout needs, and say whether one could begin now. Nothing is touched."""
    opened = open_homeserver(inventory_path)
    playbook = read_playbook(need_playbook(playbook_path), opened.inventory)
    checks = list(_checks(opened, playbook, journal_place))
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False))
    else:
        click.echo(table(("", "checked", ""), [(_WORDS[check.ok], check.name, check.why) for check in checks]))
    return 0 if all(check.ok for check in checks) else RefusedError.exit_code


def _checks(opened: Opened, playbook: Playbook, journal_place: str | None) -> Iterator[Check]:
    surveyor = Surveyor(opened.drivers, opened.inventory, opened.clock)
    workers = tuple(opened.inventory.workers)
    # A page shows that it can be measured when it is read a second time.
    surveyor.measure(workers, with_canaries=True)
    measured = surveyor.measure(workers, with_canaries=True)
    seen = surveyor.look_twice()
    yield from of_workers(opened.inventory, seen)
    yield from _of_metrics(opened.inventory, measured)
    yield from _of_guards(playbook, seen)
    yield _of_lease(opened)
    yield _of_journal(journal_place)
    if playbook.strategy.warm is not None:
        why = surveyor.why_no_warming()
        yield Check("warming", ok=not why, why=why or "the homeserver knows the application service")
    yield from of_blockers(_blockers(opened, playbook, seen))


def _of_metrics(inventory: Inventory, measured: Measured) -> Iterator[Check]:
    for worker in inventory.workers:
        why = measured.unmeasured.get(worker)
        tally = measured.tallies.get(worker)
        if why is None and tally is not None and tally.canary_failures:
            yield Check(f"metrics of {worker}", ok=False, why="its page can be read, but a canary request to it was not answered")
        else:
            yield Check(f"metrics of {worker}", ok=None if why else True, why=why or "can be measured")


def _of_guards(playbook: Playbook, seen: Observation) -> Iterator[Check]:
    for entry in playbook.guards:
        broken = guards.broken((Guard(entry.guard, entry.max, entry.deadline_s),), seen.guards)
        known = any(reading.guard == entry.guard and reading.value is not None for reading in seen.guards)
        yield Check(f"guard {entry.guard}", ok=not broken if known else None, why=broken[0].why if broken else f"at most {entry.max:g}")


def _of_lease(opened: Opened) -> Check:
    """Find out whether a rollout would get it. One that has run out is left alone: its holder may only have been stopped for a while."""
    try:
        lease = opened.drivers.lease.read(TIMEOUT_MAX_S)
        if lease is not None and lease.held:
            return Check("lease", ok=lease.free, why=lease_text(lease, opened.clock.now_s()))
        with hold(opened, "preflight", DeployId("preflight")):
            return Check("lease", ok=True, why="nobody else is at it")
    except RolloutError as error:
        return Check("lease", ok=False, why=f"{error.what}: {error.why}" if error.why else error.what)


def _of_journal(place: str | None) -> Check:
    try:
        journal = open_user_journal(place)
        journal.prove()
        concern = goes_with_the_runner(journal.keeping(), os.environ)
    except RolloutError as error:
        return Check("journal", ok=False, why=f"{error.what}: {error.why}" if error.why else error.what)
    but = "; but it is a file on a CI runner and goes with it: --journal postgresql://…, or a path that outlives the job"
    return Check("journal", ok=True, why="can be written" + (but if concern else ""))


def _blockers(opened: Opened, playbook: Playbook, seen: Observation) -> str:
    """Plan a restart of what runs, and return what forbids it."""
    try:
        base = common_release(opened.inventory, seen)
        to = opened.drivers.releases.identify(None, None, base, next_generation=True)
        make_plan(playbook, opened.inventory, seen, to)
    except RolloutError as error:
        return error.why or error.what
    return ""
