"""The agent on real hosts, over SSH: put there, fenced, cut off. The ledger is on host a, the worker on b."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.adapters.ledger.ssh import SshLedger
from rollout.adapters.workers.systemd_ssh.driver import SystemdSsh
from rollout.lab.processes import wait_until
from rollout.model.effect import NEXT, Effect
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, StaleEffectError, TakenOverError, TransientDriverError
from rollout.model.ids import EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.plan import Verb
from rollout.ports.acts import Acts, Work
from tests.hosts import units
from tests.hosts.agents import DIRECTORY, LEDGER, allow_agent, armed, ledger_on, written
from tests.hosts.bed import USER, Bed, hosts
from tests.interfaces.homeserver import homeserver

SYNC1, SLOW, DYING = (WorkerId(name) for name in ("sync1", "slow", "dying"))
PLACES = {SYNC1: "b", SLOW: "b", DYING: "b"}
NEW = ReleaseId("2.0.0-0a1b2c3d")
TIMEOUT_S = 10.0
# It says of itself that it is one.
OLD_PYTHON = """\
#!/usr/bin/python3
import sys
sys.version_info = (3, 9, 2)
at = sys.argv.index("-c")
code, sys.argv = sys.argv[at + 1], sys.argv[at:]
exec(code)
"""
LOCK = f"{DIRECTORY}/ledger.acts.sync1.lock"


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with hosts(tmp_path_factory.mktemp("beds"), "a", "b") as bed:
        slow = units.unit(units.STUBBORN, service=["TimeoutStopSec=3"])
        dying = units.unit(units.FAILING)
        steady = units.unit(units.STEADY)
        units.install(bed, "b", {"worker@.service": steady, "worker@slow.service": slow, "worker@dying.service": dying})
        with closing(units.driver(units.settings_for(bed), PLACES)) as opened:
            units.allow(bed, opened)
        yield bed


@pytest.fixture
def workers(bed: Bed) -> Iterator[SystemdSsh]:
    """The driver of the units on b, of which none runs."""
    bed.run("b", "systemctl", "kill", "--signal=KILL", "--kill-whom=all", "worker@*.service")
    bed.run("b", "systemctl", "stop", "worker@*.service")
    with closing(units.driver(units.settings_for(bed), PLACES)) as workers:
        yield workers


@pytest.fixture
def ledger(bed: Bed) -> Iterator[SshLedger]:
    """Nothing is on the hosts but an empty directory."""
    for host in ("a", "b"):
        bed.run(host, "rm", "-rf", DIRECTORY)
    with closing(ledger_on(bed)) as ledger:
        allow_agent(bed, ledger)
        yield ledger


def effect(number: int, verb: Verb = Verb.RESTART, *, worker: WorkerId = SYNC1, token: int = 1, owner: str = "a") -> Effect:
    return Effect(EffectNumber(number), StepId(f"{worker}/{verb}"), verb, worker, NEW, 0.0, why="sync first", token=token, owner=owner)


def _restart(workers: SystemdSsh, worker: WorkerId = SYNC1, timeout_s: float = TIMEOUT_S) -> Work:
    return _work((*workers.stop_acts(worker, timeout_s), *workers.start_acts(worker, timeout_s)))


def _work(acts: Acts) -> Work:
    return Work(lambda: pytest.fail("it was done in this process"), acts)


def _agents(bed: Bed, host: str) -> list[str]:
    """Name the processes of agents that act there."""
    return bed.run(host, "sh", "-c", "pgrep -f '^/usr/bin/python3 -I -S .*agent.py act' || true").split()


def _versions(bed: Bed, host: str) -> list[str]:
    return sorted(bed.run(host, "sh", "-c", f"cd {DIRECTORY} && ls -d agent-*").split())


def test_it_is_put_there_once_and_one_round_trip_tells_that_it_is_there(bed: Bed, ledger: SshLedger) -> None:
    """By what is in it: somebody who changes it is found out."""
    ledger.guard("example.org")
    (name,) = _versions(bed, "b")
    assert _versions(bed, "a") == [name]
    before = [bed.logged(host, "Starting session: command") for host in ("a", "b")]
    ledger.guard("example.org")
    # The second one on a asks whether the ledger can be written and the timer be started.
    assert [bed.logged(host, "Starting session: command") - was for host, was in zip(("a", "b"), before, strict=True)] == [2, 1]
    bed.run("b", "sh", "-c", f"echo >>{DIRECTORY}/{name}/rollout/agent/rule.py")
    with pytest.raises(PermanentDriverError, match="is not what was put there") as refused:
        ledger.guard("example.org")
    assert units.where(bed, "b") == refused.value.where
    bed.run("b", "rm", "-rf", f"{DIRECTORY}/{name}")
    ledger.guard("example.org")


def test_an_older_one_is_replaced_and_goes_on_where_it_acts(bed: Bed, ledger: SshLedger) -> None:
    """Its folder stays as it is, and so does what it has loaded, or not yet."""
    ledger.guard("example.org")
    (name,) = _versions(bed, "b")
    old = "agent-0123456789abcdef"
    script = f"cd {DIRECTORY} && mv {name} {old} && ln -sfn {old} agent"
    bed.run("b", "runuser", "-u", USER, "--", "sh", "-c", script)
    order = '{"worker": "sync1", "number": 1, "wait_s": 1, "acts": [{"kind": "command", "argv": ["sleep", "3"], "timeout_s": 9}, '
    order += '{"kind": "supervisord", "do": "stop", "socket": "/nowhere", "program": "x", "timeout_s": 1}]}'
    program = f"{DIRECTORY}/agent/rollout/agent/agent.py"
    said = f"/usr/bin/python3 -I -S {program} act {LEDGER} '{order}' >{DIRECTORY}/said"
    bed.run("b", "systemd-run", "--quiet", f"--uid={USER}", "sh", "-c", said)
    wait_until(lambda: _agents(bed, "b") != [], 10, "the old one acts")
    ledger.guard("example.org")
    assert _agents(bed, "b") != []
    assert _versions(bed, "b") == sorted([old, name])
    assert bed.run("b", "readlink", f"{DIRECTORY}/agent").strip() == name
    wait_until(lambda: "outcome" in bed.run("b", "cat", f"{DIRECTORY}/said"), 10, "the old one has ended")
    assert "supervisord's socket is not there" in bed.run("b", "cat", f"{DIRECTORY}/said")


def test_half_of_it_is_never_run(bed: Bed, ledger: SshLedger) -> None:
    """On a disk that is full while it is copied nothing takes its name; once there is room it is put there."""
    bed.run("b", "mount", "-t", "tmpfs", "-o", f"size=40k,uid={bed.run('b', 'id', '-u', USER).strip()}", "tmpfs", DIRECTORY)
    try:
        with pytest.raises(PermanentDriverError, match="can't be put there") as refused:
            ledger.guard("example.org")
        assert "No space left" in refused.value.why
        assert bed.run("b", "ls", "-A", DIRECTORY) == ""
    finally:
        bed.run("b", "umount", DIRECTORY)
    ledger.guard("example.org")


def test_where_it_can_t_be_it_is_said_what_to_do(bed: Bed, ledger: SshLedger) -> None:
    """No directory, a Python that is too old, or none: before anything is begun, and by which host."""
    bed.run("b", "rm", "-rf", DIRECTORY)
    with pytest.raises(PermanentDriverError, match="can't be put there") as refused:
        ledger.guard("example.org")
    assert refused.value.remedy.startswith(f"there, once: install -d -m 700 -o {USER} {DIRECTORY}")
    bed.write("b", "/usr/local/bin/python-old", OLD_PYTHON, "755")
    bed.write("a", "/usr/local/bin/python-old", '#!/bin/sh\nexec /usr/bin/python3 "$@"\n', "755")
    with closing(ledger_on(bed, python="/usr/local/bin/python-old")) as other:
        with pytest.raises(PermanentDriverError, match=r"the agent needs Python 3\.10 or newer") as too_old:
            other.guard("example.org")
        assert too_old.value.why == "/usr/local/bin/python-old there is Python 3.9"
    with (
        closing(ledger_on(bed, python="/usr/bin/python-none")) as other,
        pytest.raises(PermanentDriverError, match="/usr/bin/python-none can't be run there"),
    ):
        other.guard("example.org")


def test_a_restart_is_done_by_the_agent_on_its_host(bed: Bed, workers: SystemdSsh, ledger: SshLedger) -> None:
    """Compared at the ledger and there; what the worker runs is known once it is done, and not while it isn't."""
    workers.start(SYNC1, TIMEOUT_S)
    first_s = units.began_at_s(bed, "b", SYNC1)
    ledger.perform(effect(5), _restart(workers))
    assert workers.look([SYNC1], TIMEOUT_S)[SYNC1].running
    assert units.began_at_s(bed, "b", SYNC1) > first_s
    content = written(bed)
    assert (content["numbers"], content["lent"], content["runs"]) == ({"sync1": 5}, {}, {"sync1": NEW})
    with pytest.raises(StaleEffectError, match="5 was done already"):
        ledger.perform(effect(4), _restart(workers))
    with pytest.raises(PermanentDriverError, match="exits as soon as it is started") as failed:
        ledger.perform(effect(6, worker=DYING), _restart(workers, DYING))
    assert "it exited with status 3" in failed.value.why
    assert "its last words: reading the configuration" in failed.value.why
    content = written(bed)
    assert (content["lent"], content["runs"]) == ({}, {"sync1": NEW})


