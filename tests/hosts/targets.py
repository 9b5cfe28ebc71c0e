"""Directories for releases on hosts of a bed, and the drivers that use them."""

from collections.abc import Mapping
from pathlib import Path

from rollout.adapters.releases.on_hosts import venv
from rollout.adapters.releases.on_hosts.venv import VenvOnHosts
from rollout.model.ids import WorkerId
from tests.hosts.bed import USER, Bed
from tests.hosts.units import inventory, settings_for

# Room for more than is asked for, and a name that no shell likes.
DISK = "/srv/disk"
DISK_MB = 900
NAME = '-it\'s a "target" $(of) ours;'


def mount(bed: Bed, host: str, path: str, megabytes: int) -> None:
    """Give a host another disk."""
    bed.run(host, "mkdir", "-p", path)
    bed.run(host, "mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "disk", path)


def make(bed: Bed, host: str, path: str) -> None:
    """Make a target there, as docs/releases.md says."""
    bed.run(host, "install", "-d", "-o", USER, "-g", USER, "-m", "2750", path)


def settings(bed: Bed, target: str, **others: object) -> dict[str, object]:
    return {"target": target, "hosts": settings_for(bed)["hosts"], **others}


def venv_on(bed: Bed, target: str, locks: Path, places: Mapping[WorkerId, str], **others: object) -> VenvOnHosts:
    """Open the driver `venv` for workers on hosts."""
    return venv.build(settings(bed, target, locks=str(locks), **others), inventory(places))
