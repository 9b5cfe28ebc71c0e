"""A rollout says that it lives, and has somebody there who notices when it doesn't any more."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.adapters.ledger.file import FileLedger
from rollout.agent.book import Book
from tests.agent.processes import until
from tests.interfaces.homeserver import Homeserver, homeserver

REFUSED = 5


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Homeserver:
    """A simulated homeserver whose ledger is a file."""
    made = homeserver(tmp_path, monkeypatch)
    made.stage.drivers = replace(made.stage.drivers, ledger=FileLedger(tmp_path / "rollout/ledger.json"))
    return made


def test_it_is_looked_after_while_it_lives_and_says_when_it_ends(site: Homeserver) -> None:
    """Its acts carry its name; the one who watched ends with it, for nothing is left to do."""
    path = site.directory / "rollout/ledger.json"
    done = site.run("deploy", "--to", "2.0.0", "--yes")
    assert done.exit_code == 0, done.output
    content = Book(path).read()
    assert content.alive_until_s <= time.time()
    (line,) = site.journal.deploys("simulated.localhost", 9)
    assert set(content.owners.values()) == {line.deploy_id}
    watcher = path.with_suffix(".watch.lock").read_text()
    assert "watches over simulated.localhost" in watcher
    until(lambda: not Path(f"/proc/{watcher.split()[1]}").exists(), "the dead-man has ended")


def test_without_somebody_who_would_bring_back_what_is_out_nothing_is_begun(site: Homeserver) -> None:
    """Refused before anything is written down or touched."""
    (site.directory / "rollout/ledger.watch.log").mkdir(parents=True)
    refused = site.run("deploy", "--to", "2.0.0", "--yes")
    assert refused.exit_code == REFUSED, refused.output
    assert "the dead-man" in refused.output
    assert site.journal.deploys("simulated.localhost", 9) == []
    assert FileLedger(site.directory / "rollout/ledger.json").last_number() == 0
