"""Lines of a metrics page, as the driver read them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a metrics page; *at_s* is when it was true (seconds since the epoch), where the line says so itself."""

    name: str
    labels: Mapping[str, str]
    value: float
    at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """The samples of one worker that were asked for."""

    samples: tuple[Sample, ...]