def test_sudo_is_asked_before_anything_is_done(bed: Bed, workers: SystemdSsh, ledger: SshLedger) -> None:
    workers.start(SYNC1, TIMEOUT_S)
    began_s = units.began_at_s(bed, "b", SYNC1)
    rules = bed.run("b", "cat", "/etc/sudoers.d/rollout")
    bed.run("b", "rm", "/etc/sudoers.d/rollout")
    try:
        with pytest.raises(PermanentDriverError, match=f"sudo does not let {USER} run `/usr/bin/systemctl stop worker@sync1.service`"):
            ledger.perform(effect(5), _restart(workers))
    finally:
        bed.write("b", "/etc/sudoers.d/rollout", rules, "440")
    assert units.began_at_s(bed, "b", SYNC1) == began_s


def _hold_the_worker(bed: Bed) -> None:
    bed.run("b", "systemd-run", "--quiet", "--unit=holder", f"--uid={USER}", "flock", LOCK, "sleep", "60")
    wait_until(lambda: bed.run("b", "sh", "-c", f"test -e {LOCK} && echo yes || true") != "", 5, "the worker is held")


def _stopped_before_it_compares(bed: Bed) -> str:
    """Stop the agent that waits for the worker, and return its process."""
    wait_until(lambda: len(_agents(bed, "b")) == 1, 10, "it waits there")
    (pid,) = _agents(bed, "b")
    bed.run("b", "kill", "-STOP", pid)
    return pid


