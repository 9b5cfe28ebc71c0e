"""What counts as running a release."""

from dataclasses import replace

import pytest

from rollout.model.release import make_release
from rollout.model.sighting import ProcessSighting, Sighting, runs

RELEASE = make_release("1.163.2", "lock", "digest")


def seen(started_at_s: float | None, version: str | None = "1.163.2") -> Sighting:
    return Sighting(
        ProcessSighting(running=True, started_at_s=started_at_s, activated=RELEASE.id, activated_at_s=100.0), healthy=True, version=version
    )


@pytest.mark.parametrize(
    ("sighting", "answer"),
    [
        (seen(101.0), True),
        # A process's start is told in steps of 0.01 s, so one that was started at once may seem a trifle older than its link.
        (seen(99.999), True),
        (seen(99.9), False),
        (seen(101.0, "1.162.0"), False),
        (seen(101.0, None), None),
        (seen(None), None),
        (replace(seen(101.0), process=None), None),
        (
            replace(seen(101.0), process=ProcessSighting(running=False, started_at_s=None, activated=RELEASE.id, activated_at_s=100.0)),
            False,
        ),
    ],
)
def test_runs(sighting: Sighting, *, answer: bool | None) -> None:
    assert runs(sighting, RELEASE) is answer
