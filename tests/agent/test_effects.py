"""From an effect of a rollout to what the agent does, with real drivers, and from what it says to what the journal says."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.adapters.ledger.file import FileLedger
from rollout.adapters.probe.http import HttpProbe
from rollout.adapters.releases.venv import VenvReleases
from rollout.adapters.traffic.haproxy import Haproxy
from rollout.adapters.workers.supervisor import Supervisor
from rollout.agent.book import Book
from rollout.engine.drivers import Drivers
from rollout.engine.perform import act
from rollout.engine.rescue import admit_ours
from rollout.model.effect import Effect
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.event import EffectFailed, EffectInDoubt, EffectSucceeded
from rollout.model.ids import EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan, Verb
from rollout.ports.acts import Work
from rollout.ports.traffic import Server
from rollout.simulation.virtual_clock import VirtualClock
from tests.agent.processes import done, lines, until, write
from tests.contracts.proxy import Proxy, haproxy
from tests.contracts.proxy import until as until_proxy
from tests.contracts.supervisord import STEADY, began_at_s, supervisord
from tests.simulation.stages import PLAYBOOK, seven_workers

SYNC1 = WorkerId("sync1")
SERVER = Server("sync", "sync1")
OLD, NEW = ReleaseId("1.0.0-00000000"), ReleaseId("2.0.0-0a1b2c3d")


def effect(number: int, verb: Verb = Verb.DRAIN, *, token: int = 0, owner: str = "a", release: ReleaseId = NEW) -> Effect:
    return Effect(EffectNumber(number), StepId(f"sync1/{verb}"), verb, SYNC1, release, 0.0, why="sync first", token=token, owner=owner)


class Site:
    """Real HAProxy, supervisord, links and ledger, for one worker of a homeserver whose plan was made for a simulated one."""

    def __init__(self, directory: Path, proxy: Proxy, supervisor: Path) -> None:
        stage = seven_workers()
        self.plan: Plan = stage.plan(PLAYBOOK)
        self.inventory: Inventory = stage.inventory
        self.clock: VirtualClock = stage.clock
        self.path = directory / "rollout/ledger.json"
        self.traffic = Haproxy((proxy.admin,), proxy.master)
        self.target = directory / "target"
        for release in (OLD, NEW):
            (self.target / "releases" / release).mkdir(parents=True)
            (self.target / "releases" / release / "release.json").touch()
        self.releases = VenvReleases(self.target, directory, (SYNC1,))
        self.workers = Supervisor(supervisor)
        self.url = f"http://127.0.0.1:{proxy.backends['sync1'].server_port}"
        self.drivers: Drivers = replace(
            stage.drivers,
            traffic=self.traffic,
            releases=self.releases,
            workers=self.workers,
            probe=HttpProbe({SYNC1: self.url}, None, None),
            ledger=FileLedger(self.path),
        )

    def act(self, one: Effect) -> EffectSucceeded | EffectFailed | EffectInDoubt:
        return act(one, self.plan, self.drivers, self.inventory, self.clock)

    @property
    def link(self) -> Path:
        return self.target / "current/sync1"


def test_a_worker_is_taken_out_switched_and_brought_back_by_the_agent(tmp_path: Path) -> None:
    """Drain, restart and admission as data; the mark says how it comes back; equal and late numbers are told apart from a take-over."""
    (tmp_path / "proxy").mkdir()
    with haproxy(tmp_path / "proxy") as proxy, supervisord(tmp_path, {SYNC1: STEADY}) as supervisor:
        site = Site(tmp_path, proxy, supervisor)
        places = {SYNC1: SERVER}
        until_proxy(lambda: site.traffic.look(places, 5.0)[SYNC1].up)
        site.releases.activate(SYNC1, OLD)
        site.workers.start(SYNC1, 5.0)
        first_s = began_at_s(tmp_path, SYNC1)

        assert isinstance(site.act(effect(5)), EffectSucceeded)
        assert not site.traffic.look(places, 5.0)[SYNC1].admitted
        back = Book(site.path).read().marks["sync1"]["back"]
        assert (back["health"], back["link"], back["after_s"]) == (f"{site.url}/health", str(site.link), 0.0)
        assert back["acts"] == list(site.traffic.admit_acts(SERVER, 100, 5.0))

        assert isinstance(site.act(effect(6, Verb.RESTART)), EffectSucceeded)
        assert site.link.readlink().name == NEW
        assert began_at_s(tmp_path, SYNC1) > first_s
        assert list(site.drivers.ledger.marks()) == [SYNC1]

        late = site.act(effect(6, Verb.ADMIT, owner="b"))
        assert isinstance(late, EffectFailed)
        assert (late.permanent, late.ledger_number, late.fenced) == (False, 6, False)
        assert isinstance(site.act(effect(7, Verb.ADMIT)), EffectSucceeded)
        assert site.traffic.look(places, 5.0)[SYNC1].admitted
        assert site.drivers.ledger.marks() == {}

        site.drivers.ledger.take(2, "b")
        fenced = site.act(effect(99))
        assert isinstance(fenced, EffectFailed)
        assert (fenced.permanent, fenced.ledger_number, fenced.fenced) == (True, 0, True)
        assert "b has taken over" in fenced.why
        assert site.traffic.look(places, 5.0)[SYNC1].admitted

        assert isinstance(site.act(effect(1, token=2, owner="b")), EffectSucceeded)
        rescued = admit_ours(site.drivers, site.inventory)
        assert (rescued.admitted, rescued.left_out) == ((SYNC1,), {})
        assert site.traffic.look(places, 5.0)[SYNC1].admitted


def test_a_release_that_is_not_there_is_refused_before_anything_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "proxy").mkdir()
    with haproxy(tmp_path / "proxy") as proxy, supervisord(tmp_path, {SYNC1: STEADY}) as supervisor:
        site = Site(tmp_path, proxy, supervisor)
        site.workers.start(SYNC1, 5.0)
        failed = site.act(effect(1, Verb.RESTART, release=ReleaseId("3.0.0-ffffffff")))
        assert isinstance(failed, EffectFailed)
        assert failed.permanent
        assert site.workers.look([SYNC1], 5.0)[SYNC1].running


def _here() -> None:
    pytest.fail("it was done in this process")


@pytest.mark.parametrize(
    ("script", "kind", "what"),
    [
        ("exit 4", PermanentDriverError, "sh ended with status 4"),
        ("kill -9 $PPID; sleep 1", OutcomeUnknownError, "the agent did not say what it did"),
    ],
)
def test_what_goes_wrong_there_is_raised_here(tmp_path: Path, script: str, kind: type[DriverError], what: str) -> None:
    """An agent that dies without a word may have done it."""
    ledger = FileLedger(tmp_path / "ledger.json")
    acts = ({"kind": "command", "argv": ["sh", "-c", script], "timeout_s": 5.0},)
    with pytest.raises(kind) as failed:
        ledger.perform(effect(1), Work(_here, acts))
    assert failed.value.what == what
    assert list(ledger.marks()) == [SYNC1]


def test_words_and_kinds_are_those_of_the_driver_itself(tmp_path: Path) -> None:
    """Whoever reads them can't tell whether an agent was in between; the address is the same too."""
    nothing = Haproxy((tmp_path / "nothing.sock",), None)
    with pytest.raises(TransientDriverError) as here:
        nothing.drain(SERVER, 1.0)
    with pytest.raises(TransientDriverError) as there:
        FileLedger(tmp_path / "ledger.json").perform(effect(1), Work(_here, nothing.drain_acts(SERVER, 1.0)))
    assert str(here.value) == str(there.value) == f"{tmp_path}/nothing.sock: the proxy can't be reached\n    there is no such socket"


