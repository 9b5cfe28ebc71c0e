"""Asking several hosts at once, and making one answer or one error of theirs."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rollout.model.errors import DriverError, PermanentDriverError

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


def together(failed: Sequence[BaseException]) -> BaseException:
    """Make one error of several hosts'. One that will never mend makes the whole one that."""
    first, *others = sorted(failed, key=lambda error: not isinstance(error, PermanentDriverError))
    if not others or not isinstance(first, DriverError):
        return first
    also = [f"also {error.where}: {error.what}" if isinstance(error, DriverError) else f"also {error}" for error in others]
    return type(first)(first.what, where=first.where, why="\n".join([first.why, *also]).strip(), remedy=first.remedy)