def test_one_that_was_stopped_on_the_worker_s_host_and_is_woken_after_a_take_over_is_refused(
    bed: Bed, workers: SystemdSsh, ledger: SshLedger
) -> None:
    """SIGSTOP before it compared. Somebody takes over and admits the worker: that settles it there. Woken, it restarts nobody."""
    workers.start(SYNC1, TIMEOUT_S)
    began_s = units.began_at_s(bed, "b", SYNC1)
    ledger.guard("example.org")
    _hold_the_worker(bed)
    with ThreadPoolExecutor(1) as pool, closing(ledger_on(bed)) as other:
        late = pool.submit(ledger.perform, effect(5), _restart(workers))
        pid = _stopped_before_it_compares(bed)
        try:
            other.take(2, "b")
            bed.run("b", "systemctl", "stop", "holder.service")
            other.perform(effect(3, Verb.ADMIT, token=2, owner="b"), _work(()))
            assert written(bed)["lent"] == {}
        finally:
            bed.run("b", "kill", "-CONT", pid)
        with pytest.raises(TakenOverError, match="b has taken over"):
            late.result()
    assert units.began_at_s(bed, "b", SYNC1) == began_s


def test_one_that_is_admitted_by_hand_is_not_restarted_by_what_was_on_its_way(bed: Bed, workers: SystemdSsh, ledger: SshLedger) -> None:
    """By hand there is no new token: the number alone settles it."""
    workers.start(SYNC1, TIMEOUT_S)
    began_s = units.began_at_s(bed, "b", SYNC1)
    ledger.guard("example.org")
    _hold_the_worker(bed)
    with ThreadPoolExecutor(1) as pool, closing(ledger_on(bed)) as other:
        late = pool.submit(ledger.perform, effect(5), _restart(workers))
        pid = _stopped_before_it_compares(bed)
        try:
            bed.run("b", "systemctl", "stop", "holder.service")
            other.perform(Effect(NEXT, StepId("x"), Verb.ADMIT, SYNC1, NEW, 0.0, owner="by hand"), _work(()))
        finally:
            bed.run("b", "kill", "-CONT", pid)
        with pytest.raises(StaleEffectError, match="was done already by by hand"):
            late.result()
    assert units.began_at_s(bed, "b", SYNC1) == began_s


