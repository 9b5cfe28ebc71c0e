"""
A whole cluster: up, down, status.

`up` goes on from wherever an earlier one ended, so it repairs what is half there. What it starts it ends again if it can't finish.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

from rollout.adapters.releases.venv import VenvReleases
from rollout.lab import database, templates
from rollout.lab.artefacts import VERSIONS, write_locks
from rollout.lab.bad_releases import make_bad_release
from rollout.lab.paths import SERVER_NAME, WORKERS, Lab, create_lab, load_lab
from rollout.lab.processes import Supervisor, listens, status_of, wait_until
from rollout.lab.programs import Programs, find_programs
from rollout.lab.receiver import peer
from rollout.lab.seeding import load_users, seed
from rollout.model.errors import DriverError, InvalidFileError, PermanentDriverError
from rollout.model.ids import WorkerId

INSTALL_TIMEOUT_S = 900.0
BOOT_TIMEOUT_S = 90.0

Progress = Callable[[str], None]


class Runner(Protocol):
    """Who starts programs, and knows what became of them."""

    def start(self, name: str) -> None: ...

    def runs(self, name: str) -> bool: ...

    def last_lines(self, name: str) -> str: ...


class Hosts(Runner, Protocol):
    """Other machines, with all of the lab that its addresses have elsewhere. They see its files where these are."""

    def install(self, lab: Lab, commands: Mapping[str, Sequence[str]]) -> None:
        """Make programs known there, by name."""


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """One program of the lab; *healthy* is None for programs that aren't asked."""

    name: str
    pid: int | None
    release: str | None
    healthy: bool | None


def up(
    directory: Path,
    release: str = VERSIONS[0],
    *,
    venvs: Path | None = None,
    users: int = 40,
    rooms: int = 12,
    say: Progress = print,
    hosts: Hosts | None = None,
) -> Lab:
    """
    Bring a cluster up on *release*, with its users, and return it. *venvs* is a directory to share virtual environments in; *hosts* runs
    what a lab that was created has elsewhere.

    Raises InvalidFileError for a release that the lab doesn't have; DriverError when something doesn't start, with its last words.
    """
    if release not in VERSIONS:
        raise InvalidFileError(f"the lab has no release {release}", why=f"it has {', '.join(VERSIONS)}", remedy=f"--release {VERSIONS[0]}")
    lab = load_lab(directory)
    if lab is None:
        lab = create_lab(directory)
        _forget_earlier(lab)
    lab.runtime.mkdir(exist_ok=True)
    templates.write_secrets(lab)
    write_locks(lab.target / "locks")
    _share(lab, venvs)
    _install(lab, release, say)
    supervisor = Supervisor(lab)
    try:
        _start(lab, find_programs(lab), supervisor, hosts, say)
    except DriverError:
        supervisor.end()
        raise
    lab.inventory.write_text(templates.inventory(lab))
    seed(lab, users, rooms, say)
    peer.join(lab, load_users(lab)[1])
    say(f"the lab is up at {lab.base_url}")
    return lab


def install(lab: Lab, version: str, say: Progress = print) -> None:
    """Install a release, so that a rollout finds it there; a bad one is made first. Raises PermanentDriverError where that can't be."""
    say(f"installing Synapse {version}")
    if version not in VERSIONS:
        make_bad_release(version, lab.target / "locks")
    releases = _releases(lab)
    running = releases.activations([WorkerId("main")])[WorkerId("main")].release
    if running is None:
        raise PermanentDriverError("main runs no release that is known", where=str(lab.target), remedy="rollout lab up")
    releases.prepare(releases.identify(version, None, running, next_generation=False), INSTALL_TIMEOUT_S)


def down(directory: Path, *, purge: bool = False, say: Progress = print) -> None:
    """End everything. With *purge* also remove the directory."""
    lab = load_lab(directory)
    if lab is None:
        say(f"there is no lab in {directory}")
        return
    Supervisor(lab).end()
    if purge:
        shutil.rmtree(lab.runtime, ignore_errors=True)
        shutil.rmtree(lab.target, ignore_errors=True)
    say("the lab is down")


def status(directory: Path) -> list[ProgramStatus]:
    """Say what runs; an empty list when there is no lab."""
    lab = load_lab(directory)
    if lab is None:
        return []
    supervisor = Supervisor(lab)
    pids = supervisor.pids() if supervisor.answers() else {}
    links = _releases(lab).activations([WorkerId(worker) for worker in WORKERS])
    found = []
    for name in ("postgres", "valkey", "haproxy", "receiver", *WORKERS):
        link = links.get(WorkerId(name))
        found.append(ProgramStatus(name, pids.get(name), None if link is None else link.release, _healthy(lab, name)))
    return found


