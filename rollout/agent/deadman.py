"""
The dead-man: when nobody lives any more who would bring back what is ours, this does, or calls for a person.

It acts as everybody does: under the worker's lock, with the next number, and only if the mark is still the one that it ruled on. So it is
harmless when the tool comes back: whoever comes second is refused.
"""

import http.client
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from rollout.agent import acts
from rollout.agent.book import Book, Claim, Mark
from rollout.agent.fault import LENT, STALE, TRANSIENT, Fault
from rollout.agent.rule import ADMIT, PAGE, WAIT, Out, Ruling, Seen, rule

OWNER = "the dead-man at the target"
WATCH_EVERY_S = 5.0
HEALTH_TIMEOUT_S = 5.0
PAGE_TIMEOUT_S = 10.0
WORKER_WAIT_S = 2.0
ANSWER_BYTES_MAX = 65_536
SECRET_BYTES_MAX = 65_536
OK, OK_END = 200, 300

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Duty:
    """What it watches over: *page* is a reference (`env:NAME`, `file:PATH`) to a webhook's address, "" if nobody can be told."""

    homeserver: str
    readmit_after_s: float
    page: str = ""


def sweep(book: Book, duty: Duty, now_s: float, say: Callable[[str], object]) -> bool:
    """Go through all marks once. Returns whether there is anything left to watch. Raises Fault when the ledger can't be read or written."""
    content = book.read()
    if now_s <= content.alive_until_s:
        return True
    for worker, mark in content.marks.items():
        if now_s < content.lent.get(worker, {}).get("until_s", 0.0):
            # A restart may be under way on its host: it is waited for, and nobody is told that it doesn't answer meanwhile.
            continue
        ruling = rule(out_of(mark), look(mark, content.runs.get(worker)), now_s, content.alive_until_s, duty.readmit_after_s)
        if ruling.do == ADMIT:
            ruling = _admit(book, worker, mark, now_s)
        if ruling.do == WAIT or ruling.state == mark.get("paged"):
            continue
        say(f"{worker}: {ruling.why}")
        owner = content.owners.get(worker, "")
        try:
            page(duty, owner, worker, ruling, now_s)
        except Fault as fault:
            # It is told again by the next sweep.
            say(fault.sentence())
        else:
            book.note_page(worker, mark["number"], ruling.state)
    return bool(book.read().marks)


def watch(book: Book, duty: Duty, say: Callable[[str], object], *, every_s: float = WATCH_EVERY_S) -> None:
    """Sweep again and again, until nobody lives and nothing of ours is out."""
    before = ""
    while True:
        try:
            if not sweep(book, duty, time.time(), say):
                return
            before = ""
        except Fault as fault:
            # The ledger may be readable again later; an empty one would have been an end.
            if fault.sentence() != before:
                before = fault.sentence()
                say(before)
        time.sleep(every_s)


def out_of(mark: Mark) -> Out:
    back = mark.get("back")
    return Out(mark["at_s"], mark.get("condemned"), 0.0 if back is None else back["after_s"], back is not None)


def look(mark: Mark, runs: str | None = None) -> Seen:
    """
    Ask the worker itself, and read its link, as the mark says. One whose link is on another host runs what it was last restarted to run:
    *runs*, by the ledger, None if that isn't known to have been done.
    """
    back = mark.get("back")
    if back is None:
        return Seen(answers=False, why="nobody wrote down where it can be asked", runs=None)
    try:
        code, body = within(HEALTH_TIMEOUT_S, lambda: _ask("GET", back["health"], None, HEALTH_TIMEOUT_S))
        why = "" if code == OK and body else f"answered {code}" if code != OK else "the answer is empty"
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    try:
        runs = runs if back["link"] is None else Path(back["link"]).readlink().name
    except OSError:
        runs = None
    return Seen(not why, why, runs)


def _admit(book: Book, worker: str, mark: Mark, now_s: float) -> Ruling:
    claim = Claim(
        worker, None, owner=OWNER, clears=True, what=f"admits {worker} because nobody lives", of_mark=mark["number"], silent_at_s=now_s
    )
    try:
        with book.acting(claim, WORKER_WAIT_S):
            acts.run(mark["back"]["acts"])
    except Fault as fault:
        if fault.kind in {STALE, LENT} or (fault.kind == TRANSIENT and fault.where == worker):
            return Ruling(WAIT, "busy", fault.sentence())
        return Ruling(PAGE, "failed", f"it answers, and can't be admitted: {fault.sentence()}")
    except Exception as error:  # noqa: BLE001  (nobody else is left who would see it: a watcher that ends here leaves it out without a word)
        return Ruling(PAGE, "failed", f"it answers, and can't be admitted: {type(error).__name__}: {error}")
    return Ruling(ADMIT, "admitted", f"nobody lives who would have done it, so it was admitted again; it was out because: {mark['why']}")


def page(duty: Duty, deploy_id: str, worker: str, ruling: Ruling, now_s: float) -> None:
    """Tell somebody, in the form of rollout's other pages. Raises Fault (TRANSIENT) without the address, which is a secret."""
    if not duty.page:
        return
    admitted = ruling.do == ADMIT
    text = f"{worker}: {ruling.why}"
    severity = "warning" if admitted else "critical"
    what_next = (
        "rollout status"
        if admitted
        else f"{worker} stays out of traffic; look at it, then `rollout resume` or `rollout admit --all --mine`"
    )
    body = {
        "kind": "dead_man",
        "severity": severity,
        "homeserver": duty.homeserver,
        "deploy_id": deploy_id,
        "at_s": now_s,
        "what_next": what_next,
        "at": datetime.fromtimestamp(now_s, tz=timezone.utc).isoformat(timespec="seconds"),  # noqa: UP017  (hosts may have Python 3.10)
        "sentence": text,
        "text": f"[{severity}] {duty.homeserver}, rollout {deploy_id}: {text}\n{what_next}",
    }
    try:
        address = secret(duty.page)
        code, _ = within(PAGE_TIMEOUT_S, lambda: _ask("POST", address, json.dumps(body).encode(), PAGE_TIMEOUT_S))
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Its text may hold the address.
        raise Fault(TRANSIENT, "the webhook could not be reached", where=duty.page, why=type(error).__name__) from None
    if not OK <= code < OK_END:
        raise Fault(TRANSIENT, f"the webhook answered {code}", where=duty.page)


def secret(reference: str) -> str:
    """Return what `env:NAME` or `file:PATH` refers to. Raises ValueError or OSError, which never hold it."""
    kind, _, name = reference.partition(":")
    if kind == "env" and os.environ.get(name):
        return os.environ[name].strip()
    if kind == "file":
        with Path(name).open(encoding="utf-8") as file:
            return file.read(SECRET_BYTES_MAX).strip()
    raise ValueError(reference)


def within(timeout_s: float, do: Callable[[], _Value]) -> _Value:
    """Return what *do* returns, but wait no longer: a timeout of a socket begins anew with every byte. Raises TimeoutError."""
    done: list[_Value] = []
    failed: list[Exception] = []

    def body() -> None:
        try:
            done.append(do())
        except Exception as error:  # noqa: BLE001  (it is raised again below, where somebody waits)
            failed.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError
    return done[0]


def _ask(method: str, address: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
    parts = urlsplit(address)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    if parts.scheme not in kinds or not parts.hostname:
        raise ValueError
    connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=timeout_s)
    try:
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request(method, target, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read1(ANSWER_BYTES_MAX)
    finally:
        connection.close()
