"""
All hosts with workers: which releases are there, what each worker is told to run, and configurations.

Looking is done with `find`, in one round trip to each host, hosts side by side: it is done every second or so, and a Python would have
to be started for each. A release counts as there when every host has it; what a worker is told to run is asked of its own host.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from rollout.adapters.places import Place, Places, ThisMachine
from rollout.adapters.releases.configuration import Files, digest_of, files_in
from rollout.adapters.releases.on_hosts.installer import ASK_TIMEOUT_S, Installer
from rollout.adapters.remote_commands import Argv, Said
from rollout.adapters.side_by_side import ask_each
from rollout.agent.jobs import MANIFEST
from rollout.model.codec import load_release
from rollout.model.conditions import Room
from rollout.model.errors import DriverError, InvalidFileError, OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.release import Release
from rollout.ports.acts import Act, Acts, at_hosts
from rollout.ports.releases import Activation

# Of a look every second or so; as the process manager has it.
LOOK_TIMEOUT_S = 2.0
LIST_TIMEOUT_S = 10.0
# Signing keys, worker files and templates have some hundred thousand.
CONFIG_BYTES_MAX = 2_000_000
_LINK_FIELDS = 3
_MB = 1_000_000


class Site:
    """*on*: the host of each worker, main's first. For use by several threads."""

    def __init__(self, places: Places, target: Path, python: str, on: Mapping[WorkerId, str]) -> None:
        self._places = places
        self.target = target
        self.on = dict(on)
        self.hosts = tuple(dict.fromkeys(on.values()))
        self._python = python
        self._configurations: dict[str, Files] = {}
        self._lock = Lock()

    @property
    def where(self) -> str:
        return f"{self.target} on {', '.join(self.hosts)}"

    def at(self, host: str) -> Place:
        return self._places.at(host)

    def installer(self, host: str) -> Installer:
        return Installer(self.at(host), self.target, self._python)

    def host_of(self, worker: WorkerId) -> str:
        if worker not in self.on:
            raise PermanentDriverError("the inventory has no worker of this name", where=worker)
        return self.on[worker]

    def workers_on(self, host: str) -> list[WorkerId]:
        return [worker for worker, its in self.on.items() if its == host]

    def close(self) -> None:
        self._places.close()

    def activations(self, workers: Sequence[WorkerId], folder: str = "current") -> dict[WorkerId, Activation]:
        """See ports.releases. Raises DriverError if one of the hosts can't be asked."""
        known = {worker: self.on[worker] for worker in workers if worker in self.on}
        links = ask_each(dict.fromkeys(known.values()), lambda host: self._links(host, folder))
        return {worker: links[host][worker] for worker, host in known.items() if worker in links[host]}

    def _links(self, host: str, folder: str) -> dict[str, Activation]:
        shown = ("-mindepth", "1", "-maxdepth", "1", "-type", "l", "-printf", r"%f\0%T@\0%l\0")
        out = self._found(host, folder, shown, LOOK_TIMEOUT_S)
        fields = out.split("\0")[:-1]
        try:
            return {
                name: Activation(ReleaseId(Path(goal).name), float(at))
                for name, at, goal in (fields[index : index + _LINK_FIELDS] for index in range(0, len(fields), _LINK_FIELDS))
            }
        except ValueError as error:
            where = f"{self.at(host).where}: {self.target / folder}"
            raise TransientDriverError("what the workers are told to run can't be read", where=where, why=str(error)) from error

    def _found(self, host: str, folder: str, expression: Sequence[str], timeout_s: float) -> str:
        """Return what `find` prints below a folder of the target; nothing where there is no such folder."""
        here = str(self.target)
        is_there: Argv = ("find", here, "-mindepth", "1", "-maxdepth", "1", "-name", folder)
        found: Argv = ("find", f"{here}/{folder}", "-ignore_readdir_race", *expression)
        there, said = self.at(host).run((is_there, found), timeout_s, changes=False)
        if there.status == 0 and not there.out.strip():
            return ""
        if there.status != 0 or said.status != 0:
            raise self._unreadable(host, there if there.status != 0 else said)
        return said.out

    def _unreadable(self, host: str, said: Said) -> PermanentDriverError:
        return PermanentDriverError(
            "the target can't be read",
            where=f"{self.at(host).where}: {self.target}",
            why=said.why,
            remedy=f"make it there once, for this account (install -d -o ACCOUNT -g GROUP -m 2750 {self.target})",
        )

    def prepared(self) -> dict[ReleaseId, Release]:
        """See ports.releases. Only what every host has."""
        found = ask_each(self.hosts, self.prepared_on)
        first, *others = (found[host] for host in self.hosts)
        return {release: known for release, known in first.items() if all(release in other for other in others)}

    def prepared_on(self, host: str) -> dict[ReleaseId, Release]:
        # Half-made ones begin with a dot.
        beside = ("-mindepth", "1", "-name", ".*", "-prune")
        expression = ("-maxdepth", "2", *beside, "-o", "-name", MANIFEST, "-exec", "cat", "{}", "+")
        out = self._found(host, "releases", expression, LIST_TIMEOUT_S)
        try:
            releases = [load_release(json.dumps(one)) for one in _documents(out)]
        except (ValueError, InvalidFileError) as error:
            where = f"{self.at(host).where}: {self.target}/releases"
            raise TransientDriverError("the releases there can't be read", where=where, why=str(error)) from error
        return {release.id: release for release in releases}

    def must_be_prepared(self, host: str, release: ReleaseId) -> None:
        """Raise PermanentDriverError when it isn't there."""
        place = self.target / "releases" / release
        (there,) = self.at(host).run((("test", "-f", str(place / MANIFEST)),), LIST_TIMEOUT_S, changes=False)
        if there.status != 0:
            where = f"{self.at(host).where}: {place}"
            raise PermanentDriverError(f"release {release} is not prepared", where=where, remedy="let PREPARE end first")

    def link(self, worker: WorkerId, release: ReleaseId, folder: str = "current") -> dict[str, str]:
        """Write down the switch of a worker's link, as an act."""
        return {"kind": "link", "link": str(self.target / folder / worker), "goal": str(Path("../releases") / release)}

    def acts(self, worker: WorkerId, *acts: Act) -> Acts:
        """Name the worker's host in *acts*, unless that is this machine."""
        host = self.host_of(worker)
        return at_hosts({"" if isinstance(self.at(host), ThisMachine) else host: acts})

    def act(self, worker: WorkerId, acts: Acts, timeout_s: float) -> None:
        """Do *acts* on the worker's host."""
        host = self.host_of(worker)
        try:
            self.installer(host).ask("act", {"acts": list(acts)}, timeout_s, changes=True)
        except OutcomeUnknownError as error:
            what = f"whether it was told what to run is not known: {error.what}"
            raise OutcomeUnknownError(what, where=worker, why=f"{error.where}: {error.why}") from error
        except DriverError as error:
            raise type(error)(error.what, where=worker, why=f"{error.where}\n{error.why}".strip(), remedy=error.remedy) from error

    def adopt(self, source: Path) -> str:
        """Bring a configuration tree to every host, under its digest, and return the digest."""
        files = files_in(source)
        if linked := [path for path in source.rglob("*") if path.is_symlink() and path.is_dir()]:
            what = "a directory of the configuration is a link, and what it holds would not be sent"
            raise PermanentDriverError(what, where=str(linked[0]), remedy="the directory itself")
        digest = digest_of(files)
        size = sum(map(len, files.values()))
        if size > CONFIG_BYTES_MAX:
            what = f"the configuration has {size / _MB:.1f} MB, and {CONFIG_BYTES_MAX / _MB:.0f} MB is the most that is sent to hosts"
            raise PermanentDriverError(what, where=str(source), remedy="a directory with the configuration alone")
        ask_each(self.hosts, lambda host: self._store_config(host, digest, files))
        self._configurations[digest] = files
        return digest

    def _store_config(self, host: str, digest: str, files: Files) -> None:
        self.store(host, self._config(digest), files, ASK_TIMEOUT_S)

    def store(self, host: str, place: Path, files: Files, timeout_s: float) -> None:
        """Have a directory of files at a host, whole or not at all."""
        content = {name: base64.b64encode(content).decode() for name, content in files.items()}
        # That it was stored twice is no matter: it is the same.
        self.installer(host).ask("put", {"place": str(place), "files": content}, timeout_s, changes=False)

    def configuration(self, digest: str) -> Files:
        """Return a configuration's files, from the first host that has it. Raises DriverError."""
        with self._lock:
            if digest not in self._configurations:
                self._configurations[digest] = self._fetched(digest)
            return self._configurations[digest]

    def _fetched(self, digest: str) -> Files:
        why: list[str] = []
        for host in self.hosts:
            try:
                said = self.installer(host).ask("get", {"place": str(self._config(digest))}, ASK_TIMEOUT_S, changes=False)
            except PermanentDriverError as error:
                why.append(f"{error.where}: {error.what}")
                continue
            files = {name: base64.b64decode(content) for name, content in said["files"].items()}
            if digest_of(files) == digest:
                return files
            why.append(f"{self.at(host).where}: its content has been changed since")
        raise PermanentDriverError("the configuration is at no host as it was", where=str(self._config(digest)), why="\n".join(why))

    def rooms(self, release: Release, environment: str | None) -> dict[str, dict[str, Any]]:
        """Say what each host has of a release, and what is free there."""
        lock = release.artefact_lock[:12]
        asked = {"release": release.id, "config": release.config_digest[:12], "environment": environment, "lock": lock}
        return ask_each(self.hosts, lambda host: self.installer(host).ask("room", asked, ASK_TIMEOUT_S, changes=False))

    def complete_configs(self, release: Release, rooms: Mapping[str, Mapping[str, Any]]) -> None:
        """Bring the configuration to hosts that lack it."""
        lacking = [host for host, room in rooms.items() if not room["config"]]
        if lacking:
            files = self.configuration(release.config_digest)
            ask_each(lacking, lambda host: self._store_config(host, release.config_digest, files))

    def tightest(self, rooms: Mapping[str, Room]) -> Room:
        """Return the room of the host that has least of it left."""
        host = min(rooms, key=lambda host: rooms[host].free_bytes - rooms[host].needed_bytes)
        room = rooms[host]
        return room if len(rooms) == 1 else Room(room.free_bytes, room.needed_bytes, f"{room.basis}, on host {host}")

    def _config(self, digest: str) -> Path:
        return self.target / "configs" / digest[:12]


def _documents(text: str) -> list[object]:
    """Read JSON documents, one after the other."""
    decoder, found, index = json.JSONDecoder(), [], 0
    text = text.strip()
    while index < len(text):
        document, index = decoder.raw_decode(text, index)
        found.append(document)
        while index < len(text) and text[index].isspace():
            index += 1
    return found
