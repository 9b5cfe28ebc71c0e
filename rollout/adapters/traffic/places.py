"""
Where a proxy is: on this machine, or on a host that is reached over SSH. What is asked and done there is the same data either way
(rollout.agent.there), and so is what is said when it fails, but for the host's name.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic  # noqa: TID251  (how long a host takes, whatever clock a rollout goes by)
from typing import Any, Protocol

from rollout.adapters.faults import translated
from rollout.adapters.remote_program import answer_in, program
from rollout.adapters.side_by_side import ask_all
from rollout.adapters.ssh_shared import Hosts
from rollout.agent import there
from rollout.model.errors import DriverError, OutcomeUnknownError
from rollout.ports.acts import Acts

# The program there gives up before we do, so that what it says arrives.
TRIP_S = 1.0


class Place(Protocol):
    """*name* is the host's in the inventory, "" for this machine; *user* is who acts there, "" for whoever runs this."""

    name: str
    user: str

    def ask(self, order: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """See what is to be seen. Raises DriverError; nothing has changed by it."""
        ...

    def do(self, acts: Acts, timeout_s: float) -> None:
        """Do *acts*. Raises DriverError; OutcomeUnknownError for what was sent and is not known to have happened."""
        ...

    def where(self, path: str) -> str:
        """Say where a file or socket of that place is."""
        ...

    def close(self) -> None:
        """End the connection, if nobody else uses it."""
        ...


class Here:
    """On this machine, in this process."""

    name = user = ""

    def ask(self, order: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """See Place."""
        with translated():
            return there.answer({**order, "timeout_s": timeout_s})

    def do(self, acts: Acts, timeout_s: float) -> None:
        """See Place."""
        with translated():
            there.answer({"do": "acts", "acts": [{**act, "timeout_s": timeout_s} for act in acts]})

    def where(self, path: str) -> str:
        """See Place."""
        return path

    def close(self) -> None:
        """See Place: there is none."""


class There:
    """On a host. For use by several threads."""

    def __init__(self, name: str, user: str, hosts: Hosts, python: str) -> None:
        self.name = name
        self.user = user
        self._hosts = hosts
        self._python = python

    def ask(self, order: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """See Place."""
        return self._sent({**order, "timeout_s": _there_s(timeout_s)}, timeout_s, changes=False)

    def do(self, acts: Acts, timeout_s: float) -> None:
        """See Place."""
        timed = [{**act, "timeout_s": _there_s(timeout_s)} for act in acts]
        self._sent({"do": "acts", "acts": timed}, timeout_s, changes=True)

    def where(self, path: str) -> str:
        """See Place."""
        return f"{self._hosts.get(self.name).where}, {path}"

    def close(self) -> None:
        """See Place."""
        self._hosts.close()

    def _sent(self, order: Mapping[str, Any], timeout_s: float, *, changes: bool) -> dict[str, Any]:
        host = self._hosts.get(self.name)
        try:
            (said,) = host.run((program(order, self._python),), timeout_s, changes=changes)
        except OutcomeUnknownError as error:
            what = f"whether the proxy was told is not known: {error.what}"
            raise OutcomeUnknownError(what, where=error.where, why=error.why, remedy=error.remedy) from error
        return answer_in(said, host.where, self._python, changes=changes)


def _there_s(timeout_s: float) -> float:
    return max(timeout_s / 2, timeout_s - TRIP_S)


def out_of_traffic(places: Mapping[str, Place], acts: Mapping[str, Acts], end_s: float, reach: Callable[[Place], object]) -> None:
    """
    Do what keeps requests away, at one place after the other.

    Of several all are *reach*ed first, side by side: one that can't be told is found before another has been.
    """
    if len(acts) > 1:
        ask_all({name: partial(reach, places[name]) for name in acts})
    for number, (name, todo) in enumerate(acts.items()):
        try:
            places[name].do(todo, end_s - monotonic())
        except DriverError as error:
            if number == 0:
                raise
            raise _half(number, len(acts), [error]) from error


def into_traffic(places: Mapping[str, Place], acts: Mapping[str, Acts], end_s: float) -> None:
    """Do what lets requests through, wherever that can be done: one proxy that is away keeps nobody out at the others."""
    failed: list[DriverError] = []
    for number, (name, todo) in enumerate(acts.items()):
        # A place that doesn't answer leaves the others their part of the time.
        left_s = (end_s - monotonic()) / (len(acts) - number)
        try:
            places[name].do(todo, left_s)
        except DriverError as error:
            failed.append(error)
    if not failed:
        return
    if len(failed) == len(acts) == 1:
        raise failed[0]
    if len(failed) == len(acts) and not any(isinstance(error, OutcomeUnknownError) for error in failed):
        raise failed[0]
    raise _half(len(acts) - len(failed), len(acts), failed) from failed[0]


def _half(done: int, places: int, failed: Sequence[DriverError]) -> OutcomeUnknownError:
    """Say that some have heard it: that it did not happen would be wrong."""
    where = ", ".join(error.where for error in failed)
    what = f"only {done} of {places} proxies did it" if done else f"whether any of {places} proxies did it is not known"
    return OutcomeUnknownError(what, where=where, why="\n".join(map(str, failed)))