def test_an_agent_that_is_stuck_is_ended_and_can_do_nothing_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it was stopped from outside; its effect is in doubt."""
    monkeypatch.setattr("rollout.adapters.ledger.file.MARGIN_S", -100.0)
    log = tmp_path / "log"
    stops = {"kind": "command", "argv": ["sh", "-c", f"echo begun >> {log}; kill -STOP $PPID"], "timeout_s": 60.0}
    began_s = time.monotonic()
    with pytest.raises(OutcomeUnknownError, match="the agent took longer"):
        FileLedger(tmp_path / "ledger.json").perform(effect(1), Work(_here, (stops, write(log, "late"))))
    assert time.monotonic() - began_s < 20
    time.sleep(0.3)
    assert lines(log) == ["begun"]
    monkeypatch.undo()
    FileLedger(tmp_path / "ledger.json").perform(effect(2), Work(_here, (write(log, "next"),)))


def test_what_ends_the_tool_does_not_end_what_it_has_begun(tmp_path: Path) -> None:
    """SIGINT to its whole group, as ^C sends it, and SIGKILL: the admission is done to its end, and the mark is gone."""
    path, log = tmp_path / "ledger.json", tmp_path / "log"
    FileLedger(path).perform(effect(1), Work(_here, (write(log, "drained"),)))
    tool = subprocess.Popen([sys.executable, "-c", _TOOL, str(path), str(log)], start_new_session=True)
    until(lambda: "begins admitted" in lines(log), "it acts")
    os.killpg(tool.pid, signal.SIGINT)
    os.killpg(tool.pid, signal.SIGKILL)
    tool.wait(5)
    until(lambda: FileLedger(path).marks() == {}, "it was done")
    assert done(log) == ["drained", "admitted"]


_TOOL = """
import sys
from pathlib import Path
from rollout.adapters.ledger.file import FileLedger
from rollout.model.effect import Effect
from rollout.model.plan import Verb
from rollout.ports.acts import Work
from tests.agent.processes import write
path, log = map(Path, sys.argv[1:])
effect = Effect(2, "sync1/admit", Verb.ADMIT, "sync1", "1.0.0-00000000", 0.0, owner="a")
FileLedger(path).perform(effect, Work(lambda: None, (write(log, "admitted", after_s=1.5),)))
"""
