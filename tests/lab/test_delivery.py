"""What was sent must arrive once at everybody who listens."""

from rollout.lab.load.delivery import Deliveries


def deliveries() -> Deliveries:
    return Deliveries({"!a": ["@ann", "@bob", "@cat"], "!b": ["@ann"]})


def test_an_event_is_owed_to_everybody_but_its_sender() -> None:
    found = deliveries()
    found.sent("$1", "!a", "@ann")
    assert found.missing() == [("$1", "@bob"), ("$1", "@cat")]
    found.seen("$1", "@bob")
    assert found.missing() == [("$1", "@cat")]
    assert found.lost() == ["$1"]
    found.seen("$1", "@cat")
    assert found.lost() == []


def test_an_event_may_arrive_before_its_sending_is_answered() -> None:
    found = deliveries()
    found.seen("$1", "@bob")
    found.seen("$1", "@cat")
    found.sent("$1", "!a", "@ann")
    assert found.missing() == []


def test_an_event_that_came_twice_is_a_duplicate_and_not_lost() -> None:
    found = deliveries()
    found.sent("$1", "!a", "@ann")
    for user in ("@bob", "@bob", "@cat", "@ann", "@ann"):
        found.seen("$1", user)
    assert found.duplicates() == [("$1", "@bob")]
    assert found.lost() == []


def test_what_this_load_did_not_send_is_not_counted() -> None:
    """Events of an earlier run, and state that users change, come too."""
    found = deliveries()
    found.seen("$old", "@bob")
    found.seen("$old", "@bob")
    assert (found.sent_count, found.lost(), found.duplicates()) == (0, [], [])


def test_where_nobody_listens_nothing_can_be_lost() -> None:
    found = deliveries()
    found.sent("$1", "!elsewhere", "@ann")
    found.sent("$2", "!b", "@ann")
    assert found.sent_count == 1
    assert found.lost() == []
