"""
Compare, store and act at the target, in one go; and look after what is ours when nobody lives any more.

```
agent.py act LEDGER                       one JSON object on stdin (see `act`)  , one on stdout: {"outcome": "done", "number": 7}, or
                                          {"outcome": "stale" | "taken_over" | "transient" | "permanent" | "unknown", "what": …, "why": …}
agent.py take LEDGER TOKEN [OWNER]        nobody with a lower token is heard any more
agent.py beat LEDGER TOKEN ALIVE_UNTIL_S  somebody lives until then (seconds since the epoch)
agent.py marks LEDGER                     print the ledger
agent.py sweep LEDGER READMIT_AFTER_S HOMESERVER [env:NAME | file:PATH]    one pass of the dead-man
agent.py watch …                          as `sweep`, again and again, until nobody lives and nothing of ours is out
agent.py guard …                          begin to watch, detached, if nobody does yet
agent.py --version
```

Status 0: done; 3: it wasn't, and stdout says why in JSON; 2: it was called wrongly. Run it with `python -I -S`: it needs nothing else.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # This folder may have been copied anywhere, as rollout/agent; what it needs lies beside it.
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from rollout.agent import acts
from rollout.agent.book import Book, Claim, locked
from rollout.agent.fault import PERMANENT, TRANSIENT, UNKNOWN, Fault

VERSION = 1
NOT_DONE, CALLED_WRONGLY = 3, 2
# A watcher that is about to end still holds its lock; one that goes on makes this one needless.
GUARD_WAIT_S = 15.0


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says, print one JSON object, and return the status."""
    try:
        said = _do(arguments)
    except Fault as fault:
        said = {**fault.as_data(), "outcome": fault.kind}
    except (IndexError, KeyError, ValueError, TypeError) as error:
        print(f"agent.py was called wrongly: {type(error).__name__}: {error}\n{__doc__}", file=sys.stderr)  # noqa: T201  (as below)
        return CALLED_WRONGLY
    print(json.dumps(said))  # noqa: T201  (it is what this program is for)
    return 0 if said.get("outcome", "done") == "done" else NOT_DONE


def _do(arguments: Sequence[str]) -> dict[str, Any]:
    if arguments[0] == "--version":
        return {"version": VERSION}
    command, book, *others = arguments[0], Book(Path(arguments[1])), *arguments[2:]
    match command, others:
        case "act", []:
            return act(book, json.load(sys.stdin))
        case "take", [token, *owner]:
            book.take(int(token), " ".join(owner))
        case "beat", [token, alive_until_s]:
            book.beat(int(token), float(alive_until_s))
        case "marks", []:
            return asdict(book.read())
        case "sweep" | "watch" | "guard", [readmit_after_s, homeserver, *page]:
            return _look_after(command, book, float(readmit_after_s), homeserver, *page)
        case _:
            msg = f"{command} with {len(others)} arguments"
            raise ValueError(msg)
    return {"outcome": "done"}


def act(book: Book, order: dict[str, Any]) -> dict[str, Any]:
    """
    Compare, store, act, and clear the mark. *order* has what Claim has, and `acts` and `wait_s` (for whoever acts on the worker now).

    Raises Fault. A mark that can't be cleared in the end is one too: whoever does the same again clears it.
    """
    try:
        todo, wait_s = order.pop("acts"), float(order.pop("wait_s"))
        claim = Claim(**order)
    except (KeyError, TypeError, ValueError) as error:
        what = "the agent doesn't understand what it is told"
        raise Fault(PERMANENT, what, why=f"{type(error).__name__}: {error}", remedy="the agent of this release of rollout") from error
    acts.check(todo)
    try:
        with book.acting(claim, wait_s) as number:
            acts.run(todo)
    except Fault:
        raise
    except Exception as error:
        raise Fault(UNKNOWN, "the agent has a bug", why=f"{type(error).__name__}: {error}") from error
    return {"outcome": "done", "number": number}


def _look_after(command: str, book: Book, readmit_after_s: float, homeserver: str, page: str = "") -> dict[str, Any]:
    from rollout.agent import deadman  # noqa: PLC0415  (an act starts without it)

    duty = deadman.Duty(homeserver, readmit_after_s, page)
    if command == "sweep":
        return {"outcome": "done", "left": deadman.sweep(book, duty, time.time(), _say)}
    if command == "guard":
        log = _open_log(book.path.with_suffix(".watch.log"))
        if os.fork():
            return {"outcome": "done"}
        _detach(log)
    try:
        with locked(book.path.with_suffix(".watch.lock"), GUARD_WAIT_S, f"watches over {homeserver}", where=str(book.path)):
            deadman.watch(book, duty, _say)
    except Fault as fault:
        # That somebody watches already is what was wanted.
        if command == "watch":
            raise
        _say(fault.sentence())
    if command == "guard":
        # What called this has long had its answer.
        os._exit(0)
    return {"outcome": "done"}


def _open_log(place: Path) -> int:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        return os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise Fault(TRANSIENT, "the dead-man's log can't be written", where=str(place), why=str(error)) from error


def _detach(log: int) -> None:
    """Leave whoever started this: its terminal, its session and its files. What is said goes into *log*."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(log, number)


def _say(sentence: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sentence}", file=sys.stderr, flush=True)  # noqa: T201  (to the log, or to a terminal)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
