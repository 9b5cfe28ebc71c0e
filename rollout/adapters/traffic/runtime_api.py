"""
What HAProxy's runtime API answers, from one or several proxies. How it is asked and told is the agent's (rollout.agent.proxy).

Every answer ends with an empty line; without it HAProxy hung up before it was done. Source: HAProxy's management guide, section 9.3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic  # noqa: TID251  (how long a proxy takes, whatever clock a rollout goes by)
from typing import Any

from rollout.adapters.faults import error_of
from rollout.adapters.side_by_side import ask_all
from rollout.adapters.traffic.places import Place
from rollout.adapters.wording import shortened
from rollout.agent.fault import PERMANENT, Fault
from rollout.model.errors import DriverError, PermanentDriverError, TransientDriverError


@dataclass(frozen=True, slots=True)
class Sockets:
    """HAProxy's sockets at one place: one for each proxy there, and one for each master that they have."""

    place: Place
    sockets: tuple[str, ...]
    masters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """What one proxy answers to each command; *where* it is."""

    where: str
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What all proxies answer; *old* are the statistics of each old process, None when one of them can't be asked."""

    proxies: tuple[Answers, ...]
    old: tuple[str, ...] | None = ()


def ask(everywhere: Sequence[Sockets], commands: Mapping[str, str], end_s: float, *, old: bool = False) -> Asked:
    """
    Ask every proxy *commands*, in one round trip to each place, places side by side; and the masters for *old* processes.

    Each command comes with what its answer must hold. Raises DriverError when one of the proxies doesn't answer all of them.
    """
    told = ask_all({one.place.name: partial(_ask, one, tuple(commands), end_s, old=old) for one in everywhere})
    proxies: list[Answers] = []
    processes: list[str] | None = []
    for one in everywhere:
        answered = told[one.place.name]
        proxies += [_answers(one.place.where(socket), answered["sockets"][socket], commands) for socket in one.sockets]
        for master in one.masters if old else ():
            seen = _processes(one.place.where(master), master, answered["masters"][master])
            processes = None if processes is None or seen is None else [*processes, *seen]
    return Asked(tuple(proxies), None if processes is None else tuple(processes))


def _ask(one: Sockets, commands: tuple[str, ...], end_s: float, *, old: bool) -> dict[str, Any]:
    sockets = {socket: list(commands) for socket in one.sockets}
    order = {"do": "haproxy", "sockets": sockets, "masters": list(one.masters) if old else []}
    return one.place.ask(order, end_s - monotonic())


def _answers(where: str, answered: Sequence[str] | Mapping[str, Any], commands: Mapping[str, str]) -> Answers:
    if isinstance(answered, Mapping):
        raise error_of(Fault(**{**answered, "where": where}))
    texts = dict(zip(commands, answered, strict=True))
    for command, header in commands.items():
        check(where, command, header, texts[command])
    return Answers(where, texts)


def _processes(where: str, master: str, answered: Sequence[str] | Mapping[str, Any]) -> list[str] | None:
    """Return the statistics of old processes; None when they can't be asked now. Raises DriverError when they never could be."""
    if isinstance(answered, Mapping):
        fault = Fault(**{**answered, "where": where})
        if fault.kind == PERMANENT:
            # Nothing that is drained would ever be known to have ended.
            fault.remedy = f"`-S {master},mode,660,group,haproxy` where HAProxy is started, and the account in that group"
            raise error_of(fault)
        return None
    processes, *statistics = answered
    try:
        check(where, "show proc", "#<PID>", processes)
        for text in statistics:
            check(where, "show stat", "# pxname,", text)
    except DriverError:
        return None
    return statistics


def check(where: str, command: str, header: str, answer: str) -> None:
    """Raise DriverError for what is no whole answer to *command*, in which *header* is."""
    if answer and header not in answer:
        first, *_ = answer.strip().splitlines() or [""]
        why = f'{command}: it says "{shortened(first)}"'
        raise PermanentDriverError("the socket doesn't speak HAProxy's runtime API", where=where, why=why)
    if not answer.endswith("\n\n"):
        raise TransientDriverError("the proxy hung up before its answer was complete", where=where, why=command)
