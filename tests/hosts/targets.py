"""Directories for releases on hosts of a bed, and the drivers that use them."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rollout.adapters.releases import command
from rollout.adapters.releases.command import CommandReleases
from rollout.adapters.releases.on_hosts import venv
from rollout.adapters.releases.on_hosts.venv import VenvOnHosts
from rollout.model.ids import WorkerId
from tests.hosts.bed import USER, Bed, hosts
from tests.hosts.units import inventory, settings_for

# Room for more than is asked for, and a name that no shell likes.
DISK = "/srv/disk"
SHARED = f"{DISK}/venvs"
DISK_MB = 900
NAME = '-it\'s a "target" $(of) ours;'


def mount(bed: Bed, host: str, path: str, megabytes: int) -> None:
    """Give a host another disk."""
    bed.run(host, "mkdir", "-p", path)
    bed.run(host, "mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "disk", path)


def make(bed: Bed, host: str, path: str) -> None:
    """Make a target there, as docs/releases.md says."""
    bed.run(host, "install", "-d", "-o", USER, "-g", USER, "-m", "2750", path)


def hosts_with_disks(tmp_path_factory: pytest.TempPathFactory, *names: str) -> Iterator[Bed]:
    """Boot hosts, each with a disk for targets and the environments that all of them share on it."""
    with hosts(tmp_path_factory.mktemp("beds"), *names) as bed:
        for host in names:
            mount(bed, host, DISK, DISK_MB)
            make(bed, host, SHARED)
        yield bed


def settings(bed: Bed, target: str, **others: object) -> dict[str, object]:
    return {"target": target, "hosts": settings_for(bed)["hosts"], **others}


def venv_on(bed: Bed, target: str, locks: Path, places: Mapping[WorkerId, str], **others: object) -> VenvOnHosts:
    """Open the driver `venv` for workers on hosts."""
    return venv.build(settings(bed, target, locks=str(locks), **others), inventory(places))


# Software that can be fetched, and installed for each worker by itself. Slow, or short of something, while a file says so.
_SOFT = r"""#!/bin/sh
state=$1; what=$2; shift 2
mkdir -p "$state"
echo "$what $*" >>"$state/done"
[ -e "$state/slow-$what" ] && sleep 6
[ -e "$state/broken-$what" ] && { echo "E: no space left for $*" >&2; exit 100; }
case $what in
available) case $1 in 1.0.0|2.0.0|2.1.0|2.2.0|3.0.0) ;; *) echo "E: Version '$1' was not found" >&2; exit 100 ;; esac ;;
fetch) touch "$state/fetched-$1" ;;
set|back) [ -e "$state/stuck" ] || echo "$2" >"$state/worker-$1" ;;
get) cat "$state/worker-$1" ;;
schema) echo "94 84"; echo "94/01_new.sql" ;;
migrate) sleep 0.1; echo "$1" >>"$state/database" ;;
esac
"""
SOFT = "/usr/local/bin/soft"


def soft_commands(soft: str, state: str) -> dict[str, object]:
    """Say how it is used, as an inventory does."""
    return {
        "version": [soft, state, "get", "{worker}"],
        "available": [soft, state, "available", "{version}"],
        "prepare": [soft, state, "fetch", "{version}"],
        "activate": [soft, state, "set", "{worker}", "{version}"],
        "deactivate": [soft, state, "back", "{worker}", "{version}"],
        "schema_facts": [soft, state, "schema", "{version}"],
        "migrate": [soft, state, "migrate", "{version}"],
        "timeout_s": 20.0,
    }


def soft_here(place: Path) -> str:
    """Write it to this machine."""
    path = place / "soft it's"
    path.write_text(_SOFT)
    path.chmod(0o755)
    return str(path)


def soft_on(bed: Bed, host: str) -> str:
    """Write it to a host."""
    bed.write(host, SOFT, _SOFT, "755")
    return SOFT


def command_on(bed: Bed | None, target: str, places: Mapping[WorkerId, str], **commands: object) -> CommandReleases:
    """Open the driver `command` for workers on hosts, or on this machine."""
    given = {"target": target, "python": sys.executable} if bed is None else settings(bed, target)
    return command.build({**given, **commands}, inventory(places))
