"""
The simulated homeserver's figures against real rollouts of the lab: what is fitted on some rollouts is compared with the others.

The lab's records (rollout/simulation/lab_timings, one file a rollout) are reduced from journals; more are added by
`python -m rollout.simulation.fitting JOURNAL...`, and each test here takes them in by itself.

How weak this is: there are seven rollouts of one two-core machine on one night, two of them of the whole homeserver. In each half are
9 to 11
restarts and boots and 6 or 7 drains, so that at the 1 % level the two-sample Kolmogorov-Smirnov test allows a distance of 0.73 (0.91 for
drains): held out, drains could be almost anything. Against all of them (20 restarts and boots, 13 drains) it allows 0.52 and 0.64: a
restart
of one and a half times the length is noticed, a boot of twice, a drain of three times, not of twice. PREPARE and MIGRATE have too few
values
to be compared this way; of them only the range is.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.adapters.documents.read import read_inventory, read_playbook
from rollout.deciding.timings import times_of
from rollout.model.event import Outcome
from rollout.model.plan import Verb
from rollout.rehearsal.given import without_what_is_not_simulated
from rollout.rehearsal.scenario import Scenario, set_up
from rollout.simulation.fitting import Fitted, Record, fit, lab_records, record_of
from rollout.simulation.looking import Sight
from rollout.simulation.rehearse import DEPLOY, rehearse

ROOT = Path(__file__).parents[2]
INVENTORY = read_inventory(ROOT / "examples/lab/inventory.yaml")
PLAYBOOK = without_what_is_not_simulated(read_playbook(ROOT / "playbooks/demo.yaml", INVENTORY), INVENTORY)
SEEDS = range(6)
# sqrt(-ln(0.01 / 2) / 2): the Kolmogorov-Smirnov bound at the level of 1 %.
C_1_PERCENT = 1.63
# With fewer values on the real side nothing could turn the comparison red.
VALUES_MIN = 5
COMPARED = (Verb.RESTART, Verb.AWAIT_HEALTHY, Verb.DRAIN)


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the greatest distance between two empirical distribution functions."""
    return max(abs(_share(one, value) - _share(other, value)) for value in (*one, *other))


