"""systemd over SSH when it isn't as it should be, on real hosts: forbidden, slow, silent, failing, tied together."""

import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from os import kill

import pytest

from rollout.adapters.workers.systemd_ssh.driver import SystemdSsh
from rollout.interfaces.sudoers_text import sudoers_text
from rollout.lab.processes import wait_until
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from tests.hosts import units
from tests.hosts.bed import USER, Bed, hosts

SYNC1, SYNC2, SLOW, DYING, AGAIN, MENDED = (WorkerId(name) for name in ("sync1", "sync2", "slow", "dying", "again", "mended"))
MAIN, TIED, THROUGH, LOOSE = (WorkerId(name) for name in ("main", "tied", "through", "loose"))
TIMEOUT_S = 10.0
PLACES = {SYNC1: "a", SYNC2: "b", SLOW: "b", DYING: "a", AGAIN: "a", MENDED: "a", MAIN: "a", TIED: "a", THROUGH: "a", LOOSE: "a"}
# It fails as often as it likes, and is then forbidden to try: what a bad release leaves behind.
_LIMITED = ("StartLimitIntervalSec=1h", "StartLimitBurst=1")
_MENDED = "/bin/sh -c 'test -e /run/mended || exit 1; exec sleep 600'"


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two hosts: a is always there, b is cut off now and then."""
    with hosts(tmp_path_factory.mktemp("beds"), "a", "b") as bed:
        for host in ("a", "b"):
            units.install(bed, host, {"worker@.service": units.unit(units.STEADY)})
        units.install(bed, "b", {"worker@slow.service": units.unit(units.STUBBORN, service=["TimeoutStopSec=4"])})
        steady = units.STEADY
        units.install(
            bed,
            "a",
            {
                "worker@dying.service": units.unit(units.FAILING),
                "worker@again.service": units.unit(
                    "/bin/sleep 0.2", service=["Restart=always", "RestartSec=20ms"], tied=["StartLimitIntervalSec=0"]
                ),
                "worker@mended.service": units.unit(_MENDED, tied=_LIMITED),
                "worker@tied.service": units.unit(steady, tied=["PartOf=worker@main.service"]),
                "worker@loose.service": units.unit(steady, tied=["Wants=worker@main.service", "After=worker@main.service"]),
                "all.target": "[Unit]\nPartOf=worker@main.service\n",
                "worker@through.service": units.unit(steady, tied=["BindsTo=all.target"]),
            },
        )
        opened = units.driver(units.settings_for(bed), PLACES)
        units.allow(bed, opened)
        opened.close()
        yield bed


@pytest.fixture
def workers(bed: Bed) -> Iterator[SystemdSsh]:
    """A driver that hasn't connected yet, and nothing that runs."""
    for host in ("a", "b"):
        bed.run(host, "systemctl", "kill", "--signal=KILL", "--kill-whom=all", "worker@*.service")
        bed.run(host, "systemctl", "stop", "worker@*.service")
    workers = units.driver(units.settings_for(bed), PLACES)
    yield workers
    workers.close()


def _told(bed: Bed, host: str, what: str) -> int:
    """Count how often sudo has run it there."""
    bed.run(host, "journalctl", "--sync")
    return bed.run(host, "journalctl", "--output=cat", "_COMM=sudo").count(f"COMMAND=/usr/bin/systemctl {what}")


def test_a_link_that_goes_down_during_a_stop_leaves_its_outcome_unknown(bed: Bed, workers: SystemdSsh) -> None:
    """It is not told twice: systemd goes on by itself, and a look afterwards says what became of it."""
    workers.start(SLOW, TIMEOUT_S)
    units.began_at_s(bed, "b", SLOW)
    told = _told(bed, "b", "stop worker@slow.service")
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(workers.stop, SLOW, 3.0)
        wait_until(lambda: _told(bed, "b", "stop worker@slow.service") > told, 10, "it was told")
        with bed.unplugged("b"), pytest.raises(OutcomeUnknownError) as doubted:
            stopping.result()
    assert doubted.value.where == SLOW
    assert doubted.value.what == "whether it was told to stop is not known: no answer in time"
    assert doubted.value.why == f"{units.where(bed, 'b')}: it was sent, and the time for the answer has passed"
    wait_until(lambda: units.sees(workers, SLOW) and not workers.look([SLOW], TIMEOUT_S)[SLOW].running, 15, "it was stopped")
    assert _told(bed, "b", "stop worker@slow.service") == told + 1


