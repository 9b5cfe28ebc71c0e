"""`lab` and `demo`: a real cluster on this machine, to try everything on."""

import json
from pathlib import Path

import click

from rollout.interfaces.cli.options import DIRECTORY, FILE, json_option, log_level_option
from rollout.interfaces.report.words import table

_LAB = Path("build/lab")
_DEMO = Path("build/demo")
_VENVS = Path("build/venvs")
_PLAYBOOK = Path("playbooks/demo.yaml")

directory_option = click.option("--dir", "directory", type=DIRECTORY, default=_LAB, show_default=True, help="where the lab lives")


@click.group()
def lab() -> None:
    """
    A real Synapse worker cluster on this machine.

    PostgreSQL, Valkey, HAProxy and seven Synapse processes under supervisord, on any free ports of this machine's own address.
    """


@lab.command()
@directory_option
@click.option("--release", help="which Synapse  [default: the older of those that the lab has]")
@click.option("--venvs", type=DIRECTORY, default=_VENVS, show_default=True, help="installed releases, shared by labs")
@log_level_option
def up(directory: Path, release: str | None, venvs: Path) -> int:
    """Bring it up, or go on where it was left, with users and rooms."""
    from rollout.lab import cluster
    from rollout.lab.artefacts import VERSIONS

    found = cluster.up(directory, release or VERSIONS[0], venvs=venvs, say=click.echo)
    click.echo(f"try: rollout status -i {found.inventory}")
    return 0


@lab.command()
@directory_option
@click.option("--purge", is_flag=True, help="remove its data too")
@log_level_option
def down(directory: Path, *, purge: bool) -> int:
    """End it."""
    from rollout.lab import cluster

    cluster.down(directory, purge=purge, say=click.echo)
    return 0


@lab.command()
@directory_option
@json_option
@log_level_option
def status(directory: Path, *, as_json: bool) -> int:
    """Say which of its programs run."""
    from rollout.lab import cluster

    programs = cluster.status(directory)
    if as_json:
        values = [{"name": one.name, "pid": one.pid, "release": one.release, "healthy": one.healthy} for one in programs]
        click.echo(json.dumps(values, indent=2))
    elif not programs:
        click.echo(f"there is no lab in {directory}")
    else:
        health = {True: "well", False: "no answer", None: ""}
        rows = [(one.name, "not running" if one.pid is None else str(one.pid), one.release or "", health[one.healthy]) for one in programs]
        click.echo(table(("program", "process", "release", "health"), rows))
    return 0


@lab.command()
@directory_option
@click.argument("version")
@log_level_option
def release(directory: Path, version: str) -> int:
    """Make a release that is bad on purpose and install it: 1.163.2+slow, +errors, +crash, +hang, +leak or +config."""
    from rollout.lab import cluster
    from rollout.lab.paths import load_lab
    from rollout.model.errors import InvalidFileError

    found = load_lab(directory)
    if found is None:
        raise InvalidFileError("there is no lab", where=str(directory), remedy=f"rollout lab up --dir {directory}")
    cluster.install(found, version)
    click.echo(f"to roll it out: rollout deploy --to {version}")
    return 0


@lab.command()
@directory_option
@click.option("--out", type=DIRECTORY, help="where its report goes  [default: load/ in the lab's directory]")
@click.option("--seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="for how long; ^C ends it earlier")
@log_level_option
def load(directory: Path, out: Path | None, seconds: float) -> int:
    """Use it as people would, and count every request that is cut."""
    from rollout.lab.load.process import main, read_report
    from rollout.lab.load.records import window
    from rollout.lab.paths import load_lab
    from rollout.model.errors import InvalidFileError

    if load_lab(directory) is None:
        raise InvalidFileError("there is no lab", where=str(directory), remedy=f"rollout lab up --dir {directory}")
    place = out or directory / "load"
    main([str(directory), "--out", str(place), "--seconds", str(seconds)])
    report = read_report(place)
    seen = window(report.records)
    click.echo(
        f"{seen.requests} requests: {seen.cut} cut, {seen.release_errors} server errors, {seen.client_errors} client errors; "
        f"{report.sent_events} events sent: {report.lost_events} lost, {report.duplicate_events} twice; "
        f"{report.federated_events} of them to the peer: {report.lost_federation_events} lost"
    )
    return 0


@click.command()
@click.option("--out", type=DIRECTORY, default=_DEMO, show_default=True, help="where its lab lives, and summary.json is written")
@click.option("-p", "--playbook", type=FILE, default=_PLAYBOOK, show_default=True, help="how to roll")
@click.option("--keep", is_flag=True, help="leave the lab running")
@log_level_option
def demo(out: Path, playbook: Path, *, keep: bool) -> int:
    """Roll a lab of its own to a new release under load, and count what its users noticed."""
    from rollout.lab.demo import run_demo

    return run_demo(out, playbook, keep=keep)
