"""What rehearsals have found, each as the smallest homeserver on which it happened, with the seed that it was found by."""

from rollout.model.event import EffectIntended, Outcome
from rollout.model.ids import WorkerId
from rollout.model.plan import Verb
from rollout.model.playbook import Baseline, Hold, Playbook, Ramp, Warm
from rollout.rehearsal.invariants import judge
from rollout.rehearsal.perform import Account, rehearse_one
from rollout.rehearsal.scenario import Scenario
from rollout.simulation.faults import Fault, Moment, Strike
from rollout.simulation.rehearse import set_stage
from tests.simulation.stages import PLAYBOOK

CLIENTS = ("client1", "client2", "client3")
HELD = PLAYBOOK.model_copy(
    update={
        "strategy": PLAYBOOK.strategy.model_copy(update={"hold": Hold(hold_s=20.0, hold_max=6000)}),
        "baseline": Baseline(baseline_s=10.0, sample_s=2.0),
    }
)


def _rehearse(*strikes: Strike, playbook: Playbook = PLAYBOOK, resumes: int = 0) -> Account:
    inventory = set_stage(dict.fromkeys(CLIENTS, ("client", "client"))).inventory
    return rehearse_one(Scenario(seed=0, inventory=inventory, playbook=playbook, strikes=strikes, resumes=resumes))


def _strategy(**changes: object) -> Playbook:
    return PLAYBOOK.model_copy(update={"strategy": PLAYBOOK.strategy.model_copy(update=changes)})


def test_two_drains_that_are_begun_between_two_looks_count_one_another() -> None:
    """
    Seed 362: two of three may be out. Two were told to drain just before the way back begins for the first one, and no look has shown it.

    The pool was out as a whole.
    """
    strike = Strike(Fault.ASKS_ROLLBACK, Verb.DRAIN, Moment.WAITING, nth=3)
    account = _rehearse(strike, playbook=_strategy(max_unavailable={"client": 2}))
    assert judge(account) == []
    assert account.outcome is Outcome.ROLLED_BACK_ON_REQUEST
    assert max(len(it.out) for it in account.history) == 2
    assert account.serving_min == {"client": 1}


def test_who_was_drained_by_somebody_while_its_heirs_were_warmed_stays_drained() -> None:
    """Seed 509: warming them was an act on it, so what was seen before counted for nothing, and what isn't known forbade nothing."""
    strike = Strike(Fault.SOMEBODY_DRAINS, Verb.WARM, Moment.BEFORE_INTENT, nth=3, aside=False)
    account = _rehearse(strike, playbook=_strategy(warm=Warm(users_max=2, seconds=4.0)))
    assert judge(account) == []
    assert [one.worker for one in account.struck] == ["client2"]
    assert account.outcome is Outcome.PAUSED
    assert account.why == "client2 was drained by somebody else"
    assert not account.later[WorkerId("client2")].serves


def test_who_stops_answering_between_two_weights_gets_no_more() -> None:
    """Seed 122: the next weight came by the clock alone."""
    strike = Strike(Fault.WORKER_HANGS, Verb.ADMIT, Moment.WAITING, nth=1)
    account = _rehearse(strike, playbook=_strategy(ramp=Ramp(weights=(25, 50, 100), step_s=9.0)))
    assert judge(account) == []
    forward = [
        event.effect.weight
        for event in account.events
        if isinstance(event, EffectIntended) and event.effect.verb is Verb.ADMIT and not event.effect.step_id.startswith("client1/rollback")
    ]
    assert forward == [25]
    assert account.outcome is Outcome.ROLLED_BACK


def test_who_runs_its_old_release_again_is_brought_back_though_its_metrics_are_gone() -> None:
    """Seed 211: that it reports its version couldn't be seen, so it was taken for one that still runs the condemned release."""
    gates = tuple(gate.model_copy(update={"on_unmeasurable": "rollback"}) for gate in PLAYBOOK.gates)
    account = _rehearse(
        Strike(Fault.METRICS_OF_ONE, Verb.ADMIT, Moment.AFTER_ACT, nth=2), playbook=PLAYBOOK.model_copy(update={"gates": gates})
    )
    assert judge(account) == []
    assert (account.outcome, account.drained) == (Outcome.PAUSED, ())
    assert all(stand.full and not stand.taken for stand in account.end.values())


