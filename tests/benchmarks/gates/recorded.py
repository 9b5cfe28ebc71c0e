"""Restarts of real workers, as `record` has taken them from journals: tests/data/gates. The machines were small and shared."""

from pathlib import Path

from pydantic import TypeAdapter

from tests.benchmarks.gates.traces import Restart

PLACE = Path(__file__).parents[2] / "data/gates"
ADAPTER = TypeAdapter(Restart)


def read(place: Path) -> Restart:
    """Read one."""
    return ADAPTER.validate_json(place.read_bytes())


def restarts() -> dict[str, Restart]:
    """Read all, by their files' names."""
    return {place.stem: read(place) for place in sorted(PLACE.glob("*.json"))}
