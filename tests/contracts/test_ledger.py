"""What every driver of the port `ledger` promises: the file at a target, on a real host over SSH, in a cluster, and the simulated one."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.adapters.ledger.file import FileLedger
from rollout.adapters.ledger.kubernetes import KubernetesLedger, LedgerSettings
from rollout.model.effect import NEXT, Effect
from rollout.model.errors import StaleEffectError, TakenOverError, TransientDriverError
from rollout.model.ids import EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.plan import Verb
from rollout.ports.acts import Work
from rollout.ports.ledger import Ledger
from rollout.simulation.drivers import SimulatedLedger
from rollout.simulation.rehearse import set_stage
from tests.hosts.agents import DIRECTORY, ledger_on
from tests.hosts.bed import Bed, hosts
from tests.kubernetes.bed import ControlPlane

SYNC1, SYNC2 = WorkerId("sync1"), WorkerId("sync2")
NEW, OLD = ReleaseId("2.0.0-0a1b2c3d"), ReleaseId("1.0.0-00000000")


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with hosts(tmp_path_factory.mktemp("beds"), "a") as bed:
        yield bed


@pytest.fixture(params=["file", "ssh", "kubernetes", "simulated"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """Every driver in turn, with nothing written down."""
    if request.param == "file":
        yield FileLedger(tmp_path / "rollout/ledger.json")
    elif request.param == "ssh":
        bed = request.getfixturevalue("bed")
        bed.run("a", "rm", "-rf", DIRECTORY)
        with closing(ledger_on(bed, user="root")) as one:
            yield one
    elif request.param == "kubernetes":
        plane: ControlPlane = request.getfixturevalue("control_plane")
        yield KubernetesLedger(LedgerSettings(namespace=plane.namespace, kubeconfig=plane.kubeconfig))
    else:
        yield SimulatedLedger(set_stage({"sync1": ("sync", "sync")}).world)


def effect(number: int, verb: Verb, worker: WorkerId | None = SYNC1, *, weight: int = 100, condemned: ReleaseId | None = None) -> Effect:
    """Number an act on *worker*."""
    why = f"because of {number}"
    return Effect(EffectNumber(number), StepId(f"{verb}:{worker}"), verb, worker, NEW, 100.0, weight, why, condemned=condemned)


def _do(ledger: Ledger, *effects: Effect) -> None:
    for one in effects:
        with ledger.fence(one):
            pass


def test_nothing_is_ours_at_first(ledger: Ledger) -> None:
    """A ledger that nobody has written is an empty one."""
    assert ledger.marks() == {}
    assert ledger.last_number() == 0


def test_a_drain_is_written_down_before_it_is_done(ledger: Ledger) -> None:
    """Whoever finds the worker drained finds out by whom, for what and why, also if the act never returned."""
    with ledger.fence(effect(1, Verb.DRAIN)):
        during = ledger.marks()[SYNC1]
    assert (during.number, during.release, during.why) == (1, NEW, "because of 1")
    with pytest.raises(TransientDriverError, match="the proxy is away"), ledger.fence(effect(2, Verb.DRAIN, SYNC2)):
        raise TransientDriverError("the proxy is away")
    assert (ledger.marks()[SYNC1], ledger.marks()[SYNC2].number) == (during, 2)


def test_full_admission_strikes_the_mark_out_after_it_was_done(ledger: Ledger) -> None:
    """Not before: if the tool dies in between, it is admitted once more, which harms nobody."""
    _do(ledger, effect(1, Verb.DRAIN), effect(2, Verb.DRAIN, SYNC2))
    with ledger.fence(effect(3, Verb.ADMIT)):
        assert set(ledger.marks()) == {SYNC1, SYNC2}
    assert set(ledger.marks()) == {SYNC2}


def test_an_admission_that_failed_keeps_the_mark(ledger: Ledger) -> None:
    """It is still out, and still ours."""
    _do(ledger, effect(1, Verb.DRAIN))
    with pytest.raises(TransientDriverError), ledger.fence(effect(2, Verb.ADMIT)):
        raise TransientDriverError("the proxy is away")
    assert ledger.marks()[SYNC1].number == 1


def test_anything_less_than_full_admission_keeps_the_mark(ledger: Ledger) -> None:
    """A restart, or a part of its weight, is not yet being back."""
    _do(ledger, effect(1, Verb.DRAIN), effect(2, Verb.RESTART), effect(3, Verb.ADMIT, weight=50))
    assert ledger.marks()[SYNC1].number == 1
    _do(ledger, effect(4, Verb.ADMIT))
    assert ledger.marks() == {}


def test_a_hold_is_written_down_like_a_drain_and_letting_go_strikes_it_out(ledger: Ledger) -> None:
    """Whoever finds requests waiting finds out why; a restart in between is not yet being back."""
    with ledger.fence(effect(1, Verb.HOLD)):
        assert ledger.marks()[SYNC1].number == 1
    _do(ledger, effect(2, Verb.RESTART))
    with pytest.raises(TransientDriverError), ledger.fence(effect(3, Verb.LET_GO)):
        raise TransientDriverError("the proxy is away")
    assert ledger.marks()[SYNC1].number == 1
    _do(ledger, effect(4, Verb.LET_GO))
    assert ledger.marks() == {}


def test_the_mark_of_one_that_is_taken_back_names_what_is_condemned(ledger: Ledger) -> None:
    """Also if it was out already: what admits it without the journal must know what it may not run."""
    _do(ledger, effect(1, Verb.DRAIN), effect(2, Verb.DRAIN, SYNC2, condemned=OLD))
    assert {worker: mark.condemned for worker, mark in ledger.marks().items()} == {SYNC1: None, SYNC2: OLD}
    _do(ledger, effect(3, Verb.RESTART, condemned=OLD))
    mark = ledger.marks()[SYNC1]
    assert (mark.number, mark.condemned) == (1, OLD)


@pytest.mark.parametrize("late", [Verb.DRAIN, Verb.RESTART, Verb.ADMIT])
def test_what_comes_late_does_nothing(ledger: Ledger, late: Verb) -> None:
    """A lower number than the worker has seen is refused before the act, and changes nothing that is written down."""
    _do(ledger, effect(4, Verb.DRAIN), effect(6, Verb.RESTART))
    marks = ledger.marks()
    acted = False
    with pytest.raises(StaleEffectError) as refused, ledger.fence(effect(5, late)):
        acted = True
    assert not acted
    assert refused.value.where == SYNC1
    assert (ledger.marks(), ledger.last_number()) == (marks, 6)


def test_a_late_drain_cannot_undo_an_admission(ledger: Ledger) -> None:
    """Neither at the proxy nor in the ledger."""
    _do(ledger, effect(1, Verb.DRAIN), effect(3, Verb.ADMIT))
    with pytest.raises(StaleEffectError), ledger.fence(effect(2, Verb.DRAIN)):
        pass
    assert ledger.marks() == {}


def test_an_act_that_failed_has_used_its_number(ledger: Ledger) -> None:
    """Whether it did anything nobody knows; the same one may come again, an older one may not."""
    with pytest.raises(TransientDriverError), ledger.fence(effect(5, Verb.RESTART)):
        raise TransientDriverError("supervisord is away")
    _do(ledger, effect(5, Verb.RESTART))
    with pytest.raises(StaleEffectError), ledger.fence(effect(4, Verb.RESTART)):
        pass


def test_numbers_are_compared_worker_by_worker(ledger: Ledger) -> None:
    """Workers of one wave need not be acted on in the order of their numbers; the last number is the highest of all."""
    _do(ledger, effect(9, Verb.DRAIN, SYNC2), effect(8, Verb.DRAIN, SYNC1))
    assert {worker: mark.number for worker, mark in ledger.marks().items()} == {SYNC1: 8, SYNC2: 9}
    assert ledger.last_number() == 9


def test_only_acts_on_a_worker_are_fenced(ledger: Ledger) -> None:
    """Preparing a release concerns no worker yet."""
    with pytest.raises(ValueError, match="on a worker"), ledger.fence(effect(1, Verb.PREPARE, None)):
        pass


def of(number: int, verb: Verb = Verb.ADMIT, *, token: int = 0, owner: str = "", worker: WorkerId = SYNC1) -> Effect:
    """Number an act of somebody who has a name, a token, or both."""
    return replace(effect(number, verb, worker), token=token, owner=owner)


def test_equal_numbers_are_accepted_from_the_same_owner_only(ledger: Ledger) -> None:
    """An act that failed may be repeated; somebody else's with the same number is told what the highest one is."""
    _do(ledger, of(5, Verb.DRAIN, owner="a"), of(5, Verb.DRAIN, owner="a"))
    with pytest.raises(StaleEffectError, match="done already by a") as refused, ledger.fence(of(5, owner="b")):
        pytest.fail("it was done nevertheless")
    assert not isinstance(refused.value, TakenOverError)
    assert refused.value.number == 5
    assert SYNC1 in ledger.marks()


