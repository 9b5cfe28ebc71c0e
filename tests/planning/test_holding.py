"""What a plan says of requests that wait, or are cut, where the proxy doesn't count what comes in."""

from dataclasses import replace

import pytest

from rollout.engine.survey import Surveyor
from rollout.model.errors import RefusedError
from rollout.model.ids import PoolId
from rollout.model.plan import Plan
from rollout.planning.planner import make_plan
from rollout.simulation.rehearse import set_stage
from tests.simulation.stages import PLAYBOOK


def _plan(arrivals_per_s: float | None, *, held: bool) -> Plan:
    stage = set_stage({"main": ("main", "main")}, "main" if held else None)
    seen = Surveyor(stage.drivers, stage.inventory, stage.clock).look(thorough=True)
    pools = {PoolId("main"): replace(seen.pools[PoolId("main")], arrivals_per_s=arrivals_per_s)}
    release = stage.drivers.releases.identify("2.0.0", None, stage.old.id, next_generation=False)
    return make_plan(PLAYBOOK, stage.inventory, replace(seen, pools=pools), release)


@pytest.mark.parametrize(
    ("arrivals_per_s", "said"),
    [(20.0, "will be cut: about 20 requests a second"), (None, "will be cut (the proxy doesn't say how many come in)")],
)
def test_how_many_requests_will_be_cut_is_said_or_said_to_be_unknown(arrivals_per_s: float | None, said: str) -> None:
    """Nothing is never taken for none."""
    assert said in " ".join(_plan(arrivals_per_s, held=False).notes)


def test_a_hold_of_which_nobody_knows_what_it_would_pile_up_is_refused() -> None:
    assert "wait at the proxy: about 5 a second" in " ".join(_plan(5.0, held=True).notes)
    with pytest.raises(RefusedError, match="nor so what a hold would pile up"):
        _plan(None, held=True)
