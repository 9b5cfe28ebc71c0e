"""
The lease's file: who may roll the homeserver now, compared and set under `flock`, by the clock of where it lies.

It is replaced in one go, so that it is always a whole one. Of who holds it on this machine it is asked whether the process is still there
(holders.py): the lease of one that was killed is free at once, as a lock would be. One of another machine has to run out.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rollout.agent import holders
from rollout.agent.book import open_lock, try_lock
from rollout.agent.fault import PERMANENT, TRANSIENT, Fault

RETRY_S = 0.02
# What is written down, and of which kind it is; times are seconds since the epoch.
CONTENT: Mapping[str, type] = {
    "homeserver": str,
    "holder": str,
    "host": str,
    "pid": int,
    "process": str,
    "why": str,
    "deploy_id": str,
    "token": int,
    "ttl_s": float,
    "since_s": float,
    "renewed_at_s": float,
    "expires_at_s": float,
    "held": bool,
    "taken_from": str,
}
Content = dict[str, Any]
# What an answer says besides: what is written down now (None: nothing ever was), and whether anybody may take it.
Answer = dict[str, Any]


def answer(path: Path, order: Mapping[str, Any]) -> Answer:
    """Do what *order* asks for: `do`, `wait_s`, and what that needs. Raises Fault."""
    do, wait_s = order["do"], order["wait_s"]
    match do:
        case "acquire":
            return acquire(path, order["wanted"], above=order["above"], take_over=order["take_over"], wait_s=wait_s)
        case "renew":
            return renew(path, order["mine"], wait_s)
        case "release":
            return release(path, order["token"], wait_s)
        case "look":
            return look(path)
        case _:
            raise Fault(PERMANENT, f"nobody knows how to do {do!r}", where=str(path), remedy="the agent of this release of rollout")


def acquire(path: Path, wanted: Content, *, above: int, take_over: bool, wait_s: float) -> Answer:
    """
    Take it, as *wanted* says of who wants it, with a token above all before and *above*. Raises Fault.

    One that isn't free is left as it is, unless *take_over*: the answer is `refused` then.
    """
    return _set(path, lambda before, now_s: acquired(before, now_s, wanted, above=above, take_over=take_over), wait_s)


def renew(path: Path, mine: Content, wait_s: float) -> Answer:
    """Make *mine* valid anew; a place that has forgotten it is told again. The answer is `refused` when a higher token is there."""
    return _set(path, lambda before, now_s: renewed(before, now_s, mine), wait_s)


def release(path: Path, token: int, wait_s: float) -> Answer:
    """Give it back, if it still has this token."""
    return _set(path, lambda before, _: released(before, token), wait_s)


def look(path: Path) -> Answer:
    return answered(read(path), time.time())


def _set(path: Path, change: Callable[[Content | None, float], Content | None], wait_s: float) -> Answer:
    with alone(path, wait_s):
        before, now_s = read(path), time.time()
        wanted = change(before, now_s)
        if wanted is None:
            return answered(before, now_s, refused=True)
        write(path, wanted)
    return answered(wanted, now_s)


def acquired(before: Content | None, now_s: float, wanted: Content, *, above: int, take_over: bool) -> Content | None:
    """Return what is there after `acquire`; None if what is there stays."""
    if before is not None and not take_over and not is_free(before, now_s):
        return None
    token = max(above, 0 if before is None else before["token"]) + 1
    times = {"since_s": now_s, "renewed_at_s": now_s, "expires_at_s": now_s + wanted["ttl_s"]}
    taken_from = described(before) if before is not None and before["held"] else ""
    return understood({**wanted, **times, "token": token, "held": True, "taken_from": taken_from})


def renewed(before: Content | None, now_s: float, mine: Content) -> Content | None:
    """Return what is there after `renew`; None if what is there stays."""
    if before is not None and before["token"] > mine["token"]:
        return None
    return understood({**mine, "renewed_at_s": now_s, "expires_at_s": now_s + mine["ttl_s"]})


def released(before: Content | None, token: int) -> Content | None:
    """Return what is there after `release`; None if what is there stays."""
    return None if before is None or before["token"] != token else {**before, "held": False}


def is_free(content: Content, now_s: float) -> bool:
    return not content["held"] or now_s >= content["expires_at_s"] or holders.is_gone(content["pid"], content["process"])


def answered(content: Content | None, now_s: float, *, refused: bool = False) -> Answer:
    return {"outcome": "done", "lease": content, "free": content is None or is_free(content, now_s), "refused": refused}


def described(content: Content) -> str:
    """Say who holds it, since when, and what for; as ports.lease does."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(content["since_s"]))
    return f"{content['holder']} on {content['host']} (process {content['pid']}) since {since}: {content['why']}"


@contextmanager
def alone(path: Path, wait_s: float) -> Iterator[None]:
    """Be the only one who compares and sets; one who was stopped within it is not waited for longer than that. Raises Fault."""
    place = path.with_suffix(".lock")
    try:
        file = open_lock(place)
    except Fault as fault:
        raise Fault(PERMANENT, "the lease's directory can't be used", where=fault.where, why=fault.why) from fault
    with file:
        end_s = time.monotonic() + wait_s
        while not try_lock(file):
            if time.monotonic() >= end_s:
                raise Fault(TRANSIENT, f"somebody has kept the lease's file to themselves for {wait_s:g} s", where=str(place))
            time.sleep(RETRY_S)
        yield


def read(path: Path) -> Content | None:
    """Return what is written down; None when nothing ever was. Raises Fault."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Fault(TRANSIENT, "the lease can't be read", where=str(path), why=str(error)) from error
    try:
        return understood(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Fault(
            PERMANENT,
            "the lease's file is no lease",
            where=str(path),
            why=f"{len(text)} bytes that make no sense ({type(error).__name__})",
            remedy="see to it that nobody is rolling this homeserver, then remove the file: the ledger knows the last token too",
        ) from error


def understood(data: Any) -> Content:  # noqa: ANN401  (whatever was in the file)
    """Check every part. Raises TypeError or KeyError."""
    content = {}
    for name, kind in CONTENT.items():
        value = data[name]
        fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise TypeError(name)
        content[name] = value
    return content


def write(path: Path, content: Content) -> None:
    half = path.with_suffix(".half")
    try:
        with half.open("w") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        half.rename(path)
    except OSError as error:
        raise Fault(TRANSIENT, "the lease can't be written", where=str(path), why=str(error)) from error