def test_who_has_taken_over_is_heard_whatever_its_number_and_nobody_else(ledger: Ledger) -> None:
    """A lower token is refused on every worker, also on one that the new holder has never touched; the words name who took over."""
    _do(ledger, of(70, Verb.DRAIN, token=1, owner="a"))
    ledger.take(2, "b")
    assert ledger.token() == 2
    for late in (of(71, token=1, owner="a"), of(72, Verb.DRAIN, token=1, owner="a", worker=SYNC2)):
        with pytest.raises(TakenOverError, match="b has taken over"), ledger.fence(late):
            pytest.fail("it was done nevertheless")
    _do(ledger, of(3, token=2, owner="b"))
    assert ledger.marks() == {}
    with pytest.raises(StaleEffectError), ledger.fence(of(2, Verb.DRAIN, token=2, owner="b")):
        pytest.fail("it was done nevertheless")


def test_a_token_is_taken_once_and_shown_ones_count(ledger: Ledger) -> None:
    """Taking again is no error, an older one is; who acts with a higher one than the ledger has seen has taken over too."""
    assert ledger.token() == 0
    ledger.take(4, "a")
    ledger.take(4, "a")
    with pytest.raises(TakenOverError, match="a has taken over"):
        ledger.take(3, "b")
    _do(ledger, of(1, token=6, owner="c"))
    assert ledger.token() == 6
    with pytest.raises(TakenOverError, match="c has taken over"):
        ledger.beat(4, 1e12)
    ledger.beat(6, 1e12)