def test_a_stop_that_takes_longer_than_its_timeout_is_in_doubt(bed: Bed, workers: SystemdSsh) -> None:
    """`systemctl stop` waits for as long as the unit takes; who called doesn't."""
    workers.start(SLOW, TIMEOUT_S)
    units.began_at_s(bed, "b", SLOW)
    began_s = time.monotonic()
    with pytest.raises(OutcomeUnknownError, match="whether it was told to stop is not known"):
        workers.stop(SLOW, 1.5)
    assert time.monotonic() - began_s < 6
    before = workers.look([SLOW], TIMEOUT_S)[SLOW]
    assert before.running
    # Said again, it waits for the one that is under way.
    workers.stop(SLOW, TIMEOUT_S)
    assert not workers.look([SLOW], TIMEOUT_S)[SLOW].running


def test_one_that_is_about_to_end_does_not_count_as_started(bed: Bed, workers: SystemdSsh) -> None:
    """A stop is under way, and its process is still there when it is started: what runs afterwards is another one."""
    workers.start(SLOW, TIMEOUT_S)
    units.began_at_s(bed, "b", SLOW)
    before = workers.look([SLOW], TIMEOUT_S)[SLOW]
    bed.run("b", "systemctl", "stop", "--no-block", "worker@slow.service")
    workers.start(SLOW, TIMEOUT_S)
    after = workers.look([SLOW], TIMEOUT_S)[SLOW]
    assert after.running
    assert before.started_at_s is not None
    assert after.started_at_s is not None
    assert after.started_at_s > before.started_at_s + 3


def test_a_systemd_that_hangs_is_not_waited_for(bed: Bed, workers: SystemdSsh) -> None:
    """
    Process 1 stands still, so every systemctl there does, and so does whoever connects anew: the line that the two share has been given up.
    Nothing was sent that changes something.
    """
    workers.start(SYNC2, TIMEOUT_S)
    other = units.driver(units.settings_for(bed), PLACES)
    other.look([SYNC2], TIMEOUT_S)
    init = bed.init("b")
    kill(init, signal.SIGSTOP)
    try:
        for attempt in (lambda: workers.look([SYNC2], 0.7), lambda: other.stop(SYNC2, 0.7)):
            began_s = time.monotonic()
            with pytest.raises(TransientDriverError, match=r"no answer (in time|to the attempt to connect)"):
                attempt()
            assert time.monotonic() - began_s < 5
    finally:
        kill(init, signal.SIGCONT)
        other.close()
    wait_until(lambda: units.sees(workers, SYNC2), 10, "b answers again")
    assert workers.look([SYNC2], TIMEOUT_S)[SYNC2].running


def test_what_sudo_does_not_allow_is_known_before_it_is_tried(bed: Bed, workers: SystemdSsh) -> None:
    """Nothing has happened, and the error says which rules to install."""
    workers.start(SYNC1, TIMEOUT_S)
    rules = bed.run("a", "cat", "/etc/sudoers.d/rollout")
    told = _told(bed, "a", "stop worker@sync1.service")
    bed.write("a", "/etc/sudoers.d/rollout", rules.replace("stop worker@sync1.service", "stop worker@sync10.service"), "440")
    try:
        with pytest.raises(PermanentDriverError) as refused:
            workers.stop(SYNC1, TIMEOUT_S)
    finally:
        bed.write("a", "/etc/sudoers.d/rollout", rules, "440")
    assert refused.value.where == SYNC1
    assert refused.value.what == f"sudo does not let {USER} run `/usr/bin/systemctl stop worker@sync1.service` on host a"
    assert refused.value.remedy == "install on a what `rollout sudoers --host a -i INVENTORY` prints"
    assert workers.look([SYNC1], TIMEOUT_S)[SYNC1].running
    assert _told(bed, "a", "stop worker@sync1.service") == told