def test_what_an_earlier_hold_let_go_has_gone_on_before_main_is_held_anew() -> None:
    """Seed 3786: whoever plans anew finds main held, and that hold ends between look and act; what it let go was cut by the restart."""
    inventory = set_stage({"client1": ("client", "client"), "client2": ("client", "client"), "main": ("main", "main")}, "main").inventory
    for tenths in range(0, 160, 4):
        strike = Strike(Fault.JOURNAL_LOST, Verb.LET_GO, Moment.BEFORE_INTENT, for_s=tenths / 10)
        account = rehearse_one(Scenario(seed=0, inventory=inventory, playbook=HELD, strikes=(strike,)))
        assert judge(account) == [], tenths
        assert len(account.struck) == 1
        # Held all through its baseline it has none to be compared with.
        assert account.outcome in {Outcome.DEPLOYED, Outcome.PAUSED}


def test_a_stop_waits_for_who_was_restarted_where_it_stands() -> None:
    """Seed 727: main had just been started, nobody had drained it, and "interrupted" was said while it had yet to answer."""
    inventory = set_stage({"client1": ("client", "client"), "client2": ("client", "client"), "main": ("main", "main")}).inventory
    stop = Strike(Fault.ASKS_INTERRUPT, Verb.RESTART, Moment.DURING, nth=3)
    account = rehearse_one(Scenario(seed=0, inventory=inventory, playbook=PLAYBOOK, strikes=(stop,)))
    assert judge(account) == []
    assert account.outcome is Outcome.INTERRUPTED
    assert account.end[WorkerId("main")].serves

    never = Strike(Fault.BOOTS_TOO_SLOWLY, Verb.RESTART, Moment.DURING, nth=3, for_s=300.0)
    account = rehearse_one(Scenario(seed=0, inventory=inventory, playbook=PLAYBOOK, strikes=(stop, never)))
    assert judge(account) == []
    assert (account.outcome, account.drained) == (Outcome.HALTED, ("main",))


def test_nobody_is_compared_with_who_ran_the_release_before() -> None:
    """Seed 2895: after a lost journal the first one already ran a slow release, and by its side the next one was as quick as its pool."""
    unmeasured = Strike(Fault.METRICS_OF_ONE, Verb.RESTART, Moment.AFTER_ACT, for_s=19.0)
    lost = Strike(Fault.JOURNAL_LOST, Verb.ADMIT, Moment.AFTER_ACT, for_s=100.0, aside=True)
    inventory = set_stage(dict.fromkeys(CLIENTS[:2], ("client", "client"))).inventory
    scenario = Scenario(seed=0, inventory=inventory, playbook=PLAYBOOK, strikes=(unmeasured, lost), bad=Fault.RELEASE_SLOW)
    account = rehearse_one(scenario)
    assert judge(account) == []
    assert account.plans == 2
    assert account.outcome is Outcome.ROLLED_BACK


def test_who_an_earlier_rollout_left_out_comes_back_on_the_way_back_too() -> None:
    """Seed 1418: two of three were out when the journal was lost; the new rollout went back before it had come to the second one."""
    lost = Strike(Fault.JOURNAL_LOST, Verb.ADMIT, Moment.BEFORE_INTENT, nth=2, for_s=5.0)
    never = Strike(Fault.BOOTS_TOO_SLOWLY, Verb.RESTART, Moment.BEFORE_ACT, nth=4, for_s=80.0)
    account = _rehearse(lost, never, playbook=_strategy(max_unavailable={"client": 2}))
    assert judge(account) == []
    assert (account.plans, len(account.struck)) == (2, 2)
    assert account.outcome is Outcome.ROLLED_BACK
    assert all(stand.serves for stand in account.end.values())


def test_a_restart_that_comes_too_late_looks_once_more() -> None:
    """Seed 12219: the tool stood still between intent and act, longer than its hold lasted; what came meanwhile was cut."""
    inventory = set_stage({"client1": ("client", "client"), "client2": ("client", "client"), "main": ("main", "main")}, "main").inventory
    for seconds in (5.0, 15.0, 25.0):
        stalls = Strike(Fault.TOOL_STALLS, Verb.RESTART, Moment.BEFORE_ACT, nth=3, for_s=seconds)
        account = rehearse_one(Scenario(seed=0, inventory=inventory, playbook=HELD, strikes=(stalls,)))
        assert judge(account) == [], seconds
        assert (len(account.struck), account.outcome) == (1, Outcome.DEPLOYED)


def test_a_stop_is_over_when_everybody_is_seen_back() -> None:
    """The driver says that it admitted the one who was out, and didn't: it ended as interrupted, and so as safe, with that one out."""
    says_done = Strike(Fault.SAYS_DONE, Verb.ADMIT, Moment.DURING)
    account = _rehearse(Strike(Fault.ASKS_INTERRUPT, Verb.DRAIN, Moment.WAITING), says_done)
    assert judge(account) == []
    assert account.outcome is Outcome.INTERRUPTED
    assert all(stand.full and not stand.marked for stand in account.end.values())
