"""What was looked at before a rollout, as a table for people: one line each, what to try below it, and the sum of it at the end."""

import textwrap
from collections.abc import Sequence

from rollout.planning.preflight import Check, Result

# As wide as a plan is.
_WIDTH = 120


def preflight_text(checks: Sequence[Check]) -> str:
    """Print the checks in their order. Plain characters, no colours."""
    words = max((len(check.result) for check in checks), default=0)
    names = max((len(check.name) for check in checks), default=0)
    lines: list[str] = []
    for check in checks:
        head = f"{check.result:<{words}}  {check.name:<{names}}  "
        lines += _wrapped(check.why, head, " " * len(head))
        for word, told in (("try: ", check.remedy), ("see: ", check.source)):
            if told and check.result is not Result.OK:
                lines += _wrapped(word + told, " " * len(head), " " * (len(head) + len(word)))
    return "\n".join([*lines, "", _sum(checks)]) + "\n"


def _sum(checks: Sequence[Check]) -> str:
    no, unknown, warning = (sum(check.result is result for check in checks) for result in (Result.NO, Result.UNKNOWN, Result.WARNING))
    refused = [f"{no} no"] * bool(no) + [f"{unknown} unknown"] * bool(unknown)
    known = [f"{warning} to know"] * bool(warning)
    return (
        f"no rollout could begin now: {', '.join([*refused, *known])}" if refused else f"a rollout could begin now{', '.join(['', *known])}"
    )


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False)
