"""Which hazards stand between two releases, and where that is written."""

import pytest

from rollout.homeservers.synapse import hazards
from rollout.homeservers.synapse.roles import ROLES
from rollout.model.ids import Role

ALL = frozenset(ROLES)
SYNC = frozenset({Role("main"), Role("sync")})


def _ids(old: str, new: str, roles: frozenset[Role] = SYNC) -> list[str]:
    found = hazards.crossed(old, new, roles)
    assert found is not None
    return [hazard.id for hazard in found]


def test_a_hazard_is_met_by_who_crosses_its_release() -> None:
    """From before it to it or beyond; not by who is there already, and not by who stops before it."""
    assert "replication-account-data-1.76" in _ids("1.75.0", "1.76.0")
    assert "replication-account-data-1.76" in _ids("1.60.0", "1.90.0")
    assert _ids("1.76.0", "1.76.1") == []
    assert _ids("1.74.0", "1.75.9") == []
    assert _ids("1.162.0", "1.163.2") == []


def test_what_breaks_replication_is_met_on_the_way_back_too() -> None:
    assert _ids("1.76.0", "1.75.0") == ["replication-account-data-1.76"]
    assert _ids("1.121.0", "1.119.0") == []


def test_a_hazard_of_a_role_is_met_by_a_homeserver_that_has_it() -> None:
    assert "appservice-transactions-1.57" not in _ids("1.56.0", "1.57.0")
    assert "appservice-transactions-1.57" in _ids("1.56.0", "1.57.0", SYNC | {Role("appservice")})


@pytest.mark.parametrize(
    ("version", "parsed"),
    [("1.163.2", (1, 163, 2)), ("1.76.0rc1", (1, 76, 0)), ("1.163.2+slow", (1, 163, 2)), ("1.90", (1, 90, 0)), ("main", None), ("", None)],
)
def test_versions_are_compared_by_their_numbers(version: str, parsed: tuple[int, int, int] | None) -> None:
    assert hazards.parse(version) == parsed


def test_a_version_without_numbers_has_unknown_hazards() -> None:
    """Which is not none."""
    assert hazards.crossed("main", "1.163.2", ALL) is None
    assert hazards.crossed("1.163.2", "nightly", ALL) is None


@pytest.mark.parametrize(
    ("what", "version", "least"),
    [
        (hazards.POSTGRESQL, "1.163.2", (14,)),
        (hazards.POSTGRESQL, "1.142.0", (13,)),
        (hazards.POSTGRESQL, "1.60.0", None),
        (hazards.PYTHON, "1.142.0", (3, 10)),
        (hazards.PYTHON, "1.141.0", (3, 9)),
    ],
)
def test_the_newest_requirement_counts(what: str, version: str, least: tuple[int, ...] | None) -> None:
    found = hazards.requirement(what, version)
    assert (None if found is None else found.least) == least


def test_releases_whose_notes_nobody_read_are_told() -> None:
    """A patch release has no notes of its own; a newer minor release may."""
    assert hazards.not_read("1.162.0", "1.163.2")
    assert hazards.not_read("1.150.0", "1.163.2")
    assert not hazards.not_read("1.163.0", "1.163.2")
    assert not hazards.not_read("1.150.0", "1.157.1")


def test_every_hazard_can_be_looked_up_and_named() -> None:
    """In the order of releases, each with an id that says which, a source with its anchor, and what to do."""
    names = [hazard.id for hazard in hazards.HAZARDS]
    assert len(set(names)) == len(names)
    assert [hazards.parse(hazard.version) for hazard in hazards.HAZARDS] == sorted(
        version for hazard in hazards.HAZARDS if (version := hazards.parse(hazard.version)) is not None
    )
    for hazard in hazards.HAZARDS:
        major, minor, _ = hazard.version.split(".")
        assert hazard.id.endswith(f"-{major}.{minor}")
        assert f"#upgrading-to-v{hazard.version.replace('.', '')}, “{hazard.heading}”" in hazard.source
        assert hazard.remedy
        assert set(hazard.roles) <= set(ROLES)
