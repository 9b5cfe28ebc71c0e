"""What is printed of a saved plan: how old it is, what changed, and whether it holds."""

from rollout.interfaces.cli.saved import drift_text
from rollout.planning.drift import Drift


def test_nothing_changed() -> None:
    assert drift_text(Drift(600.0)) == "nothing has changed since the plan was made, 10 min ago: it holds\n"


def test_what_it_bears() -> None:
    found = Drift(7200.0, bears=("sync2 was restarted, on the same release r1", "r2 was prepared meanwhile"))
    assert drift_text(found) == (
        "since the plan was made, 2 h ago (it still holds):\n  sync2 was restarted, on the same release r1\n  r2 was prepared meanwhile\n"
    )


def test_what_breaks_it_comes_first() -> None:
    found = Drift(30.0, ("playbook: watch.watch_s is 0, not 60",), ("r2 was prepared meanwhile",))
    assert drift_text(found) == (
        "since the plan was made, 30 s ago (it doesn't hold any more: plan again):\n"
        "  breaks it: playbook: watch.watch_s is 0, not 60\n"
        "  r2 was prepared meanwhile\n"
    )