def test_one_that_starts_and_dies_says_why(workers: SystemdSsh) -> None:
    """Exit status and last words, as somebody at the host would look them up."""
    with pytest.raises(PermanentDriverError) as failed:
        workers.start(DYING, TIMEOUT_S)
    assert str(failed.value).splitlines() == [
        "dying: it exits as soon as it is started",
        "    it exited with status 3, systemd: exit-code, NRestarts=0",
        "    its last words: reading the configuration",
        "    binding a port",
        "    the port is taken",
        "    try: journalctl -u worker@dying.service on host a",
    ]
    assert workers.last_lines(DYING, 2) == ("binding a port", "the port is taken")


def test_one_that_systemd_starts_again_and_again_does_not_run(workers: SystemdSsh) -> None:
    """Whenever it is looked at there may be a process, but never twice the same."""
    with pytest.raises(PermanentDriverError) as failed:
        workers.start(AGAIN, TIMEOUT_S)
    assert failed.value.what == "it exits as soon as it is started"
    assert "NRestarts=" in failed.value.why
    workers.stop(AGAIN, TIMEOUT_S)
    assert not workers.look([AGAIN], TIMEOUT_S)[AGAIN].running


def test_a_journal_that_may_not_be_read_is_not_an_empty_one(bed: Bed, workers: SystemdSsh) -> None:
    """Where it may not read, journalctl prints nothing and is content, so the groups are asked."""
    bed.run("a", "usermod", "-G", "", USER)
    try:
        with pytest.raises(PermanentDriverError) as failed:
            workers.start(DYING, TIMEOUT_S)
        assert workers.last_lines(DYING, 2) == ()
    finally:
        bed.run("a", "usermod", "-G", "systemd-journal", USER)
    assert f"what it wrote is not known: {USER} may not read the journal on host a (group systemd-journal)" in failed.value.why


def test_the_way_back_is_not_barred_by_how_often_a_bad_release_failed(bed: Bed, workers: SystemdSsh) -> None:
    """How often a start has failed is counted by systemd, which then forbids the next; what is good now shall start."""
    bed.run("a", "rm", "-f", "/run/mended")
    with pytest.raises(PermanentDriverError):
        workers.start(MENDED, TIMEOUT_S)
    bed.run("a", "touch", "/run/mended")
    workers.start(MENDED, TIMEOUT_S)
    assert workers.look([MENDED], TIMEOUT_S)[MENDED].running


@pytest.mark.parametrize("tie", ["PartOf", "Requires", "BindsTo", "Requisite"])
def test_a_stop_that_would_take_others_along_is_refused(bed: Bed, workers: SystemdSsh, tie: str) -> None:
    """Directly or through a target; one that only comes after it, or wants it, is no reason."""
    tied = units.unit(units.STEADY, tied=[f"{tie}=worker@main.service", "After=worker@main.service"])
    units.install(bed, "a", {"worker@tied.service": tied})
    bed.run("a", "systemctl", "start", *(f"worker@{worker}.service" for worker in (MAIN, TIED, LOOSE, THROUGH)))
    with pytest.raises(PermanentDriverError) as refused:
        workers.stop(MAIN, TIMEOUT_S)
    assert str(refused.value).splitlines() == [
        "main: stopping it would stop through, tied as well",
        "    worker@through.service has BindsTo=all.target",
        f"    worker@tied.service has {tie}=worker@main.service",
        "    try: write Wants= and After= in its place (systemctl edit --full, on the host), then systemctl daemon-reload",
    ]
    assert all(process.running for process in workers.look([MAIN, TIED, LOOSE, THROUGH], TIMEOUT_S).values())
    # The others go alone.
    workers.stop(TIED, TIMEOUT_S)
    assert {worker: it.running for worker, it in workers.look([MAIN, TIED, LOOSE], TIMEOUT_S).items()} == {
        MAIN: True,
        TIED: False,
        LOOSE: True,
    }


