"""
Compare, store and act at the target, in one go; and look after what is ours when nobody lives any more.

```
agent.py act LEDGER [ORDER]               one JSON object as ORDER or on stdin (see `act`), one on stdout: {"outcome": "done", "number": 7},
                                          or {"outcome": "stale" | "taken_over" | "transient" | "permanent" | "unknown" | "lent", "what": …}
agent.py lend LEDGER ORDER                as `act`, for acts that are done elsewhere: {"outcome": "done", "number": 7, "begin_by_s": …, …}
agent.py give_back LEDGER ORDER           those acts have ended
agent.py take LEDGER TOKEN [OWNER]        nobody with a lower token is heard any more
agent.py beat LEDGER TOKEN ALIVE_UNTIL_S [TIMER]    somebody lives until then (seconds since the epoch; +30: from now on)
agent.py marks LEDGER                     print the ledger
agent.py sweep LEDGER READMIT_AFTER_S HOMESERVER [env:NAME | file:PATH]    one pass of the dead-man
agent.py watch …                          as `sweep`, again and again, until nobody lives and nothing of ours is out
agent.py guard …                          begin to watch, detached, if nobody does yet
agent.py tick LEDGER READMIT_AFTER_S HOMESERVER UNIT USER [file:PATH]   as `sweep`, by systemd's timer UNIT, which ends when nothing is left
agent.py ready LEDGER [TIMER]             whether the ledger can be written, and USER may start and stop the timer
agent.py lease PATH ORDER                 acquire, renew, release or look at a lease (see lease.py)
agent.py --version
```

TIMER is a JSON object (see timer.py).
Status 0: done; 3: it wasn't, and stdout says why in JSON; 2: it was called wrongly. Run it with `python -I -S`: it needs nothing else.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

if __name__ == "__main__":
    # This folder may have been copied anywhere, as rollout/agent; what it needs lies beside it.
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from rollout.agent import acts, lending
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
        return {"version": VERSION, "digest": digest()}
    command, book, others = arguments[0], Book(Path(arguments[1])), arguments[2:]
    if command in {"beat", "take", "ready", "marks", "lease"}:
        return _tell(command, book, others)
    match command, others:
        case "act", []:
            return act(book, json.load(sys.stdin))
        case "act", [order]:
            return act(book, json.loads(order))
        case "lend", [order]:
            return lend(book, json.loads(order))
        case "give_back", [order]:
            return give_back(book, json.loads(order))
        case "sweep" | "watch" | "guard", [readmit_after_s, homeserver, *page]:
            return _look_after(command, book, float(readmit_after_s), homeserver, *page)
        case "tick", [readmit_after_s, homeserver, unit, user, *page]:
            said = _look_after("sweep", book, float(readmit_after_s), homeserver, *page)
            if not said["left"]:
                _timer().disarm(book, {"unit": unit, "user": user})
            return said
        case _:
            raise _called_with(command, others)


def _tell(command: str, book: Book, others: Sequence[str]) -> dict[str, Any]:
    match command, others:
        case "marks", []:
            return asdict(book.read())
        case "lease", [order]:
            from rollout.agent import lease  # noqa: PLC0415  (an act starts without it)

            return lease.answer(book.path, json.loads(order))
        case "take", [token, *owner]:
            book.take(int(token), " ".join(owner))
        case "beat", [token, alive_until_s, *timers]:
            from_s = time.time() if alive_until_s.startswith(("+", "-")) else 0.0
            book.beat(int(token), from_s + float(alive_until_s))
            for one in timers:
                _timer().keep(book, json.loads(one))
        case "ready", timers:
            book.writable()
            for one in timers:
                _timer().check(json.loads(one))
                _timer().keep(book, json.loads(one))
        case _:
            raise _called_with(command, others)
    return {"outcome": "done"}


def _called_with(command: str, others: Sequence[str]) -> ValueError:
    msg = f"{command} with {len(others)} arguments"
    return ValueError(msg)


def act(book: Book, order: dict[str, Any]) -> dict[str, Any]:
    """
    Compare, store, act, and clear the mark. *order* has what Claim has, and `acts` and `wait_s` (for whoever acts on the worker now). With
    `timer` the dead-man's is there while a mark is; at `until_s`, or when it has gone on for `within_s`, this program ends itself.

    Raises Fault. A mark that can't be cleared in the end is one too: whoever does the same again clears it.
    """
    todo, wait_s, watched, until_s, within_s = _taken(order, acts=None, wait_s=None, timer={}, until_s=0.0, within_s=0.0)
    claim = _claim(order)
    acts.check(todo)
    if until_s or within_s:
        # Also if it was stopped meanwhile: the signal is the first thing that it meets when it is woken.
        signal.setitimer(signal.ITIMER_REAL, within_s or max(0.001, until_s - time.time()))
    try:
        with book.acting(claim, float(wait_s)) as number:
            if claim.mark is not None and watched:
                _timer().arm(book, watched)
            acts.run(todo)
        _disarm(book, claim, watched)
    except Fault:
        raise
    except Exception as error:
        raise Fault(UNKNOWN, "the agent has a bug", why=f"{type(error).__name__}: {error}") from error
    return {"outcome": "done", "number": number}


def lend(book: Book, order: dict[str, Any]) -> dict[str, Any]:
    """Compare and store for acts that are done at other `hosts` within `takes_s`. Raises Fault; nobody may act then."""
    hosts, takes_s, wait_s, watched = _taken(order, hosts=None, takes_s=None, wait_s=None, timer={})
    claim = _claim(order)
    lent = lending.lend(book, claim, float(wait_s), hosts, float(takes_s))
    if claim.mark is not None and watched:
        try:
            _timer().arm(book, watched)
        except Fault:
            lending.give_back(book, replace(claim, number=lent.number), lent.token, done=False)
            raise
    return {"outcome": "done", **asdict(lent)}


def give_back(book: Book, order: dict[str, Any]) -> dict[str, Any]:
    """Write down that those acts have ended, and whether they were `done`. Raises Fault."""
    done, watched = _taken(order, done=None, timer={})
    claim = _claim(order)
    lending.give_back(book, claim, claim.token, done=done)
    if done:
        _disarm(book, claim, watched)
    return {"outcome": "done"}


def digest() -> str:
    """Return the hash of this program as it lies here."""
    import hashlib  # noqa: PLC0415  (an act starts without it)

    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(
        b"".join(b"%s\0%d\0%s" % (file.name.encode(), len(text := file.read_bytes()), text) for file in files)
    ).hexdigest()


def _taken(order: dict[str, Any], **wanted: Any) -> list[Any]:  # noqa: ANN401  (parts of an order)
    """Take parts out of an order; those whose default is None have to be there. Raises Fault (PERMANENT)."""
    if missing := [name for name, default in wanted.items() if default is None and name not in order]:
        raise _not_understood(f"it has no {missing[0]}")
    return [order.pop(name, default) for name, default in wanted.items()]


def _claim(order: dict[str, Any]) -> Claim:
    try:
        return Claim(**order)
    except TypeError as error:
        raise _not_understood(str(error)) from error


def _not_understood(why: str) -> Fault:
    return Fault(PERMANENT, "the agent doesn't understand what it is told", why=why, remedy="the agent of this release of rollout")


def _disarm(book: Book, claim: Claim, watched: dict[str, Any]) -> None:
    if claim.clears and watched:
        # What was asked for is done; a timer that is still there finds nothing to do, and stops itself.
        with suppress(Fault):
            _timer().disarm(book, watched)


def _timer() -> ModuleType:
    from rollout.agent import timer  # noqa: PLC0415  (most acts start without it)

    return timer


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
