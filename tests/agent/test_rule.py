"""May it be brought back? The rule of the dead-man, row by row."""

from dataclasses import replace

import pytest

from rollout.agent.rule import ADMIT, PAGE, WAIT, Out, Seen, rule

BAD = "2.0.0-bad"
OUT, WELL = Out(at_s=100.0, condemned=None), Seen(answers=True, why="", runs="1.0.0-good")
SILENT = Seen(answers=False, why="no answer in time", runs="1.0.0-good")


@pytest.mark.parametrize(
    ("out", "seen", "now_s", "alive_until_s", "do", "state"),
    [
        (OUT, WELL, 220.0, 0.0, ADMIT, "well"),
        (OUT, WELL, 219.9, 0.0, WAIT, "young"),
        (OUT, WELL, 500.0, 500.0, WAIT, "alive"),
        (OUT, WELL, 500.1, 500.0, ADMIT, "well"),
        (OUT, SILENT, 500.0, 0.0, PAGE, "silent"),
        (replace(OUT, condemned=BAD), replace(WELL, runs=BAD), 500.0, 0.0, PAGE, "condemned"),
        (replace(OUT, condemned=BAD), replace(SILENT, runs=BAD), 500.0, 0.0, PAGE, "condemned"),
        (replace(OUT, condemned=BAD), replace(WELL, runs=None), 500.0, 0.0, PAGE, "unseen"),
        (replace(OUT, condemned=BAD), WELL, 500.0, 0.0, ADMIT, "well"),
        (replace(OUT, condemned=BAD), SILENT, 500.0, 0.0, PAGE, "silent"),
        # Without links nothing tells what runs, and nothing is known against it.
        (OUT, replace(WELL, runs=None), 500.0, 0.0, ADMIT, "well"),
        (replace(OUT, has_way_back=False), WELL, 500.0, 0.0, PAGE, "no_way_back"),
        # A hold is ended by the proxy.
        (replace(OUT, after_s=300.0), WELL, 399.0, 0.0, WAIT, "young"),
        (replace(OUT, after_s=300.0), WELL, 400.0, 0.0, ADMIT, "well"),
    ],
)
def test_the_rule(out: Out, seen: Seen, now_s: float, alive_until_s: float, do: str, state: str) -> None:
    """Only what is well, is not condemned, and has nobody else for long enough is admitted."""
    ruling = rule(out, seen, now_s, alive_until_s, 120.0)
    assert (ruling.do, ruling.state) == (do, state)
    assert ruling.why
