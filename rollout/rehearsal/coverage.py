"""
Verb × fault × moment: which cells there are, and how often something struck in each.

A cell that can't exist has a reason; all others must be struck often enough before a campaign proves anything.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rollout.model.plan import Verb
from rollout.simulation.faults import OF_THE_ACT, Fault, Moment, Struck
from rollout.simulation.striking import ONLY_WAITED_FOR

# How often each cell must have been struck in a whole campaign.
STRUCK_MIN = 20

_AT_ONCE = frozenset({Verb.PREPARE, Verb.MIGRATE, Verb.WARM})


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault at one moment of one verb."""

    verb: Verb
    fault: Fault
    moment: Moment

    def __str__(self) -> str:
        """Name it."""
        return f"{self.verb} × {self.fault} × {self.moment}"


def why_impossible(cell: Cell) -> str:
    """Say why nothing can strike there; empty when something can."""
    if cell.verb in ONLY_WAITED_FOR:
        if cell.fault in OF_THE_ACT:
            return "no act belongs to this step"
        return "" if cell.moment is Moment.WAITING else "no act belongs to this step, so it is all waiting"
    if cell.fault in OF_THE_ACT and cell.moment is not Moment.DURING:
        return "it is how the act itself goes"
    if cell.moment is Moment.WAITING and cell.verb in _AT_ONCE:
        return "nothing is left to wait for once the act has returned"
    return ""


def _all_cells() -> tuple[Cell, ...]:
    return tuple(Cell(verb, fault, moment) for verb in Verb for fault in Fault for moment in Moment)


CELLS: tuple[Cell, ...] = tuple(cell for cell in _all_cells() if not why_impossible(cell))


def count(struck: Iterable[Struck]) -> Counter[Cell]:
    """Count what struck where."""
    return Counter(Cell(one.strike.verb, one.strike.fault, one.strike.moment) for one in struck)


def as_data(counts: Mapping[Cell, int]) -> dict[str, object]:
    """Return the whole table for programs: counts, and the reasons for what is not there."""
    rows = [{"verb": cell.verb, "fault": cell.fault, "moment": cell.moment, "struck": counts.get(cell, 0)} for cell in CELLS]
    reasons: dict[str, list[str]] = {}
    for cell in _all_cells():
        if why := why_impossible(cell):
            reasons.setdefault(why, []).append(str(cell))
    return {"cells": rows, "impossible": reasons, "least": min((counts.get(cell, 0) for cell in CELLS), default=0)}


def as_text(counts: Mapping[Cell, int]) -> str:
    """Return the table for people: a row a fault, a column a verb, and in each the counts of the moments in their order."""
    moments = tuple(Moment)
    verbs = tuple(Verb)
    head = f"{'fault':<18}" + "".join(f"{verb.value:>24}" for verb in verbs)
    lines = [f"counts at {', '.join(moment.value for moment in moments)}; – where nothing can strike", head]
    for fault in Fault:
        row = f"{fault.value:<18}"
        for verb in verbs:
            cells = [Cell(verb, fault, moment) for moment in moments]
            row += f"{'/'.join('–' if why_impossible(cell) else str(counts.get(cell, 0)) for cell in cells):>24}"
        lines.append(row)
    return "\n".join(lines)