def bound(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the distance that one sample in a hundred exceeds though both are of one distribution."""
    return C_1_PERCENT * math.sqrt((len(one) + len(other)) / (len(one) * len(other)))


def _share(values: Sequence[float], upto: float) -> float:
    return sum(value <= upto for value in values) / len(values)


def simulated(fitted: Fitted, seed: int) -> Record:
    """Roll the lab's homeserver by the demo's playbook, without a fault, and read its journal as a real one is read."""
    stage = set_up(Scenario(seed, INVENTORY, PLAYBOOK, (), fitted=fitted))
    stage.sight = Sight.QUICK
    plan = stage.plan(PLAYBOOK)
    assert rehearse(stage, plan).outcome is Outcome.DEPLOYED
    return record_of(f"simulated-{seed}", plan, [event for _, event in stage.journal.events(DEPLOY)])


def steps(records: Iterable[Record], verb: Verb) -> list[float]:
    """Return the seconds of all steps of a verb."""
    return [seconds for record in records for values in record.steps.get(verb, {}).values() for seconds in values]


def apart(fitted: Fitted, by: Sequence[Record], real: Sequence[Record]) -> dict[Verb, tuple[float, float]]:
    """
    Return the distance between simulated and real steps, and its bound, of each verb that there is enough of.

    *fitted* are figures fitted *by* those records. However many rollouts are simulated, they know no more than these: the bound counts the
    steps that were fitted, not those that were simulated.
    """
    played = [simulated(fitted, seed) for seed in SEEDS]
    found = {}
    for verb in COMPARED:
        known, theirs = steps(by, verb), steps(real, verb)
        if min(len(known), len(theirs)) >= VALUES_MIN:
            found[verb] = (distance(steps(played, verb), theirs), bound(known, theirs))
    return found


def too_far(found: dict[Verb, tuple[float, float]]) -> set[Verb]:
    """Name the verbs that are further apart than chance explains."""
    return {verb for verb, (far, allowed) in found.items() if far > allowed}


def scaled(fitted: Fitted, name: str, factor: float) -> Fitted:
    """Make a figure wrong."""
    wrong = {role: tuple(factor * value for value in values) for role, values in fitted.values[name].items()}
    return replace(fitted, values={**fitted.values, name: wrong})


@pytest.mark.parametrize("half", [0, 1])
def test_rollouts_that_were_not_fitted_are_as_the_simulated_ones(half: int) -> None:
    """Restarts, boots and drains of every other real rollout are distributed as in rollouts simulated by the rest; and the other way."""
    # The longest first, so that each half has its share of whole homeservers.
    records = sorted(lab_records(), key=lambda record: (-sum(len(steps([record], verb)) for verb in COMPARED), record.deploy_id))
    by, held_out = records[half::2], records[1 - half :: 2]
    found = apart(fit(by, "the lab"), by, held_out)
    assert {Verb.RESTART, Verb.AWAIT_HEALTHY} <= found.keys()
    assert not too_far(found), found


def test_simulated_rollouts_are_as_those_that_were_fitted() -> None:
    """Nothing between a figure and the step that is made of it (looks, retries, a proxy's check) moves it away from what was seen."""
    records = lab_records()
    found = apart(fit(records, "the lab"), records, records)
    assert found.keys() == set(COMPARED)
    assert not too_far(found), found


@pytest.mark.parametrize(
    ("name", "verb", "factor"),
    [
        ("restart_s", Verb.RESTART, 2.0),
        ("restart_s", Verb.RESTART, 0.5),
        ("boot_s", Verb.AWAIT_HEALTHY, 3.0),
        ("boot_s", Verb.AWAIT_HEALTHY, 0.2),
        ("session_life_s", Verb.DRAIN, 3.0),
        ("session_life_s", Verb.DRAIN, 0.3),
    ],
)
def test_wrong_figures_are_noticed(name: str, verb: Verb, factor: float) -> None:
    """The comparison has teeth: a figure that is wrong by these factors moves its own step too far from the real ones."""
    records = lab_records()
    assert verb in too_far(apart(scaled(fit(records, "the lab"), name, factor), records, records))


def test_the_constants_of_other_simulations_are_not_the_labs() -> None:
    """Without fitted figures drains take several times as long as in the lab: what the fit is for."""
    records = lab_records()
    assert Verb.DRAIN in too_far(apart(Fitted({}, "nobody"), records, records))


@pytest.mark.parametrize("verb", [Verb.PREPARE, Verb.MIGRATE])
def test_acts_on_the_whole_homeserver_are_within_what_was_seen(verb: Verb) -> None:
    """An installation or a migration takes no less and no longer than in some real rollout (half a second for a look)."""
    records = lab_records()
    fitted, real = fit(records, "the lab"), steps(records, verb)
    for seed in SEEDS:
        assert all(min(real) - 0.5 <= seconds <= max(real) + 0.5 for seconds in steps([simulated(fitted, seed)], verb))


def test_the_same_seed_gives_the_same_rollout_and_another_one_another() -> None:
    """Figures are drawn by the seed alone."""
    fitted = fit(lab_records(), "the lab")
    one, again, other = (simulated(fitted, seed) for seed in (1, 1, 2))
    assert one == again
    assert one.steps != other.steps


def test_a_record_holds_what_timings_say() -> None:
    """A record's steps are those of the fold that forecasts are made by."""
    stage = set_up(Scenario(0, INVENTORY, PLAYBOOK, ()))
    plan = stage.plan(PLAYBOOK)
    rehearse(stage, plan)
    events = [event for _, event in stage.journal.events(DEPLOY)]
    times = times_of(plan, events)
    restarts = [one.seconds for one in times.steps.values() if one.step.verb is Verb.RESTART]
    assert sorted(steps([record_of("one", plan, events)], Verb.RESTART)) == pytest.approx(sorted(restarts), abs=1e-3)
