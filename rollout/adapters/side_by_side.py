"""Asking several hosts at once, and making one answer or one error of theirs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError

_T = TypeVar("_T")


def ask_all(questions: Mapping[str, Callable[[], _T]]) -> dict[str, _T]:
    """Ask all of them side by side. One that fails makes the whole of it fail: nothing is concluded from half an answer."""
    if len(questions) == 1:
        return {name: ask() for name, ask in questions.items()}
    if not questions:
        return {}
    with ThreadPoolExecutor(len(questions)) as pool:
        answers = {name: pool.submit(ask) for name, ask in questions.items()}
    failed = [error for answer in answers.values() if (error := answer.exception()) is not None]
    if failed:
        raise together(failed)
    return {name: answer.result() for name, answer in answers.items()}


def ask_each(names: Iterable[str], ask: Callable[[str], _T]) -> dict[str, _T]:
    """Ask all of them the same, as `ask_all` does."""
    return ask_all({name: partial(ask, name) for name in names})


def together(failed: Sequence[BaseException]) -> BaseException:
    """Make one error of several hosts'. One that will never mend makes the whole one that, else one that nobody knows of."""
    first, *others = sorted(failed, key=_gravity)
    if not others or not isinstance(first, DriverError):
        return first
    also = [f"also {error.where}: {error.what}" if isinstance(error, DriverError) else f"also {error}" for error in others]
    return type(first)(first.what, where=first.where, why="\n".join([first.why, *also]).strip(), remedy=first.remedy)


def _gravity(error: BaseException) -> int:
    if isinstance(error, PermanentDriverError):
        return 0
    return 1 if isinstance(error, OutcomeUnknownError) else 2
