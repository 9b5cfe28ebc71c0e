"""
Put a first release where the units look for one: `python first_release.py INVENTORY VERSION CONFIGURATION`.

Once, before the workers are started as these units for the first time. CONFIGURATION is a directory with homeserver.yaml and
workers/NAME.yaml. Workers that have a release already are left alone.
"""

import sys
from pathlib import Path

from rollout.adapters.documents.read import read_inventory
from rollout.adapters.releases.venv import build

TIMEOUT_S = 900.0


def main(inventory_path: str, version: str, configuration: str) -> None:
    """Install the version, let Synapse read every worker's configuration, and link what has no release yet."""
    inventory = read_inventory(Path(inventory_path))
    releases = build(inventory.releases_driver.settings(), inventory)
    release = releases.prepare(releases.identify_first(version, Path(configuration)), TIMEOUT_S)
    known = releases.activations(tuple(inventory.workers))
    for worker in inventory.workers:
        if worker not in known:
            releases.activate(worker, release.id)
            sys.stdout.write(f"{worker} will run {release.id}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
