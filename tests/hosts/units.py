"""Small units for tests, installed on hosts of a bed, and the driver that has them as its workers."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from rollout.adapters.workers.systemd_ssh import build
from rollout.adapters.workers.systemd_ssh.driver import SystemdSsh
from rollout.interfaces.sudoers_text import sudoers_text
from rollout.lab.processes import wait_until
from rollout.model.errors import TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from tests.hosts.bed import USER, Bed

TEMPLATE = "worker@{worker}.service"
# Says itself, for as long as it runs, when it began; what `sleep` is told reaches the shell at once.
STEADY = "/bin/sh -c 'date +%%s.%%N >/run/%i.began; trap \"rm /run/%i.began; exit 0\" TERM; sleep 600 & wait'"
FAILING = "/bin/sh -c 'echo reading the configuration; echo binding a port; echo the port is taken >&2; exit 3'"
# Takes longer to end than anybody waits for.
STUBBORN = "/bin/sh -c 'trap \"\" TERM; date +%%s.%%N >/run/%i.began; while true; do sleep 0.2; done'"


def unit(command: str, *, service: Sequence[str] = (), tied: Sequence[str] = ()) -> str:
    """Write a unit's file; lines for its sections come as they are."""
    return "\n".join(["[Unit]", *tied, "[Service]", f"ExecStart={command}", *service, ""])


def install(bed: Bed, host: str, units: Mapping[str, str]) -> None:
    """Put units (file name -> text) onto a host."""
    for name, text in units.items():
        bed.write(host, f"/etc/systemd/system/{name}", text)
    bed.run(host, "systemctl", "daemon-reload")


def settings_for(bed: Bed, **changed: object) -> dict[str, object]:
    """Return the driver's settings for all hosts of a bed; *changed* ones take the place of, or are added to, each host's."""
    return {
        "hosts": {
            name: {
                "address": address,
                "user": USER,
                "identity_file": str(bed.identity_file),
                "known_hosts": str(bed.known_hosts),
                "agent": False,
                **changed,
            }
            for name, address in bed.addresses.items()
        },
        "unit": TEMPLATE,
    }


def driver(settings: Mapping[str, object], places: Mapping[WorkerId, str]) -> SystemdSsh:
    """Open the driver for workers on hosts."""
    return build(settings, inventory(places))


def inventory(places: Mapping[WorkerId, str]) -> Inventory:
    """Make the inventory of a homeserver with these workers."""
    nowhere = {"driver": "none"}
    return Inventory.model_validate(
        {
            "homeserver": "example.org",
            "workers": {
                worker: {"role": "sync", "host": host, "url": "http://localhost:1", "metrics": f"http://localhost:1/{worker}"}
                for worker, host in places.items()
            },
            "workers_driver": nowhere,
            "releases_driver": nowhere,
            "traffic_driver": nowhere,
            "ledger_driver": nowhere,
        }
    )


def allow(bed: Bed, workers: SystemdSsh) -> None:
    """Install on each host the rules that `rollout sudoers` prints."""
    for one in workers.privileges():
        bed.write(one.host, "/etc/sudoers.d/rollout", sudoers_text([one]), "440")


def where(bed: Bed, host: str) -> str:
    """Name a host as errors do."""
    return f"host {host} ({USER}@{bed.addresses[host]})"


def sees(workers: SystemdSsh, worker: WorkerId) -> bool:
    """Tell whether its host answers."""
    with suppress(TransientDriverError):
        return worker in workers.look([worker], 2.0)
    return False


def began_at_s(bed: Bed, host: str, worker: WorkerId) -> float:
    """Tell when the running process says that it began."""
    path = f"/run/{worker}.began"
    wait_until(lambda: bed.run(host, "sh", "-c", f"cat {path} 2>/dev/null || true").strip() != "", 5, f"{worker} has begun")
    return float(bed.run(host, "cat", path))
