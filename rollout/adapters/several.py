"""Asking several hosts side by side, and making one error of theirs."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError

_T = TypeVar("_T")


def side_by_side(names: Iterable[str], ask: Callable[[str], _T]) -> dict[str, _T]:
    """Ask all of them at once, to the end, and return what each gives; if one fails, raise what all that failed say."""
    names = tuple(names)
    if not names:
        return {}
    with ThreadPoolExecutor(len(names)) as pool:
        answers = {name: pool.submit(ask, name) for name in names}
    failed = [error for answer in answers.values() if (error := answer.exception()) is not None]
    if failed:
        raise together(failed)
    return {name: answer.result() for name, answer in answers.items()}


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
