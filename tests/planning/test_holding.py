"""What a plan says of requests that wait, or are cut, where the proxy doesn't count what comes in."""

from dataclasses import replace

import pytest

from rollout.engine.survey import Surveyor
from rollout.model.errors import RefusedError
from rollout.model.gate import Tally
from rollout.model.ids import PoolId, WorkerId
from rollout.model.load import Load
from rollout.model.plan import Plan
from rollout.planning.capacity import load_of
from rollout.planning.planner import make_plan
from rollout.simulation.rehearse import set_stage
from tests.simulation.stages import PLAYBOOK


def _plan(arrivals_per_s: float | None, *, held: bool, load: Load | None = None) -> Plan:
    stage = set_stage({"main": ("main", "main")}, "main" if held else None)
    seen = Surveyor(stage.drivers, stage.inventory, stage.clock).look(thorough=True)
    pools = {PoolId("main"): replace(seen.pools[PoolId("main")], arrivals_per_s=arrivals_per_s)}
    release = stage.drivers.releases.identify("2.0.0", None, stage.old.id, next_generation=False)
    loads = {} if load is None else {WorkerId("main"): load}
    return make_plan(PLAYBOOK, stage.inventory, replace(seen, pools=pools, loads=loads), release)


@pytest.mark.parametrize(
    ("arrivals_per_s", "said"),
    [
        (20.0, "will be cut: about 20 requests a second"),
        (None, "will be cut (how many is not known: the proxy doesn't say how many come in"),
    ],
)
def test_how_many_requests_will_be_cut_is_said_or_said_to_be_unknown(arrivals_per_s: float | None, said: str) -> None:
    """Nothing is never taken for none."""
    assert said in " ".join(_plan(arrivals_per_s, held=False).notes)


def test_where_the_proxy_does_not_count_the_worker_does() -> None:
    """What came over ten seconds of measuring comes over ten seconds of boot; and what is open now is cut, too."""
    windows = tuple(Tally(since_s=at_s, until_s=at_s + 5, requests=100.0, polls=25.0, cpu_s=1.0) for at_s in (0.0, 5.0))
    said = " ".join(_plan(None, held=False, load=load_of(windows, "measured over 10 s")).notes)
    assert "will be cut: about 25 requests a second × 10 s of boot = 250, and 10 that are open now: 260 (by its own count" in said


def test_a_hold_of_which_nobody_knows_what_it_would_pile_up_is_refused() -> None:
    assert "wait at the proxy: about 5 a second" in " ".join(_plan(5.0, held=True).notes)
    with pytest.raises(RefusedError, match="nor so what a hold would pile up"):
        _plan(None, held=True)
