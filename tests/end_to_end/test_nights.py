"""What happens to a rollout at night: the others, the machine and the parts beneath it. Whatever it is, nothing is cut by our hand."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rollout.lab import database
from rollout.lab.load.records import Record, window
from rollout.lab.processes import Supervisor, listens, wait_until
from tests.end_to_end.site import Command, Site, begun, cut, intent

# Only the pool of the client workers: what is shown is the same for any other, and takes half the time.
CLIENTS = ("deploy", "--restart", "--only", "role=client", "--yes")
# What fails while the database is away fails everywhere, and for some seconds after it is back.
RECOVERY_S = 15.0
DRAIN_SEEN_S = 20.0


@contextmanager
def rolling(site: Site, *arguments: str) -> Iterator[Command]:
    """Roll the client workers, and hand out the command while it runs."""
    with site.start(*arguments, "--events", "ndjson") as command:
        yield command


def test_two_tools_at_once(site: Site, tmp_path_factory: Any) -> None:  # noqa: ANN401  (pytest's own)
    """The second is told who is at it, on which host and why; it has touched nobody, and the first ends as if nothing had been."""
    other = Site(site.lab, tmp_path_factory.mktemp("elsewhere"))
    with site.load() as records, rolling(site, *CLIENTS) as first:
        first.await_event(intent("drain", "client1"))
        second = other.run(*CLIENTS)
        held_by = site.tool.ask("status")["lease"]
        done = first.end()

    assert second.code == 5, second.text
    assert held_by["holder"] in second.text
    assert held_by["host"] in second.text
    assert done.code == 0, done.text
    assert other.tool.ask("history") == []
    site.assert_whole()
    assert cut(records) == []


def test_the_journal_is_deleted_while_a_worker_is_out(site: Site) -> None:
    """Whoever comes next has nothing but what is to be seen: it plans anew, begins with the worker that is out, and ends it."""
    before = site.started()
    with site.load() as records:
        with rolling(site, *CLIENTS) as command:
            command.await_event(intent("restart", "client1"))
            for file in site.place.glob("journal.db*"):
                file.unlink()
            command.send(signal.SIGKILL)
            command.end()
        again = site.run(*CLIENTS)

    assert again.code == 0, again.text
    assert {worker for worker, at_s in site.started().items() if at_s > before[worker]} == {"client1", "client2"}
    assert len(site.tool.ask("history")) == 1
    site.assert_whole()
    assert cut(records) == []


def test_the_proxy_is_reloaded_in_a_drain(site: Site) -> None:
    """A reload forgets what was drained: it is drained again before anything else, and its sessions in the old process are waited for."""
    with site.load() as records:
        with rolling(site, *CLIENTS) as command:
            command.await_event(intent("drain", "client1"))
            wait_until(lambda: not site.proxy()["client1"].admitted, DRAIN_SEEN_S, "client1 is drained")
            Supervisor(site.lab).kill("haproxy", signal.SIGUSR2)
            done = command.end()
        drains = [one for one in command.events() if intent("drain", "client1")(one)]
        restart = next(one for one in command.events() if intent("restart", "client1")(one))

    assert done.code == 0, done.text
    assert len(drains) >= 2, "the reload came too late to show anything"
    assert drains[-1]["effect"]["number"] < restart["effect"]["number"]
    site.assert_whole()
    assert cut(records) == []


def test_valkey_and_postgresql_are_restarted_in_mid_run(site: Site) -> None:
    """While they are away nobody is taken out; what fails then fails by itself, and before and after it nothing is cut."""
    supervisor = Supervisor(site.lab)
    with site.load() as records:
        with rolling(site, *CLIENTS) as command:
            command.await_event(begun("client1/soak"))
            away_s = time.time()
            for name in ("valkey", "postgres"):
                supervisor.stop(name)
            time.sleep(2.0)
            for name in ("valkey", "postgres"):
                supervisor.start(name)
            wait_until(lambda: database.answers(site.lab) and listens(site.lab.ports.valkey), 30, "both are back")
            back_s = time.time()
            done = command.end()
        taken_out_s = [one["at_s"] for one in command.events() if one["kind"] == "EffectIntended" and one["effect"]["verb"] in OUT]

    assert done.code in {0, 3}, done.text
    assert [at_s for at_s in taken_out_s if away_s <= at_s < back_s] == []
    site.assert_whole()
    assert _cut_outside(records, away_s, back_s + RECOVERY_S) == []


OUT = {"drain", "hold", "restart"}


def _cut_outside(records: list[Record], from_s: float, to_s: float) -> list[Record]:
    """Return what was cut at the clients' pool before and after a disturbance that wasn't ours."""
    outside = [record for record in records if record.pool == "client" and not (record.began_s < to_s and record.ended_s >= from_s)]
    assert window(outside).requests > 100
    return [record for record in outside if record.outcome not in {"ok", "ended"}]
