"""
One way to look at units on hosts, or to restart them, as a process of its own: `python -m tests.benchmarks.ssh_ways WAY WHAT TIMES FILE`.

FILE has the driver's settings and the workers' hosts, as JSON. A restart is what a rollout does to a worker over SSH, all checks on: a look
at everybody, a stop, a start, a look at everybody. The plain loop of Fabric's asks and tells as a script would: one command after another,
`systemctl show` for each unit, stop, start, and `is-active`.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fabric import Config, Connection

from rollout.model.ids import WorkerId
from tests.hosts.units import driver

TIMEOUT_S = 60.0


class Rollout:
    """The driver systemd_ssh."""

    def __init__(self, settings: Mapping[str, Any], places: Mapping[WorkerId, str]) -> None:
        self._driver = driver(settings, places)
        self._workers = list(places)

    def look(self) -> None:
        """Look at everybody."""
        seen = self._driver.look(self._workers, TIMEOUT_S)
        assert all(seen[worker].running for worker in self._workers)

    def restart(self, worker: WorkerId) -> None:
        """Stop one and start it."""
        self.look()
        self._driver.stop(worker, TIMEOUT_S)
        self._driver.start(worker, TIMEOUT_S)
        self.look()


class Loop:
    """Fabric alone, on connections that are *kept*, or on a new one for each command."""

    def __init__(self, settings: Mapping[str, Any], places: Mapping[WorkerId, str], *, kept: bool) -> None:
        self._settings = settings
        self._places = places
        self._kept: dict[str, Connection] | None = {} if kept else None

    def look(self) -> None:
        """Look at everybody."""
        for worker in self._places:
            assert "MainPID=0" not in self._run(worker, "systemctl show --property=ActiveState,MainPID")

    def restart(self, worker: WorkerId) -> None:
        """Stop one and start it."""
        for what in ("stop", "start"):
            self._run(worker, f"sudo -n systemctl {what}")
        assert self._run(worker, "systemctl is-active").strip() == "active"

    def _run(self, worker: WorkerId, command: str) -> str:
        with self._connection(self._places[worker]) as connection:
            said: str = connection.run(f"{command} {self._settings['unit'].replace('{worker}', worker)}", hide=True).stdout
        return said

    @contextmanager
    def _connection(self, host: str) -> Iterator[Connection]:
        if self._kept is None:
            with self._new(host) as connection:
                yield connection
        else:
            yield self._kept.setdefault(host, self._new(host))

    def _new(self, host: str) -> Connection:
        entry = self._settings["hosts"][host]
        key = {"key_filename": entry["identity_file"], "allow_agent": False, "look_for_keys": False}
        return Connection(entry["address"], user=entry["user"], connect_kwargs=key, config=Config({"load_ssh_configs": False}))


def main(way: str, what: str, times: str, file: str) -> None:
    """Do it so many times; of restarts, one worker after the other."""
    given = json.loads(Path(file).read_text())
    settings, places = given["settings"], {WorkerId(worker): host for worker, host in given["places"].items()}
    ways: dict[str, Callable[[], Rollout | Loop]] = {
        "rollout": lambda: Rollout(settings, places),
        "kept": lambda: Loop(settings, places, kept=True),
        "fresh": lambda: Loop(settings, places, kept=False),
    }
    chosen = ways[way]()
    for number in range(int(times)):
        if what == "look":
            chosen.look()
        else:
            chosen.restart(list(places)[number % len(places)])


if __name__ == "__main__":
    main(*sys.argv[1:])