def test_units_as_synapses_own_documentation_has_them(bed: Bed) -> None:
    """
    Ready long after they run, which nobody waits for here; prepared by a command before; and parts of one target, which ties none of them
    to another.
    """
    target = ["PartOf=matrix-synapse.target"]
    notify = "/bin/sh -c 'sleep 30; systemd-notify --ready; exec sleep 600'"
    service = ["Type=notify", "NotifyAccess=all", "ExecStartPre=/bin/sleep 0.6", "Restart=always", "RestartSec=3"]
    units.install(
        bed,
        "a",
        {
            "matrix-synapse.target": "[Unit]\nDescription=all of it\n",
            "matrix-synapse.service": units.unit(notify, service=service, tied=target),
            "matrix-synapse-worker@.service": units.unit(notify, service=service, tied=[*target, "After=matrix-synapse.service"]),
        },
    )
    settings = {**units.settings_for(bed), "unit": "matrix-synapse-worker@{worker}.service", "units": {MAIN: "matrix-synapse.service"}}
    workers = units.driver(settings, {MAIN: "a", SYNC1: "a"})
    rules = bed.run("a", "cat", "/etc/sudoers.d/rollout")
    units.allow(bed, workers)
    try:
        began_s = time.monotonic()
        for worker in (SYNC1, MAIN):
            workers.start(worker, TIMEOUT_S)
            assert workers.look([worker], TIMEOUT_S)[worker].running
        assert time.monotonic() - began_s < 20
        workers.stop(MAIN, TIMEOUT_S)
        assert {worker: it.running for worker, it in workers.look([MAIN, SYNC1], TIMEOUT_S).items()} == {MAIN: False, SYNC1: True}
        workers.stop(SYNC1, TIMEOUT_S)
    finally:
        bed.write("a", "/etc/sudoers.d/rollout", rules, "440")
        workers.close()


def test_a_unit_that_systemd_does_not_have_or_cannot_use(bed: Bed) -> None:
    """Left out of a look, and a fault that no second try mends."""
    settings = {**units.settings_for(bed), "units": {SYNC1: "absent.service", SYNC2: "bad.service"}}
    workers = units.driver(settings, {SYNC1: "a", SYNC2: "b"})
    units.install(bed, "b", {"bad.service": "[Service]\nType=simple\n"})
    # One that runs although its file is gone is known, and can be stopped.
    units.install(bed, "a", {"absent.service": units.unit("/bin/sleep 600")})
    bed.run("a", "systemctl", "start", "absent.service")
    bed.run("a", "rm", "/etc/systemd/system/absent.service")
    bed.run("a", "systemctl", "daemon-reload")
    assert workers.look([SYNC1], TIMEOUT_S)[SYNC1].running
    rules = bed.run("a", "cat", "/etc/sudoers.d/rollout")
    bed.write("a", "/etc/sudoers.d/rollout", sudoers_text(workers.privileges()[:1]), "440")
    workers.stop(SYNC1, TIMEOUT_S)
    bed.write("a", "/etc/sudoers.d/rollout", rules, "440")
    # Once it is gone, nobody knows it.
    assert set(workers.look([SYNC1, SYNC2], TIMEOUT_S)) == {SYNC2}
    for act in (workers.stop, workers.start):
        with pytest.raises(PermanentDriverError, match=r"systemd on host a has no unit absent\.service"):
            act(SYNC1, TIMEOUT_S)
        with pytest.raises(PermanentDriverError, match=r"systemd on host b can't use unit bad\.service \(bad-setting\)"):
            act(SYNC2, TIMEOUT_S)
    workers.close()


def test_a_host_whose_clock_is_wrong_is_not_believed(bed: Bed, workers: SystemdSsh) -> None:
    """Whether a process is older than our intent couldn't be told."""
    bed.write("a", "/usr/local/bin/date", "#!/bin/sh\n/bin/date -d '90 seconds ago' \"$@\"\n", "755")
    try:
        with pytest.raises(PermanentDriverError) as refused:
            workers.look([SYNC1], TIMEOUT_S)
    finally:
        bed.run("a", "rm", "/usr/local/bin/date")
    assert re.fullmatch(r"the host's clock is (8\d\.\d|90\.0) s behind this machine's", refused.value.what)
    assert refused.value.where == units.where(bed, "a")
