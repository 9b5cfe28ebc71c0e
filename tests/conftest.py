"""What all tests share."""

import pytest
from hypothesis import settings

from rollout.interfaces.cli.keeping import CI_VARIABLES

# How long an example takes says more of the machine than of the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line says is the same wherever the tests are run."""
    for name in CI_VARIABLES:
        monkeypatch.delenv(name, raising=False)
