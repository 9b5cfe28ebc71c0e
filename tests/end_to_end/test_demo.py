"""The main job, from the older release to the newer one under load: `make demo`."""

import json
from pathlib import Path

from rollout.lab.demo import run_demo, what_is_missed

ROOT = Path(__file__).parents[2]


def test_demo() -> None:
    out = ROOT / "build/demo"
    code = run_demo(out, ROOT / "playbooks/demo.yaml")
    summary = json.loads((out / "summary.json").read_text())
    assert (code, summary["missed"]) == (0, [])
    assert (summary["good"]["outcome"], summary["good"]["cut_requests"], summary["good"]["lost_events"]) == ("deployed", 0, 0)

    # And each of its demands can be missed.
    good = summary["good"]
    for broken in (
        {**summary, "control": {"worker": "sync1", "cut_requests": 4}},
        {**summary, "good": {**good, "outcome": "halted"}},
        {**summary, "good": {**good, "cut_requests": 1}},
        {**summary, "good": {**good, "lost_events": 1}},
        {**summary, "good": {**good, "rolling_s": 301.0}},
        {**summary, "good": {**good, "main": {**good["main"], "boot_s": 1.9, "slowest_s": 2.41}}},
        {**summary, "good": {**good, "main": {**good["main"], "boot_s": 4.0, "slowest_s": 5.51}}},
        {**summary, "good": {**good, "versions_after": {"sync1": {"version": "1.162.0", "restarted": True}}}},
        {**summary, "good": {**good, "versions_after": {"sync1": {"version": "1.163.2", "restarted": False}}}},
        {**summary, "good": {**good, "by_worker": {"sync1": {"pool": "sync", "open_long_polls_at_drain": 7, "requests_while_out": 99}}}},
        {**summary, "good": {**good, "by_worker": {"sync1": {"pool": "sync", "open_long_polls_at_drain": 9, "requests_while_out": 49}}}},
    ):
        assert len(what_is_missed(broken)) == 1


def test_make_demo_runs_it() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ndemo:")[2].splitlines()[1]
    assert recipe.strip() == "$(BIN)/rollout demo"
