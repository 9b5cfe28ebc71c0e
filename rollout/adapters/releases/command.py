"""
Releases by the user's own commands: Debian packages, containers whose tag stands in a file, whatever else.

Beside what the commands do, the target on each host has what `venv` has there (see rollout.adapters.releases.venv), but for environments:

```
TARGET/configs/<digest>/     a configuration tree
TARGET/releases/<id>/        a link to it, and release.json, which is there once the release was prepared
TARGET/current/<worker>      what the worker was told to run, and since when; switched after its command has done its work
TARGET/before/<worker>       what it was told before: going back to that is `deactivate`
```

**Done or not.** `version` is asked before and after: what it says already is not done again, and what it doesn't say afterwards was not
done, whatever the command's status. So a command may be repeated although it couldn't stand that by itself, and nothing is believed that
was not seen. Workers of one host may share what is installed: the first one's command changes it for all, and the others' find it done.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from rollout.adapters.asking_sudo import not_allowed
from rollout.adapters.places import Places
from rollout.adapters.releases.commands import CommandSettings, filled, names, unknown_placeholders
from rollout.adapters.releases.identifying import base_of, identified
from rollout.adapters.releases.on_hosts.looking import LookingOnHosts
from rollout.adapters.releases.on_hosts.settings import WHERE, check_version, hosts_of, places_of
from rollout.adapters.releases.on_hosts.site import Site
from rollout.adapters.remote_commands import Argv, so_that
from rollout.adapters.settings import InvalidSettingsError, check
from rollout.adapters.side_by_side import ask_each
from rollout.adapters.ssh_hosts import HostEntry
from rollout.homeservers.synapse.topology import read_modules, read_topology
from rollout.model.codec import load_release, to_plain
from rollout.model.conditions import Room
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.release import Release, make_release
from rollout.ports.acts import Acts
from rollout.ports.privileges import Privileges
from rollout.ports.releases import Activation

BEFORE = "before"
# For the program at the host to begin, and for the links.
ACT_MORE_S = 15.0
_NOT_FOUND = 127


def build(settings: Mapping[str, object], inventory: Inventory) -> "CommandReleases":
    """Open the driver; nothing is connected yet. Raises InvalidFileError for settings that don't fit."""
    checked = check(CommandSettings, settings, WHERE)
    if problems := tuple(unknown_placeholders(checked)):
        raise InvalidSettingsError(WHERE, problems)
    hosts = hosts_of(checked, inventory)
    site = Site(Places(hosts, checked.connect_timeout_s), checked.target, checked.python, places_of(inventory))
    return CommandReleases(site, checked, hosts)


