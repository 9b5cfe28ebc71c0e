"""The load as a process of its own, so that what measures and what is measured have nothing in common but the machine."""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rollout.lab.load.clients import Clients, Rates
from rollout.lab.load.records import Record, read, write
from rollout.lab.paths import Lab, load_lab
from rollout.lab.processes import wait_until
from rollout.lab.receiver.receipts import Receipts
from rollout.lab.seeding import load_users
from rollout.model.errors import InvalidFileError

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 40.0
SECONDS_MAX = 3600.0
FIRST_CUTS = 20


@dataclass(frozen=True, slots=True)
class LoadReport:
    """
    What a load has seen: every request, and what became of every event sent.

    *lost_events* and *duplicate_events* are those of users; *federated_events* had to arrive at the peer, and the last two are those that
    did not, or more than once. A repeated transaction is no fault: a duplicate there says only that something was tried again.
    """

    records: list[Record]
    sent_events: int
    lost_events: int
    duplicate_events: int
    federated_events: int
    lost_federation_events: int
    duplicate_federation_events: int


class LoadProcess:
    """A load under way. Use as a context manager: leaving ends it, whatever happens."""

    def __init__(self, lab: Lab, out: Path, rates: Rates | None = None) -> None:
        self._lab = lab
        self._out = out
        self._rates = rates or Rates()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it, and return once every user's long-poll is open."""
        self._out.mkdir(parents=True, exist_ok=True)
        live = self._out / "live.json"
        live.unlink(missing_ok=True)
        command = [sys.executable, "-m", "rollout.lab.load", str(self._lab.target), "--out", str(self._out)]
        command += ["--sends", str(self._rates.sends), "--reads", str(self._rates.reads)]
        command += ["--initial-syncs", str(self._rates.initial_syncs), "--main", str(self._rates.main)]
        command += ["--sliding-users", str(self._rates.sliding_users)]
        with (self._out / "load.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(lambda: self.snapshot().get("settled") is True, START_TIMEOUT_S, "the load has settled")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return None if self._process is None else self._process.pid

    def snapshot(self) -> dict[str, Any]:
        """Return the counts of a second ago; empty at first."""
        try:
            found: dict[str, Any] = json.loads((self._out / "live.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return found

    def stop(self) -> LoadReport:
        """Let what was sent arrive, end it, and return what it has seen."""
        if self._process is None:
            msg = "the load is not running"
            raise RuntimeError(msg)
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_TIMEOUT_S)
        return read_report(self._out)


def read_report(out: Path) -> LoadReport:
    """Read what a load has left in its directory. Raises InvalidFileError when it ended without a report."""
    try:
        report = json.loads((out / "report.json").read_text())
    except FileNotFoundError as error:
        raise InvalidFileError("the load ended without a report", where=str(out), why=(out / "load.log").read_text()[-2000:]) from error
    return LoadReport(read(out / "records.jsonl.gz"), *(report[one.name] for one in fields(LoadReport) if one.name != "records"))


def main(arguments: list[str] | None = None) -> int:
    """Run a load until SIGTERM, or for `--seconds`."""
    parser = argparse.ArgumentParser(prog="rollout lab load", description=main.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=SECONDS_MAX)
    usual = Rates()
    parser.add_argument("--sends", type=float, default=usual.sends)
    parser.add_argument("--reads", type=float, default=usual.reads)
    parser.add_argument("--initial-syncs", type=float, default=usual.initial_syncs)
    parser.add_argument("--main", type=float, default=usual.main)
    parser.add_argument("--sliding-users", type=int, default=usual.sliding_users)
    chosen = parser.parse_args(arguments)
    lab = load_lab(chosen.directory)
    if lab is None:
        parser.error(f"there is no lab in {chosen.directory}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    rates = Rates(chosen.sends, chosen.reads, chosen.initial_syncs, chosen.main, chosen.sliding_users)
    return asyncio.run(_run(lab, chosen.out, rates, min(chosen.seconds, SECONDS_MAX)))


async def _run(lab: Lab, out: Path, rates: Rates, seconds: float) -> int:
    users, rooms = load_users(lab)
    clients = Clients(lab.base_url, users, rooms, Receipts(lab.received), rates, seed=1)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, clients.stop)
    loop.call_later(seconds, clients.stop)
    reporter = asyncio.create_task(_report_live(clients, out, len(users), rates.sliding_users))
    await clients.run()
    reporter.cancel()
    write(clients.records, out / "records.jsonl.gz")
    report = _summary(clients) | {"lost": clients.deliveries.missing()[:FIRST_CUTS], "lost_at_peer": clients.federated.lost()[:FIRST_CUTS]}
    _write_whole(out / "report.json", report)
    return 0


async def _report_live(clients: Clients, out: Path, users: int, sliding: int) -> None:
    settled = False
    while True:
        polling = dict(clients.polling)
        # Nearly all at once: at any moment a few have just been answered.
        settled = settled or (polling["sync"] >= 0.9 * users and polling["client"] >= 0.75 * sliding and len(clients.records) > 2 * users)
        _write_whole(out / "live.json", _summary(clients) | {"polling": polling, "settled": settled, "at_s": time.time()})
        await asyncio.sleep(1)


def _summary(clients: Clients) -> dict[str, Any]:
    cut = [record for record in clients.records if record.outcome == "cut"]
    return {
        "requests": len(clients.records),
        "cut_requests": len(cut),
        "release_errors": sum(record.outcome == "release_error" for record in clients.records),
        "client_errors": sum(record.outcome == "client_error" for record in clients.records),
        "first_cuts": [f"{record.ended_s:.2f} {record.pool} {record.kind}: {record.why}" for record in cut[:FIRST_CUTS]],
        "sent_events": clients.deliveries.sent_count,
        "lost_events": len(clients.deliveries.lost()),
        "duplicate_events": len(clients.deliveries.duplicates()),
        "federated_events": clients.federated.sent_count,
        "lost_federation_events": len(clients.federated.lost()),
        "duplicate_federation_events": len(clients.federated.duplicates()),
    }


def _write_whole(path: Path, content: object) -> None:
    half = path.with_suffix(".half")
    half.write_text(json.dumps(content))
    half.rename(path)
