"""What the command line's tests share."""

from pathlib import Path

import pytest

from tests.interfaces.homeserver import Homeserver, homeserver


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Homeserver:
    """Two simulated workers in real time."""
    return homeserver(tmp_path, monkeypatch)
