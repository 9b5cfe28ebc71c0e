"""The ledger and the agent on hosts of a bed."""

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from rollout.adapters.lease.ssh import SshLease
from rollout.adapters.lease.ssh import build as build_lease
from rollout.adapters.ledger.ssh import SshLedger, build
from rollout.interfaces.sudoers_text import sudoers_text
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from tests.hosts.bed import USER, Bed
from tests.hosts.units import inventory, settings_for

DIRECTORY = "/var/lib/rollout"
LEDGER = f"{DIRECTORY}/ledger.json"
TIMER = "rollout-deadman-example.org.timer"


def ledger_on(bed: Bed, host: str = "a", *, user: str = USER, homes: Inventory | None = None, **more: object) -> SshLedger:
    """Open the driver; its ledger is on *host*."""
    given = {"host": host, "path": LEDGER, "hosts": settings_for(bed, user=user)["hosts"], **more}
    return build(given, homes or inventory({WorkerId("sync1"): host}))


def lease_on(bed: Bed, ttl_s: float = 30.0, host: str = "a") -> SshLease:
    """Open the driver of a lease that is on *host*."""
    given = {"host": host, "path": f"{DIRECTORY}/lease.json", "hosts": settings_for(bed)["hosts"], "ttl_s": ttl_s}
    return build_lease(given, inventory({WorkerId("sync1"): host}))


def allow_agent(bed: Bed, ledger: SshLedger) -> None:
    """Make the agent's directory on each host, and install the rules that the ledger's own host needs."""
    for host in bed.addresses:
        bed.run(host, "install", "-d", "-m", "700", "-o", USER, DIRECTORY)
    for one in ledger.privileges():
        bed.write(one.host, "/etc/sudoers.d/rollout-ledger", sudoers_text([one]), "440")


def copy(bed: Bed, host: str, directory: Path, to: str) -> None:
    """Put a whole directory onto a host, which may not see where it lies here."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(directory, ".")
    text = base64.b64encode(packed.getvalue()).decode()
    bed.run(host, "sh", "-c", 'mkdir -p "$0" && base64 -d | tar -xz -C "$0"', to, stdin=text)


def written(bed: Bed, host: str = "a") -> dict[str, Any]:
    """Return the ledger as it is written there."""
    return dict(json.loads(bed.run(host, "cat", LEDGER)))


def armed(bed: Bed, host: str = "a") -> bool:
    """Tell whether systemd itself lists the dead-man's timer."""
    return TIMER in bed.run(host, "systemctl", "list-timers", "--all", "--no-pager")
