"""
Rules of the deciding code, broken one at a time, to see whether rehearsals notice.

Run it as `python -m tests.rehearsal.mutants [NAME …]`: each mutant is made in a copy of the package and rehearsed, seed by seed, until an
invariant is broken or the seeds are used up. The table says which invariant caught it, and with which seed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# A mutant that so many rehearsals don't notice has survived.
SEEDS_MAX = 400
TIMEOUT_S = 900.0

_REHEARSE = """
import sys
from rollout.rehearsal.invariants import judge
from rollout.rehearsal.perform import rehearse_one
from rollout.rehearsal.scenario import draw
for seed in range(int(sys.argv[1])):
    broken = judge(rehearse_one(draw(seed)))
    if broken:
        print(seed, broken[0][0], broken[0][1])
        break
"""


@dataclass(frozen=True, slots=True)
class Mutant:
    """*old* stands once in *file* (of rollout/deciding), and *new* instead of it breaks a rule, which *breaks* names."""

    name: str
    file: str
    old: str
    new: str
    breaks: str


MUTANTS = (
    # decide
    Mutant("doubt-is-never-settled", "decide", "if state.in_doubt and (settled", "if False and (settled", "what is in doubt is looked at"),
    Mutant("nobody-is-heard", "decide", "if state.asked is not None and (asked", "if False and (asked", "a person is heeded"),
    Mutant(
        "winding-down-goes-on",
        "decide",
        "if state.winding_down is not None:\n        return _answer(state, safety",
        "if False:\n        return _answer(state, safety",
        "a stop makes safe",
    ),
    Mutant("never-stuck", "decide", "if _stuck(plan, state, agenda, now_s):", "if False:", "what is stuck pauses"),
    Mutant("no-alarm", "decide", "if (alarmed := watching", "if False and (alarmed := watching", "who had passed is watched on"),
    Mutant("two-at-one-worker", "decide", "        if _busy_elsewhere(state, step):", "        if False:", "one act at a time on a worker"),
    Mutant("untouched-stay-out", "decide", "    if stray is not None:", "    if False:", "who was only drained comes back on the way back"),
    Mutant(
        "concludes-blindly",
        "decide",
        "if answer is not True or fresh is None or fresh.healthy is not True:",
        "if False:",
        "the end is looked at",
    ),
    Mutant("concludes-with-somebody-out", "decide", "    if not_seen or out:", "    if not_seen:", "nothing ends well with somebody out"),
    Mutant(
        "failures-on-the-way-back-are-clean",
        "decide",
        "    if state.rollback_failures:",
        "    if False:",
        "who wasn't shown to be well isn't called well",
    ),
    # fold
    Mutant(
        "drains-are-forgotten", "fold", "drained_by_us=True, users_moved", "drained_by_us=False, users_moved", "who is out is remembered"
    ),
    Mutant(
        "admission-is-forgotten",
        "fold",
        "worker = changed(worker, drained_by_us=False)",
        "worker = changed(worker, ramp=None)",
        "who is back is remembered",
    ),
    Mutant(
        "first-weight-is-enough",
        "fold",
        "(effect.verb is Verb.ADMIT and effect.weight == FULL_WEIGHT)",
        "effect.verb is Verb.ADMIT",
        "who has part of its traffic isn't back",
    ),
    Mutant("restarts-touch-nobody", "fold", "touched=True, restarts", "touched=False, restarts", "who was restarted is taken back"),
    Mutant(
        "acts-make-nothing-stale",
        "fold",
        "changed(state.workers[effect.worker], acted_at_s=at_s)",
        "changed(state.workers[effect.worker], acted_at_s=0.0)",
        "what was seen before an act proves nothing",
    ),
    Mutant("resumes-in-the-dark", "fold", "        fresh_after_s=at_s,\n", "", "who resumes looks first"),
    Mutant(
        "numbers-start-anew",
        "fold",
        "last_number=EffectNumber(max(state.last_number, event.last_number)),",
        "last_number=state.last_number,",
        "numbers rise above the ledger's",
    ),
    Mutant(
        "failures-are-not-counted",
        "fold",
        "attempts = state.steps[effect.step_id].attempts + 1",
        "attempts = state.steps[effect.step_id].attempts",
        "what fails again and again is given up",
    ),
    Mutant(
        "let-go-counts-as-drained",
        "fold",
        "restart.status in {StepStatus.PENDING, StepStatus.ACTIVE}:",
        "False:",
        "who was let go before its restart is drained again",
    ),
    Mutant(
        "what-did-not-happen-did", "fold", "    if event.happened:\n", "    if True:\n", "what was seen not to have happened is done again"
    ),
    Mutant(
        "the-old-evidence-counts",
        "fold",
        "after=None, controls=None, unmeasured=None, verdicts={}",
        "verdicts={}",
        "evidence counts from the return on",
    ),
    # safety
    Mutant(
        "nobody-is-brought-back", "safety", "if not known.drained_by_us and not _down(known):", "if True:", "a stop brings back who is out"
    ),
    Mutant(
        "brings-back-the-condemned",
        "safety",
        "condemned = is_taken_back(state, worker) and not _runs_as_before(sighting, plan.releases[old])",
        "condemned = False",
        "nobody is admitted on what is taken back",
    ),
    Mutant(
        "brings-back-the-dead",
        "safety",
        "if sighting.healthy is not True or sighting.proxy is None or not sighting.proxy.up:",
        "if False:",
        "nobody is admitted who doesn't answer",
    ),
    Mutant("stops-without-restarting", "safety", "if condemned or not process.running:", "if False:", "who doesn't run is started once"),
    Mutant(
        "cuts-to-be-quick", "safety", "sighting.proxy.sessions != 0:", "sighting.proxy.sessions is None:", "nothing is cut to save time"
    ),
    Mutant(
        "forgets-who-is-out",
        "safety",
        "    if out:\n        return Finish(Outcome.HALTED",
        "    if False:\n        return Finish(Outcome.HALTED",
        "who couldn't be brought back is named",
    ),
    # blocking
    Mutant(
        "capacity-is-not-asked", "blocking", "if why := why_not_down(", "if why := None and why_not_down(", "never more than may be out"
    ),
    Mutant(
        "between-two-looks", "blocking", "            _taken_by_us(state, other, known),\n", "", "what was begun between two looks counts"
    ),
    Mutant(
        "others-drains-are-ours", "blocking", "if theirs := _taken_by_others(plan, worker, own):", "if False:", "what others drained stays"
    ),
    Mutant("unseen-is-well", "blocking", "    if own is None:\n", "    if False:\n", "who isn't seen isn't taken out"),
    # going out
    Mutant(
        "drains-end-at-once",
        "going_out",
        '        if sighting.proxy.sessions == 0:\n            return Note(StepFinished(now_s, step.id, f"{worker.id} has no',
        '        if True:\n            return Note(StepFinished(now_s, step.id, f"{worker.id} has no',
        "a drain waits for the last request",
    ),
    Mutant(
        "restarts-without-a-look",
        "going_out",
        "return _before_restart(plan, state, step, now_s) or perform(state, step, now_s)",
        "return perform(state, step, now_s)",
        "a restart looks once more",
    ),
    Mutant(
        "a-drain-that-was-forgotten",
        "going_out",
        "        if sighting.proxy.admitted:\n",
        "        if False:\n",
        "the proxy may forget a drain",
    ),
    Mutant(
        "a-hold-of-any-age",
        "going_out",
        "if left_s is not None and left_s < HOLD_SHARE_TO_BOOT * plan.hold.hold_s:",
        "if False:",
        "a restart needs enough of its hold",
    ),
    # coming back
    Mutant("healthy-is-not-asked", "coming_back", "up = sighting.healthy is True and (", "up = True or (", "no traffic before it answers"),
    Mutant(
        "the-release-is-not-asked",
        "coming_back",
        "if up and runs(sighting, release) is True:\n            return Note(StepFinished",
        "if up:\n            return Note(StepFinished",
        "no traffic before it runs the release",
    ),
    Mutant(
        "weights-by-the-clock",
        "coming_back",
        "if sighting is not None and sighting.healthy is True and sighting.proxy is not None and sighting.proxy.up:\n        return None",
        "if True:\n        return None",
        "who doesn't answer gets no more",
    ),
    Mutant("gone-is-not-noticed", "coming_back", "    if gone := gone_for(known, now_s):", '    if gone := "":', "who is gone fails"),
    Mutant(
        "half-is-full",
        "coming_back",
        "if plan.ramp.utilisation_max is None and at.weights_applied < len(weights):",
        "if False:",
        "the ramp ends at the full weight",
    ),
    # doubt
    Mutant("doubt-is-done", "doubt", "    return _shows(worker.sighting, effect, intended_at_s)", "    return True", "doubt is looked at"),
    Mutant(
        "doubt-by-an-old-look",
        "doubt",
        "worker.seen_at_s <= max(state.fresh_after_s, intended_at_s, worker.acted_at_s) or ",
        "",
        "what was seen before says nothing about doubt",
    ),
    Mutant("a-drain-in-doubt-is-done", "doubt", "not sighting.proxy.admitted", "True", "a drain in doubt is looked for"),
    # soaking, watching, acting
    Mutant(
        "failing-passes",
        "soaking",
        "if failed := [verdict for verdict in verdicts if verdict.ruling is Ruling.FAIL]:",
        "if failed := []:",
        "who fails is taken back",
    ),
    Mutant(
        "anything-passes", "soaking", "if all(verdict.ruling is Ruling.PASS for verdict in verdicts):", "if verdicts:", "only PASS passes"
    ),
    Mutant("one-window-is-enough-to-watch", "watching", "    if now_s < ends_at_s:\n", "    if False:\n", "the last watch lasts"),
    Mutant("numbers-stand-still", "acting", "EffectNumber(state.last_number + 1)", "EffectNumber(state.last_number)", "numbers rise"),
    Mutant(
        "no-way-back",
        "acting",
        "    return Note(RollbackBegan(now_s, why, requested=False",
        "    return stop(now_s, why) if why else Note(RollbackBegan(now_s, why, requested=False",
        "who fails is taken back by itself",
    ),
)


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a mutant; *by* is the invariant that caught it, empty if it survived."""

    mutant: Mutant
    by: str
    seed: int | None
    why: str


