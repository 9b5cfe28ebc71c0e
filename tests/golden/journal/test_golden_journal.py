"""
Journals that were written once must be read for ever.

`events.ndjson` has lines of every kind of event, with every field filled and every word of every enumeration, as each release wrote them.
Whoever changes what is written finds a line missing: `--update-golden` adds the new ones at the end. The old ones stay, and must be read;
if they can't be, their change needs an upgrade (docs/adding-an-event.md).

Each other `.ndjson` is a whole rollout with its plan, by the version of the decision code that its name ends in; it is never written anew.
The `.txt` beside it is what is told of it, and what it came to: words may become better, which `--update-golden` takes over.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.deciding.fold import fold, start
from rollout.interfaces.narrate import narrate
from rollout.model import codec
from rollout.model.codec import dump_json, event_kind, event_version, load_event, load_plan
from rollout.model.errors import InvalidFileError
from rollout.model.event import BaselineFound, DeployFinished, Event, WaitBegan
from rollout.model.plan import Plan
from tests.golden.journal.filled import filled, turns

HERE = Path(__file__).parent
EVENTS = HERE / "events.ndjson"
ROLLOUTS = sorted(path for path in HERE.glob("*.ndjson") if path != EVENTS)


def line_of(event: Event) -> str:
    """Write an event as a line of these files."""
    return json.dumps(
        {"kind": event_kind(event), "version": event_version(event), "body": json.loads(dump_json(event))}, ensure_ascii=False
    )


def read_line(line: str) -> Event:
    written = json.loads(line)
    return load_event(written["kind"], json.dumps(written["body"]), written["version"])


def read_rollout(path: Path) -> tuple[Plan, list[Event]]:
    plan, *lines = path.read_text().splitlines()
    return load_plan(plan), [read_line(line) for line in lines]


def test_every_kind_of_event_has_lines_as_they_are_written_now(pytestconfig: pytest.Config) -> None:
    """A class that was changed, a word that was added or renamed: the lines that would be written now are not all there."""
    known = EVENTS.read_text().splitlines()
    now = [line_of(filled(kind, turn)) for kind in Event.__args__ for turn in range(turns(kind))]
    missing = [line for line in now if line not in set(known)]
    if pytestconfig.getoption("--update-golden"):
        EVENTS.write_text("".join(f"{line}\n" for line in (*known, *missing)))
    else:
        assert not missing, f"{len(missing)} lines are missing; --update-golden adds them"


def test_every_line_that_was_ever_written_is_read() -> None:
    """And so the same again when it is written and read once more."""
    lines = EVENTS.read_text().splitlines()
    assert {json.loads(line)["kind"] for line in lines} >= {kind.__name__ for kind in Event.__args__}
    for line in lines:
        event = read_line(line)
        assert load_event(event_kind(event), dump_json(event), event_version(event)) == event


@pytest.mark.parametrize("path", ROLLOUTS, ids=lambda path: path.stem)
def test_a_rollout_of_an_earlier_release_is_folded_and_told(path: Path, pytestconfig: pytest.Config) -> None:
    """Its plan is read, it comes to what it came to, and what is told of it is known."""
    plan, events = read_rollout(path)
    state = start(plan)
    told = []
    for event in events:
        state = fold(plan, state, event)
        if (sentence := narrate(event, plan)) is not None:
            told.append(sentence)
    told.append(f"outcome: {state.outcome}: {state.outcome_why}")
    text = "".join(f"{line}\n" for line in told)
    if pytestconfig.getoption("--update-golden"):
        path.with_suffix(".txt").write_text(text)
    assert text == path.with_suffix(".txt").read_text()
    # However words change, what it came to does not.
    last = events[-1]
    assert isinstance(last, DeployFinished)
    assert (state.outcome, state.outcome_why) == (last.outcome, last.why)


def test_the_whole_rollouts_have_every_kind_of_event() -> None:
    """Of those that there were when they were written."""
    kinds = {event_kind(event) for path in ROLLOUTS for event in read_rollout(path)[1]}
    assert kinds >= {kind.__name__ for kind in Event.__args__}


def test_what_is_written_in_another_form_is_made_into_what_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step, from whichever version; a version that is not known yet is refused, and not guessed at."""
    monkeypatch.setattr(
        codec,
        "UPGRADES",
        {"WaitBegan": (lambda old: {**old, "cause": old["reason"]}, lambda old: {**old, "why": old["cause"].upper()})},
    )
    expected = WaitBegan(1.0, "drain", "DRAIN")
    assert event_version(expected) == 3
    assert load_event("WaitBegan", '{"at_s": 1.0, "reason": "drain"}', 1) == expected
    assert load_event("WaitBegan", '{"at_s": 1.0, "cause": "drain"}', 2) == expected
    assert load_event("WaitBegan", dump_json(expected), 3) == expected
    for version in (0, 4):
        with pytest.raises(InvalidFileError, match=f"WaitBegan is written in version {version}, and this rollout knows 3"):
            load_event("WaitBegan", dump_json(expected), version)


def test_a_changed_class_is_noticed() -> None:
    """The control: with another field, or another word, no line of it is there."""
    known = set(EVENTS.read_text().splitlines())
    found = filled(BaselineFound, 0)
    assert line_of(found) in known
    assert line_of(replace(found, source="another")) not in known
    changed = json.loads(line_of(found))
    changed["body"]["added"] = None
    assert json.dumps(changed, ensure_ascii=False) not in known
