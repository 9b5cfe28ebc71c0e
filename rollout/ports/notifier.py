"""Telling somebody who isn't looking."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from rollout.model.ids import DeployId


class Severity(StrEnum):
    """How soon somebody should look."""

    INFO = "info"  # some day
    WARNING = "warning"  # soon: something did not go as planned
    CRITICAL = "critical"  # now: nothing goes on without a person


@dataclass(frozen=True, slots=True)
class Page:
    """
    One message: *text* is the sentence that the terminal shows, *what_next* what a person can do about it ("" where nothing is to be done).

    *kind* is one of began, resumed, waiting, gate_failed, rolling_back and finished.
    """

    kind: str
    severity: Severity
    homeserver: str
    deploy_id: DeployId
    at_s: float
    text: str
    what_next: str = ""


class Notifier(Protocol):
    """Both end within *timeout_s* and raise TransientDriverError when nobody was reached. No error holds the address, which is a secret."""

    def tell(self, page: Page, timeout_s: float) -> None:
        """Hand a page over."""
        ...

    def beat(self, timeout_s: float) -> None:
        """Say that the rollout lives; where nothing is watched by its silence this does nothing."""
        ...
