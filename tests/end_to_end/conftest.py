"""One lab for all end-to-end tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.lab import cluster
from rollout.lab.artefacts import VERSIONS
from rollout.lab.paths import Lab
from tests.end_to_end.site import Site

# Installed releases outlive a test run: making them is the slowest part, and they are never changed.
VENVS = Path(__file__).parents[2] / "build/venvs"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this directory."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.end_to_end)


@pytest.fixture(scope="session", autouse=True)
def _measured_shortly() -> Iterator[None]:
    """How busy workers are is measured before every plan; here it is no news."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROLLOUT_MEASURE_S", "1")
        yield


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Seven workers on the older release; ended and removed afterwards."""
    directory = tmp_path_factory.mktemp("lab")
    try:
        yield cluster.up(directory, VERSIONS[0], venvs=VENVS)
    finally:
        cluster.down(directory, purge=True)


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Site:
    """Look at the lab from a desk of one's own: another journal."""
    return Site(lab, tmp_path)