def test_a_connection_that_is_lost_in_the_middle_of_a_restart_leaves_it_in_doubt(bed: Bed, workers: SystemdSsh, ledger: SshLedger) -> None:
    """The agent goes on to the end; nothing is sent again; a look says what became of it, and the next act settles it."""
    workers.start(SLOW, TIMEOUT_S)
    first_s = workers.look([SLOW], TIMEOUT_S)[SLOW].started_at_s
    assert first_s is not None
    ledger.guard("example.org")
    with ThreadPoolExecutor(1) as pool:
        restarting = pool.submit(ledger.perform, effect(5, worker=SLOW), _restart(workers, SLOW))
        wait_until(
            lambda: bed.run("b", "systemctl", "show", "-P", "ActiveState", "worker@slow.service") == "deactivating\n", 10, "it stops"
        )
        for pid in bed.run("b", "pgrep", "-u", USER, "-x", "sshd").split():
            bed.run("b", "kill", "-KILL", pid)
        with pytest.raises(OutcomeUnknownError, match="no whole answer"):
            restarting.result()
    assert written(bed)["lent"]["slow"]["hosts"] == ["b"]
    assert written(bed)["runs"] == {}

    def restarted() -> bool:
        seen = workers.look([SLOW], TIMEOUT_S)[SLOW]
        return seen.running and seen.started_at_s is not None and seen.started_at_s > first_s

    wait_until(restarted, 15, "it was restarted all the same")
    bed.run("b", "journalctl", "--sync")
    assert bed.run("b", "journalctl", "--output=cat", "_COMM=sudo").count("COMMAND=/usr/bin/systemctl stop worker@slow.service") == 1
    ledger.perform(effect(6, Verb.ADMIT, worker=SLOW), _work(()))
    assert (written(bed)["lent"], written(bed)["numbers"]) == ({}, {"slow": 6})


