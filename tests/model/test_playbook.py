"""What a playbook means that says next to nothing."""

from rollout.model.playbook import Watch


def test_who_has_passed_is_watched_for_a_quarter_of_an_hour() -> None:
    assert Watch().watch_s == 900.0
