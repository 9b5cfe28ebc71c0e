"""What a block of few requests says of one hypothesis, and of all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.gating.curves import CURVES, levels
from rollout.gating.hypotheses import Line
from rollout.gating.shift import SHIFTS

LINES = st.lists(st.floats(-50, 0), min_size=len(SHIFTS), max_size=len(SHIFTS))


@given(LINES, st.sampled_from([0.0, 0.13, 0.4]), st.floats(-3, 3), st.floats(-1, 5), st.floats(0, 1800))
def test_one_is_told_as_among_all(line: list[float], doubt: float, drift: float, ratio: float, middle_s: float) -> None:
    """And none is likelier than the line is anywhere, also beyond its ends."""
    block = Line(line, doubt, drift, levels(middle_s))
    (row,) = block.rows([ratio])
    assert [block.at(ratio, curve) for curve in range(len(CURVES))] == pytest.approx(row)
    assert max(row) <= block.most + 1e-9