def _healthy(lab: Lab, program: str) -> bool | None:
    if program == "receiver":
        return peer.answers(lab)
    return status_of(f"{lab.url(program)}/health") == 200 if program in WORKERS else None  # noqa: PLR2004


def _forget_earlier(lab: Lab) -> None:
    """A lab whose directory somebody has removed may still run, and has left data behind that fits no other port."""
    Supervisor(lab).end()
    for left in lab.runtime.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def _share(lab: Lab, venvs: Path | None) -> None:
    place = lab.target / "venvs"
    if venvs is not None and not place.exists():
        venvs.mkdir(parents=True, exist_ok=True)
        place.symlink_to(venvs.resolve())


def _releases(lab: Lab) -> VenvReleases:
    return VenvReleases(lab.target, lab.target / "locks", tuple(WorkerId(worker) for worker in WORKERS))


def _install(lab: Lab, version: str, say: Progress) -> None:
    """Prepare the first release and give it to every worker that has none."""
    config = lab.target / "etc/config"
    templates.write_configuration(lab, config)
    releases = _releases(lab)
    workers = [WorkerId(worker) for worker in WORKERS]
    known = releases.activations(workers)
    if len(known) == len(workers):
        return
    (lab.target / "media").mkdir(exist_ok=True)
    say(f"installing Synapse {version}")
    release = releases.prepare(releases.identify_first(version, config), INSTALL_TIMEOUT_S)
    for worker in workers:
        if worker not in known:
            releases.activate(worker, release.id)


def start_stores(lab: Lab, programs: Programs, supervisor: Supervisor, proxy: str, say: Progress) -> None:
    """Launch what runs beside Synapse, with *proxy* as HAProxy's configuration, and bring PostgreSQL and Valkey up. Raises DriverError."""
    etc = lab.target / "etc"
    with resources.as_file(resources.files("rollout.adapters.traffic") / "hold.lua") as hold:
        shutil.copyfile(hold, etc / "hold.lua")
    (etc / "haproxy.cfg").write_text(proxy)
    (etc / "supervisord.conf").write_text(templates.supervisord(lab, programs))
    database.initialise(lab, programs)
    if not supervisor.answers():
        supervisor.launch()
    say("starting PostgreSQL and Valkey")
    supervisor.start("postgres")
    supervisor.start("valkey")
    wait_until(lambda: database.answers(lab), 30, "PostgreSQL answers")
    wait_until(lambda: listens(lab.ports.valkey, lab.addresses.here), 10, "Valkey answers")
    database.create(lab)


def _start(lab: Lab, programs: Programs, supervisor: Supervisor, hosts: Hosts | None, say: Progress) -> None:
    if hosts is not None:
        hosts.install(lab, {name: command for name, (command, _) in programs.commands(lab).items() if name in lab.addresses.elsewhere})

    def runner(name: str) -> Runner:
        return supervisor if hosts is None or name not in lab.addresses.elsewhere else hosts

    start_stores(lab, programs, supervisor, templates.haproxy(lab), say)
    # Early: a sender that doesn't find its peer waits before it tries again.
    supervisor.start("receiver")
    say("starting Synapse")
    # Main first: it creates the schema, without which a worker exits.
    for group in (("main",), tuple(worker for worker in WORKERS if worker != "main")):
        for worker in group:
            runner(worker).start(worker)
        for worker in group:
            _await_healthy(lab, runner(worker), worker)
    database.let_rollout_look(lab, lab.target / "etc/database.dsn")
    runner("haproxy").start("haproxy")
    wait_until(lambda: status_of(f"{lab.base_url}/_matrix/client/versions") == 200, 15, f"{SERVER_NAME} answers through its proxy")  # noqa: PLR2004
    wait_until(lambda: status_of(f"{lab.base_url}/_matrix/client/v3/sync") == 401, 15, "sync workers answer through the proxy")  # noqa: PLR2004
    wait_until(lambda: peer.answers(lab), 15, "the receiver answers")


def _await_healthy(lab: Lab, runner: Runner, worker: str) -> None:
    url = f"{lab.url(worker)}/health"

    def healthy_or_gone() -> bool:
        return status_of(url) == 200 or not runner.runs(worker)  # noqa: PLR2004

    wait_until(healthy_or_gone, BOOT_TIMEOUT_S, f"{worker} answers")
    if status_of(url) != 200:  # noqa: PLR2004
        raise DriverError(f"{worker} ended while starting", where=worker, why=runner.last_lines(worker))
