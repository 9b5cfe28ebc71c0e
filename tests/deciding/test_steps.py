"""What a step waits for is found by its verb."""

from rollout.deciding.steps import BY_VERB
from rollout.model.plan import Verb


def test_every_verb_has_its_row() -> None:
    assert set(BY_VERB) == set(Verb)
