"""What all tests share."""

import pytest

from rollout.interfaces.cli.keeping import CI_VARIABLES


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line says is the same wherever the tests are run."""
    for name in CI_VARIABLES:
        monkeypatch.delenv(name, raising=False)
