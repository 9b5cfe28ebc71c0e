"""A lab, and `rollout` run on it as an operator would: by its command, with signals, and with nothing in common but files."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rollout.adapters.documents.read import read_inventory
from rollout.engine.drivers import Drivers, open_drivers
from rollout.lab.demo import observe
from rollout.lab.load.clients import Rates
from rollout.lab.load.process import LoadProcess
from rollout.lab.load.records import Record, window
from rollout.lab.paths import WORKERS, Lab
from rollout.lab.processes import wait_until
from rollout.lab.tool import Running, Tool
from rollout.model.ids import WorkerId
from rollout.model.sighting import ProxySighting
from rollout.ports.traffic import Server

PLAYBOOK = Path(__file__).parent / "playbook.yaml"
COMMAND_TIMEOUT_S = 480.0
EVENT_TIMEOUT_S = 120.0
LOOK_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended, and what it printed to stdout and stderr."""

    code: int
    text: str


class Site:
    """One lab with a journal of its own; *place* takes what commands print. *where* goes before commands that run elsewhere."""

    def __init__(
        self,
        lab: Lab,
        place: Path,
        *,
        playbook: Path = PLAYBOOK,
        journal: Path | None = None,
        where: Sequence[str] = (),
        rates: Rates | None = None,
    ) -> None:
        self.lab = lab
        self.place = place
        self.tool = Tool(lab, playbook, journal or place / "journal.db", where)
        self._rates = rates
        self._runs = 0

    @property
    def drivers(self) -> Drivers:
        return open_drivers(read_inventory(self.lab.inventory))

    def start(self, *arguments: str) -> "Command":
        """Start a command; use the answer in a `with` block."""
        self._runs += 1
        log = self.place / f"{self._runs}-{arguments[0]}.log"
        return Command(self.tool.start(*arguments, log=log), log)

    def run(self, *arguments: str) -> Said:
        """Run a command to its end."""
        with self.start(*arguments) as command:
            return command.end()

    def last(self) -> dict[str, Any]:
        """Return the account of the newest rollout."""
        account: dict[str, Any] = self.tool.ask("history")[0]
        return account

    def proxy(self) -> dict[str, ProxySighting]:
        """See all workers behind the proxy."""
        servers = {WorkerId(worker): Server(pool, worker) for worker, (_, pool) in WORKERS.items() if pool is not None}
        return {str(worker): seen for worker, seen in self.drivers.traffic.look(servers, LOOK_TIMEOUT_S).items()}

    def started(self) -> dict[str, float]:
        """Return when each worker's process began, by its own page."""
        return {worker: seen.started_at_s for worker, seen in observe(self.lab).items()}

    def assert_whole(self) -> None:
        """Everybody takes full traffic, and no mark of ours is left."""
        # The proxy looks at a worker twice before it believes that it is up.
        wait_until(lambda: all(seen.up for seen in self.proxy().values()), 15.0, "the proxy has seen everybody up")
        proxy = self.proxy()
        assert {worker: (seen.admitted, seen.up, seen.weight) for worker, seen in proxy.items()} == dict.fromkeys(proxy, (True, True, 100))
        assert self.drivers.ledger.marks() == {}

    @contextmanager
    def load(self) -> Iterator[list[Record]]:
        """Put the lab under load; the list holds what the load saw once the block is left."""
        seen: list[Record] = []
        with LoadProcess(self.lab, self.place / "load", self._rates) as load:
            yield seen
            report = load.stop()
        seen.extend(report.records)
        assert (report.lost_events, report.duplicate_events, report.lost_federation_events) == (0, 0, 0)
        assert report.sent_events > 0


class Command:
    """A command under way."""

    def __init__(self, running: Running, log: Path) -> None:
        self._running = running
        self._log = log

    def __enter__(self) -> Self:
        """Start it."""
        self._running.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Kill it if it still runs."""
        self._running.__exit__(None, None, None)

    def events(self) -> list[dict[str, Any]]:
        """Return the events that it has written so far (`--events ndjson`)."""
        lines = self._log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith('{"kind"') and line.endswith("\n")]

    def await_event(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Return as soon as it has written such an event."""
        end_s = time.monotonic() + EVENT_TIMEOUT_S
        while not any(map(wanted, self.events())):
            assert self._running.process.poll() is None, f"it ended before: {self._log.read_text()}"
            assert time.monotonic() < end_s, f"no such event: {self._log.read_text()}"
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        return self._running.process.pid

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._running.process.send_signal(number)

    def end(self, timeout_s: float = COMMAND_TIMEOUT_S) -> Said:
        """Wait for its end."""
        code = self._running.wait(timeout_s)
        return Said(code, self._log.read_text())


def intent(verb: str, worker: str) -> Callable[[dict[str, Any]], bool]:
    """Match the intent of an effect."""
    return lambda event: event["kind"] == "EffectIntended" and (event["effect"]["verb"], event["effect"]["worker"]) == (verb, worker)


def begun(step: str) -> Callable[[dict[str, Any]], bool]:
    """Match the beginning of a step."""
    return lambda event: event["kind"] == "StepBegan" and event["step_id"] == step


def cut(records: list[Record]) -> list[Record]:
    """Return what was cut or failed at the pools in which a sibling takes over. There must have been requests at all."""
    replaceable = [record for record in records if record.pool in {"sync", "client"}]
    assert window(replaceable).requests > 100
    return [record for record in replaceable if record.outcome not in {"ok", "ended"}]