def test_the_next_number_is_higher_than_any_that_may_be_on_its_way(ledger: Ledger) -> None:
    """Break-glass has no lease: it acts with whatever token there is, and what a rollout had under way is refused afterwards."""
    ledger.take(3, "a")
    _do(ledger, of(5, Verb.DRAIN, token=3, owner="a"), replace(of(0, owner="by hand"), number=NEXT))
    assert ledger.marks() == {}
    assert ledger.token() == 3
    for late in (6, 7, 40):
        with pytest.raises(StaleEffectError) as refused, ledger.fence(of(late, Verb.RESTART, token=3, owner="a")):
            pytest.fail("it was done nevertheless")
        assert refused.value.number == ledger.last_number()
    _do(ledger, of(ledger.last_number() + 1, Verb.DRAIN, token=3, owner="a"))
    assert SYNC1 in ledger.marks()


def test_work_is_done_under_its_number(ledger: Ledger) -> None:
    """As inside the fence: with the mark before it, and without it after an admission that did not fail; never if it comes too late."""
    seen: list[str] = []

    def drain() -> None:
        seen.append(f"marked: {sorted(ledger.marks())}")

    def fail() -> None:
        raise TransientDriverError("the proxy is away")

    ledger.perform(of(3, Verb.DRAIN), Work(drain))
    with pytest.raises(TransientDriverError):
        ledger.perform(of(4), Work(fail))
    with pytest.raises(StaleEffectError):
        ledger.perform(of(2), Work(lambda: seen.append("late")))
    assert seen == ["marked: ['sync1']"]
    assert list(ledger.marks()) == [SYNC1]
    ledger.perform(of(5), Work(lambda: seen.append("admitted")))
    assert (seen[1:], ledger.marks()) == (["admitted"], {})
