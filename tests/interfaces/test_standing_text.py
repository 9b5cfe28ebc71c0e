"""What runs, as a table: below it stands what guards look at and could not be read."""

from rollout.interfaces.report.standing import standing_text
from rollout.model.gate import GuardReading
from rollout.model.ids import Role, WorkerId
from rollout.model.inventory import DriverSettings, Inventory, WorkerEntry
from rollout.model.sighting import Observation


def test_what_only_needs_time_is_not_told_and_what_nobody_can_read_is() -> None:
    """One look never has what takes ten seconds."""
    guards = (
        GuardReading("reactor_tick_s", None, "sync1: measured for 0 s", short=True),
        GuardReading("replication_lag_s", None, "sync1: its page doesn't tell"),
        GuardReading("files_projected", 0.2),
    )
    driver = DriverSettings(driver="any")
    inventory = Inventory(
        homeserver="example.org",
        workers={WorkerId("sync1"): WorkerEntry(role=Role("sync"), url="http://h", metrics="http://m")},
        workers_driver=driver,
        releases_driver=driver,
        traffic_driver=driver,
        ledger_driver=driver,
    )
    text = standing_text(inventory, Observation(taken_at_s=0.0, sightings={}, guards=guards))
    assert [line for line in text.splitlines() if "not known" in line] == ["replication_lag_s: not known (sync1: its page doesn't tell)"]