def try_out(mutant: Mutant, seeds_max: int = SEEDS_MAX) -> Fate:
    """Rehearse a mutant until it is caught, or has survived. Raises ValueError when its text isn't there once."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(ROOT / "rollout", Path(place) / "rollout", ignore=shutil.ignore_patterns("__pycache__"))
        apply(mutant, Path(place))
        played = subprocess.run(
            [sys.executable, "-c", _REHEARSE, str(seeds_max)],
            env={**os.environ, "PYTHONPATH": place},
            cwd=place,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    if played.returncode != 0:
        return Fate(mutant, "does not run", None, played.stderr.strip().splitlines()[-1])
    if not played.stdout:
        return Fate(mutant, "", None, "")
    seed, name, why = played.stdout.strip().split(" ", 2)
    return Fate(mutant, name, int(seed), why)


def apply(mutant: Mutant, place: Path) -> None:
    """Break the copy of the package in *place*."""
    path = place / "rollout/deciding" / f"{mutant.file}.py"
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        msg = f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.file}.py"
        raise ValueError(msg)
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def main() -> None:
    """Try out those that are named, or all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    fates = []
    for mutant in MUTANTS:
        if asked.names and mutant.name not in asked.names:
            continue
        fate = try_out(mutant, asked.seeds)
        fates.append(fate)
        caught = f"{fate.by} (seed {fate.seed})" if fate.by else "SURVIVED"
        sys.stdout.write(f"{mutant.file:<12} {mutant.name:<38} {caught:<28} {mutant.breaks}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{sum(bool(fate.by) for fate in fates)} of {len(fates)} caught\n")
    if asked.json is not None:
        rows = [{"name": fate.mutant.name, "file": fate.mutant.file, "by": fate.by, "seed": fate.seed, "why": fate.why} for fate in fates]
        asked.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
