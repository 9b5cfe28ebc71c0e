"""What drivers say of their settings, with its place in the inventory."""

from rollout.adapters.documents.marked_yaml import Document, Place
from rollout.adapters.documents.read import combined
from rollout.adapters.problem import Problem
from rollout.adapters.registry import DRIVERS, open_driver
from rollout.adapters.settings import InvalidSettingsError
from rollout.model.errors import InvalidFileError
from rollout.model.inventory import DriverSettings, Inventory


def explained(document: Document, inventory: Inventory) -> InvalidFileError | None:
    """
    Open every driver of the *inventory* in *document* once more, connecting to nothing, and say with line and column what each doesn't
    accept.

    None when all of them do, after all.
    """
    placed = [found for port in DRIVERS for found in _problems(document, port, getattr(inventory, f"{port}_driver"), inventory)]
    return combined(document, placed) if placed else None


def _problems(document: Document, port: str, settings: DriverSettings | None, inventory: Inventory) -> list[tuple[Place, Problem]]:
    if settings is None:
        return []
    key = f"{port}_driver"
    try:
        open_driver(port, settings, inventory)
    except InvalidSettingsError as error:
        below = [Problem((key, *one.path), one.what, one.remedy, one.at_key) for one in error.problems]
    except InvalidFileError as error:
        below = [Problem((key, "driver"), error.what, error.remedy)]
    else:
        return []
    return [(document.place(problem.path, key=problem.at_key), problem) for problem in below]