class CommandReleases(LookingOnHosts):
    """See ports.releases. For use by several threads."""

    def __init__(self, site: Site, settings: CommandSettings, hosts: Mapping[str, HostEntry]) -> None:
        super().__init__(site)
        self._settings = settings
        self._entries = hosts

    def identify(self, version: str | None, config_from: str | None, base: ReleaseId, *, next_generation: bool) -> Release:
        """See ports.releases. What a version is, is only known by its name."""
        known = self._site.prepared()
        old = base_of(known, base, self._site.where)
        wanted = version or old.version
        if wanted != old.version:
            self._must_be_available(wanted)
        config = old.config_digest if config_from is None else self._site.adopt(Path(config_from))
        lock = old.artefact_lock if version is None else _lock_of(wanted)
        return identified(old, wanted, lock, config, self._shared(config), known, next_generation=next_generation)

    def identify_first(self, version: str, config_from: Path) -> Release:
        """Identify a release where none is yet."""
        self._must_be_available(version)
        config = self._site.adopt(config_from)
        shared = self._shared(config)
        return make_release(version, _lock_of(version), config, read_modules(shared), 1, read_topology(shared))

    def prepare(self, release: Release, timeout_s: float) -> Release:
        """See ports.releases. On all hosts, side by side; each that fails is named."""
        rooms = self._site.rooms(release, None)
        self._site.complete_configs(release, rooms)
        done = ask_each(rooms, lambda host: self._prepare_on(host, release, timeout_s))
        return next(iter(done.values()))

    def migrate(self, release: ReleaseId) -> None:
        """See ports.releases. On main's host; OutcomeUnknownError when nothing has been heard from there for ten minutes."""
        host = self._site.hosts[0]
        known = self._known(host, release)
        if self._settings.migrate is None:
            what = "there is no command that migrates the database"
            raise PermanentDriverError(what, where=WHERE, remedy="migrate: [...] in the releases_driver")
        argv = filled(self._settings.migrate, version=known.version, config=self._config(known))
        self._site.installer(host).do("migrate", {"argv": argv}, None)

    def activate(self, worker: WorkerId, release: ReleaseId) -> None:
        """See ports.releases. OutcomeUnknownError when the command took too long, or no answer came after the host was told."""
        self._site.act(worker, self.activate_acts(worker, release), 2 * self._settings.timeout_s + ACT_MORE_S)

    def activate_acts(self, worker: WorkerId, release: ReleaseId) -> Acts:
        """See ports.acts. For the worker's host, which is asked what it has."""
        host = self._site.host_of(worker)
        known = self._known(host, release)
        now = self._site.activations([worker]).get(worker)
        before = self._site.activations([worker], BEFORE).get(worker)
        back = self._settings.deactivate if _of(before) == release else None
        argv = back or self._settings.activate
        command = {
            "kind": "command",
            "argv": list(
                so_that(
                    filled(self._settings.version, worker=worker),
                    known.version,
                    filled(argv, version=known.version, worker=worker, config=self._config(known)),
                    # The version says nothing of the configuration that the command was told the last time.
                    always=names(argv, "config") and not self._has_config(host, now, known),
                )
            ),
            "called": f"{'deactivate' if back else 'activate'} ({argv[0]})",
            "timeout_s": self._settings.timeout_s,
        }
        leaves = () if now is None or now.release is None or release in {now.release, _of(before)} else (now.release,)
        # First of all what is left is written down, so that the way back from the middle of it is the way back.
        left = (self._site.link(worker, one, BEFORE) for one in leaves)
        return self._site.acts(worker, *left, command, self._site.link(worker, release))

    def room(self, release: Release) -> Room:
        """See ports.releases. Of the host that has least of it left, where its target is."""
        rooms = {}
        for host, room in self._site.rooms(release, None).items():
            needed = (0, "it is prepared already") if room["release"] else (self._settings.room_bytes, "room_bytes of the releases_driver")
            rooms[host] = Room(room["free"], *needed)
        return self._site.tightest(rooms)

    def privileges(self) -> tuple[Privileges, ...]:
        """See ports.privileges: commands that begin with sudo, as far as they can be written exactly, which one with {version} can't."""
        found = []
        for host in self._site.hosts:
            asked = [argv for key, argv in self._settings.commands().items() if key != "migrate" or host == self._site.hosts[0]]
            roots = [after for argv in asked if (after := _after_sudo(argv)) and not names(after, "version") and not names(after, "config")]
            commands = [filled(argv, worker=worker) for argv in roots for worker in self._site.workers_on(host)]
            if host in self._entries and commands:
                entry = self._entries[host]
                found.append(Privileges(host, entry.spelled(), entry.user, tuple(dict.fromkeys(commands))))
        return tuple(found)

    def not_allowed(self, timeout_s: float) -> tuple[str, ...]:
        """See ports.privileges."""
        return not_allowed(self.privileges(), self._site.at, timeout_s)

    def _config(self, release: Release) -> str:
        return str(self._site.target / "configs" / release.config_digest[:12])

    def _has_config(self, host: str, now: Activation | None, wanted: Release) -> bool:
        """Tell whether the worker was told the configuration of *wanted* already."""
        known = None if now is None or now.release is None else self._site.prepared_on(host).get(now.release)
        return known is not None and known.config_digest == wanted.config_digest

    def _known(self, host: str, release: ReleaseId) -> Release:
        known = self._site.prepared_on(host).get(release)
        if known is None:
            where = f"{self._site.at(host).where}: {self._site.target}"
            raise PermanentDriverError(f"release {release} is not prepared", where=where, remedy="let PREPARE end first")
        return known

    def _must_be_available(self, version: str) -> None:
        check_version(version)
        if self._settings.available is not None:
            argv = filled(self._settings.available, version=version)
            ask_each(self._site.hosts, lambda host: self._ask_whether_available(host, version, argv))

    def _ask_whether_available(self, host: str, version: str, argv: Argv) -> None:
        place = self._site.at(host)
        (said,) = place.run((argv,), self._settings.timeout_s, changes=False)
        if said.status == _NOT_FOUND:
            raise PermanentDriverError(f"`available` can't be run: there is no {argv[0]}", where=place.where, why=said.why)
        if said.status != 0:
            why = said.why or f"{argv[0]} ended with status {said.status}"
            raise PermanentDriverError(f"version {version} is not to be had", where=place.where, why=why)

    def _prepare_on(self, host: str, release: Release, timeout_s: float) -> Release:
        settings = self._settings
        commands: list[Argv] = []
        if settings.prepare is not None:
            values = {"version": release.version, "config": self._config(release)}
            workers = self._site.workers_on(host) if names(settings.prepare, "worker") else [WorkerId("")]
            commands = [filled(settings.prepare, worker=worker, **values) for worker in workers]
        request = {
            "release": to_plain(release),
            "needed": settings.room_bytes,
            "basis": "room_bytes of the releases_driver",
            "commands": commands,
            "schema": None if settings.schema_facts is None else filled(settings.schema_facts, version=release.version),
        }
        said = self._site.installer(host).do("commands", request, timeout_s)
        return load_release(json.dumps(said["release"]))


def _lock_of(version: str) -> str:
    """Name an artefact that is known by its version alone."""
    return hashlib.sha256(f"command {version}".encode()).hexdigest()


def _of(activation: Activation | None) -> ReleaseId | None:
    return None if activation is None else activation.release


def _after_sudo(argv: Argv) -> Argv:
    """Return what root is asked to do; nothing where that can't be told, or is no whole path."""
    if argv[0] not in {"sudo", "/usr/bin/sudo"}:
        return ()
    rest = argv[1:]
    while rest and rest[0] in {"-n", "--non-interactive"}:
        rest = rest[1:]
    rest = rest[1:] if rest and rest[0] == "--" else rest
    return rest if rest and rest[0].startswith("/") else ()