def test_a_host_that_can_t_be_reached_before_a_restart_has_done_nothing(bed: Bed, workers: SystemdSsh, ledger: SshLedger) -> None:
    """Its worker isn't lent any more, and may be acted on at once."""
    ledger.guard("example.org")
    acts = _restart(workers)
    elsewhere = _elsewhere(bed)
    with closing(ledger_on(bed, hosts={"a": elsewhere["a"]})) as alone, pytest.raises(PermanentDriverError, match="there is no host 'b'"):
        alone.perform(effect(4), acts)
    with closing(ledger_on(bed, hosts=elsewhere)) as cut, pytest.raises(TransientDriverError, match="can't be reached"):
        cut.perform(effect(5), acts)
    assert written(bed)["lent"] == {}
    ledger.perform(effect(6), acts)


def test_a_ledger_that_is_kept_from_us_is_not_an_empty_one(bed: Bed, ledger: SshLedger) -> None:
    """An empty one would say that nothing is ours; nothing is there before anybody has acted."""
    assert ledger.marks() == {}
    ledger.perform(effect(1, Verb.DRAIN), _work(()))
    assert list(ledger.marks()) == [SYNC1]
    for path, owner in ((LEDGER, "root"), (DIRECTORY, "root")):
        bed.run("a", "chown", owner, path)
        bed.run("a", "chmod", "700", path)
        with pytest.raises(TransientDriverError, match="the ledger can't be read"):
            ledger.marks()
        bed.run("a", "chown", USER, path)
    assert list(ledger.marks()) == [SYNC1]


def test_what_names_no_host_is_done_by_the_tool_itself(ledger: SshLedger) -> None:
    """Of a driver that acts where rollout runs: fenced, with the worker lent to this process meanwhile."""
    seen: list[str] = []

    def here() -> None:
        with pytest.raises(TransientDriverError, match="effect 5 may be under way"):
            ledger.perform(effect(6), _work(()))
        seen.append("done")

    ledger.perform(effect(5), Work(here, ({"kind": "teleport"},)))
    assert seen == ["done"]
    ledger.perform(effect(6), _work(()))


def test_what_is_done_on_two_hosts_is_done_in_order_and_half_of_it_is_in_doubt(bed: Bed, ledger: SshLedger) -> None:
    def write(host: str, words: str) -> dict[str, object]:
        return {"kind": "command", "host": host, "argv": ["sh", "-c", f"date +%s.%N >{DIRECTORY}/{words}"], "timeout_s": 5.0}

    ledger.perform(effect(1), _work((write("b", "one"), write("a", "two"), write("b", "three"))))
    times = [bed.run(host, "cat", f"{DIRECTORY}/{words}") for host, words in (("b", "one"), ("a", "two"), ("b", "three"))]
    assert times == sorted(times)
    with pytest.raises(OutcomeUnknownError, match="only 1 of 2 parts of it were done"):
        ledger.perform(effect(2), _work((write("b", "four"), write("a", "nowhere/five"))))
    # … but one proxy that is away keeps nobody out at the others.
    with pytest.raises(OutcomeUnknownError, match="only 1 of 2 parts of it were done"):
        ledger.perform(effect(3, Verb.ADMIT), _work((write("b", "nowhere/six"), write("a", "seven"))))
    assert bed.run("a", "cat", f"{DIRECTORY}/seven") != ""


def _elsewhere(bed: Bed) -> dict[str, dict[str, object]]:
    """Return the hosts, with a port for b on which nobody listens."""
    settings = units.settings_for(bed)["hosts"]
    assert isinstance(settings, dict)
    return {**settings, "b": {**settings["b"], "port": 2}}


def test_a_whole_rollout_goes_by_a_ledger_on_a_host(bed: Bed, ledger: SshLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a simulated homeserver: its acts have no host, so they are done by the tool, each with its worker lent to it."""
    site = homeserver(tmp_path, monkeypatch)
    site.stage.drivers = replace(site.stage.drivers, ledger=ledger)
    done = site.run("deploy", "--to", "2.0.0", "--yes")
    assert done.exit_code == 0, done.output
    assert ledger.marks() == {}
    content = written(bed)
    assert content["runs"].keys() == content["numbers"].keys() != set()
    assert content["lent"] == {}
    assert not armed(bed)
