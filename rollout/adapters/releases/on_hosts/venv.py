"""
`venv` on hosts: what rollout.adapters.releases.venv does on this machine, done on every host that carries workers, side by side.

The lock is sent, with those wheels beside it that it names by their hashes, and the host's own Python and pip install it there. Each host
proves its release by itself, and all must have come to the same.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rollout.adapters.places import Places
from rollout.adapters.releases.artefacts import CHECK, MIGRATION, PROBE, named_in, read_lock, room_needed
from rollout.adapters.releases.identifying import base_of, identified
from rollout.adapters.releases.on_hosts.installer import ASK_TIMEOUT_S
from rollout.adapters.releases.on_hosts.looking import LookingOnHosts
from rollout.adapters.releases.on_hosts.settings import WHERE, HostsSettings, check_version, hosts_of, places_of
from rollout.adapters.releases.on_hosts.site import Site
from rollout.adapters.settings import FilePath, check
from rollout.adapters.side_by_side import ask_each
from rollout.agent.jobs import REQUIREMENTS
from rollout.homeservers.synapse.topology import read_modules, read_topology
from rollout.model.codec import load_release, to_plain
from rollout.model.conditions import Room
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.release import Release, make_release
from rollout.ports.acts import Acts

ACT_TIMEOUT_S = 15.0


class VenvHostsSettings(HostsSettings):
    """*locks* holds `<version>.txt`, pip requirements with hashes, on this machine. *shared*: see rollout.adapters.releases.venv."""

    locks: FilePath
    shared: Literal[False] = False


def build(settings: Mapping[str, object], inventory: Inventory) -> "VenvOnHosts":
    """Open the driver; nothing is connected yet. Raises InvalidFileError for settings that don't fit."""
    checked = check(VenvHostsSettings, settings, WHERE)
    places = Places(hosts_of(checked, inventory), checked.connect_timeout_s)
    return VenvOnHosts(Site(places, checked.target, checked.python, places_of(inventory)), checked.locks)


class VenvOnHosts(LookingOnHosts):
    """See ports.releases. For use by several threads."""

    def __init__(self, site: Site, locks: Path) -> None:
        super().__init__(site)
        self._locks = locks

    def identify(self, version: str | None, config_from: str | None, base: ReleaseId, *, next_generation: bool) -> Release:
        """See ports.releases. The configuration is brought to every host under its digest, where nothing uses it yet."""
        known = self._site.prepared()
        old = base_of(known, base, self._site.where)
        if version is not None:
            check_version(version)
        # A version that is named is what its lock says today, also when it runs already from an earlier lock.
        lock = old.artefact_lock if version is None else self._digest_of_lock(version)
        config = old.config_digest if config_from is None else self._site.adopt(Path(config_from))
        return identified(old, version or old.version, lock, config, self._shared(config), known, next_generation=next_generation)

    def identify_first(self, version: str, config_from: Path) -> Release:
        """Identify a release where none is yet."""
        check_version(version)
        config = self._site.adopt(config_from)
        settings = self._shared(config)
        return make_release(version, self._digest_of_lock(version), config, read_modules(settings), 1, read_topology(settings))

    def prepare(self, release: Release, timeout_s: float) -> Release:
        """See ports.releases. On all hosts, side by side; each that fails is named."""
        rooms = self._site.rooms(release, release.artefact_lock[:12])
        self._site.complete_configs(release, rooms)
        lacking = [host for host, room in rooms.items() if not room["release"] and not room["environment"]]
        if lacking:
            self._send_lock(release, [host for host in lacking if not rooms[host]["lock"]], timeout_s)
        done = ask_each(rooms, lambda host: self._prepare_on(host, release, rooms[host]["largest"], timeout_s))
        first, *others = done
        for host in others:
            if done[host] != done[first]:
                raise PermanentDriverError(
                    f"hosts {first} and {host} have made different releases of {release.id}",
                    where=self._site.where,
                    why=f"{_facts(done[first])} on {first}, {_facts(done[host])} on {host}",
                    remedy="the same Python on both",
                )
        return done[first]

    def migrate(self, release: ReleaseId) -> None:
        """See ports.releases. On main's host; OutcomeUnknownError when nothing has been heard from there for ten minutes."""
        host = self._site.hosts[0]
        self._site.must_be_prepared(host, release)
        place = self._site.target / "releases" / release
        argv = [str(place / "venv/bin/python"), *MIGRATION, "--database-config", str(place / "config/homeserver.yaml")]
        self._site.installer(host).do("migrate", {"argv": argv}, None)

    def activate(self, worker: WorkerId, release: ReleaseId) -> None:
        """See ports.releases. OutcomeUnknownError when no answer came after the host was told."""
        self._site.act(worker, self.activate_acts(worker, release), ACT_TIMEOUT_S)

    def activate_acts(self, worker: WorkerId, release: ReleaseId) -> Acts:
        """See ports.acts. For the worker's host, which is asked whether the release is there."""
        self._site.must_be_prepared(self._site.host_of(worker), release)
        return self._site.acts(worker, self._site.link(worker, release))

    def room(self, release: Release) -> Room:
        """See ports.releases. Of the host that has least of it left."""
        rooms = {}
        for host, room in self._site.rooms(release, release.artefact_lock[:12]).items():
            needed = (0, "its environment is there already") if room["environment"] else room_needed(room["largest"])
            rooms[host] = Room(room["free"], *needed)
        return self._site.tightest(rooms)

    def _digest_of_lock(self, version: str) -> str:
        return hashlib.sha256(read_lock(self._locks, version)).hexdigest()

    def _send_lock(self, release: Release, hosts: Sequence[str], timeout_s: float) -> None:
        lock = read_lock(self._locks, release.version)
        if hashlib.sha256(lock).hexdigest() != release.artefact_lock:
            what = f"the lock of {release.version} has changed since the release was identified"
            raise PermanentDriverError(what, where=str(self._locks / f"{release.version}.txt"), remedy="plan again")
        files = {REQUIREMENTS: lock, **named_in(lock, self._locks)}
        place = self._site.target / "locks" / release.artefact_lock[:12]
        ask_each(hosts, lambda host: self._site.store(host, place, files, max(timeout_s, ASK_TIMEOUT_S)))

    def _prepare_on(self, host: str, release: Release, largest: int, timeout_s: float) -> Release:
        needed, basis = room_needed(largest)
        request = {
            "release": to_plain(release),
            "needed": needed,
            "basis": basis,
            # A worker's own file may name what is only on its own host.
            "workers": self._site.workers_on(host),
            "probe": PROBE,
            "check": CHECK,
        }
        said = self._site.installer(host).do("prepare", request, timeout_s)
        return load_release(json.dumps(said["release"]))


def _facts(release: Release) -> str:
    return f"schema {release.schema_version}, compatible back to {release.schema_compat_version}, {len(release.deltas)} deltas"
