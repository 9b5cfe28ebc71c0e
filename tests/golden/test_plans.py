"""
Plans as printed text.

Each case is a YAML file that says how it differs from homeserver.yaml; beside it stands what is printed. After a change on purpose: `pytest
tests/golden --update-golden`, and read the diff.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollout.interfaces.plan_text import plan_text
from rollout.model.errors import RolloutError
from rollout.model.ids import PoolId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.load import Load
from rollout.model.playbook import Playbook
from rollout.model.profiles import completed
from rollout.model.release import Release
from rollout.model.sighting import Observation, PoolSighting, ProxyLimits, SchemaSighting, Sighting
from rollout.planning.planner import make_plan
from tests.planning.homeserver import release, sighting, started_before_switch

HERE = Path(__file__).parent
BASE = "homeserver"
CASES = sorted(path.stem for path in HERE.glob("*.yaml") if path.stem != BASE)
# A printed page has as many.
LINES_MAX = 66


@pytest.mark.parametrize("case", CASES)
def test_printed_plan(case: str, request: pytest.FixtureRequest) -> None:
    """A plan, or its refusal, reads as it was last approved."""
    printed = _printed(_merged(_load(BASE), _load(case)))
    golden = HERE / f"{case}.txt"
    if request.config.getoption("--update-golden", default=False):
        golden.write_text(printed, encoding="utf-8")
    assert printed == golden.read_text(encoding="utf-8")
    assert printed.count("\n") <= LINES_MAX, "a plan that nobody can see at once isn't read"


def test_every_text_has_its_case() -> None:
    assert sorted(path.stem for path in HERE.glob("*.txt")) == CASES


def _printed(case: Mapping[str, Any]) -> str:
    releases = {name: _release(parts) for name, parts in case["releases"].items()}
    inventory = Inventory.model_validate(case["inventory"])
    observation = Observation(
        taken_at_s=1000.0,
        sightings={
            worker: _sighting(case.get("seen", {}).get(worker, {}), case["runs"], releases, proxied=entry.pool is not None)
            for worker, entry in inventory.workers.items()
            if worker not in case.get("missing", {})
        },
        missing={WorkerId(worker): why for worker, why in case.get("missing", {}).items()},
        releases={releases[name].id: releases[name] for name, parts in case["releases"].items() if "prepared" in parts},
        schema=SchemaSighting(**case["schema"], deltas=()),
        pools={PoolId(pool): PoolSighting(**seen) for pool, seen in case["pools"].items()},
        proxy=ProxyLimits(**case["proxy"]),
        no_warming=case.get("no_warming", ""),
        no_canaries=case.get("no_canaries", ""),
        loads={WorkerId(worker): _load_of(windows) for worker, windows in case.get("loads", {}).items()}
        | {WorkerId(worker): _asked(*rates) for worker, rates in case.get("traffic", {}).items()},
    )
    playbook = Playbook.model_validate(completed(case["playbook"]))
    try:
        to, only, until, among = releases[case["to"]], case.get("only"), case.get("until"), case.get("among")
        plan = make_plan(playbook, inventory, observation, to, only=only, until=until, among=among)
    except RolloutError as error:
        return f"{type(error).__name__}, exit {error.exit_code}\n{error}\n"
    # The digest changes with every field that a plan gets; what people read doesn't.
    return plan_text(plan).replace(plan.digest[:12], "<digest>")


def _load_of(windows: list[float]) -> Load:
    return Load(tuple(windows), requests=600.0, request_cpu_s=0.008, p95_s=0.2, source="measured over 6 s")


def _asked(ordinary_per_s: float, polls_per_s: float, failed: float | None = None) -> Load:
    """Return the load of a worker that is asked so much, and does it easily, but for the share that *failed*."""
    asked = replace(_load_of([0.1, 0.1, 0.1]), requests_per_s=ordinary_per_s + polls_per_s, ordinary_per_s=ordinary_per_s)
    return replace(asked, failed=failed)


def _release(parts: Mapping[str, Any]) -> Release:
    topology = {name: tuple(members) for name, members in parts["topology"].items()} if "topology" in parts else None
    made = release(parts["version"], config=parts.get("config", "c1"), generation=parts.get("generation", 1), topology=topology)
    return replace(made, **parts.get("prepared", {}))


def _sighting(delta: Mapping[str, Any], runs: str, releases: Mapping[str, Release], *, proxied: bool) -> Sighting:
    seen = sighting(releases[delta.get("runs", runs)], proxied=proxied, drained_by=delta.get("drained_by"))
    if "link" in delta:
        seen = started_before_switch(seen, releases[delta["link"]])
    return replace(seen, healthy=delta.get("healthy", True))


def _load(case: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((HERE / f"{case}.yaml").read_text(encoding="utf-8"))
    return loaded


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Lay *change* over *base*; mappings are merged, everything else replaced, and what becomes null is removed."""
    merged = dict(base)
    for name, value in change.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return {name: value for name, value in merged.items() if value is not None}
