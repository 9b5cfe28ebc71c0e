"""A plan as text: everything that will be done, in which order and why, before anything is. Plain characters, no colours."""

import textwrap
from collections.abc import Iterator

from rollout.gating.detectable import unwatched
from rollout.interfaces.budget_text import budget_lines
from rollout.interfaces.evidence_text import gate_lines
from rollout.interfaces.report.words import duration, windows_text
from rollout.model.load import Headroom
from rollout.model.plan import Phase, Plan, Step, Wave, Windows
from rollout.planning.forecast import total

# Wide enough for a reason beside its step, narrow enough for a mail.
_WIDTH = 120


def plan_text(plan: Plan) -> str:
    """Print a plan: phases, waves and steps with reasons and deadlines, what is left alone, the way back, and what the gates can't see."""
    versions = sorted({plan.releases[release].version for release in plan.from_releases.values()})
    lines = [
        *_total_first(plan),
        f"{plan.homeserver}: {', '.join(versions)} → {plan.to_release.version} ({plan.to_release.id})   plan {plan.digest[:12]}",
    ]
    if not plan.phases:
        lines.append("nothing to do")
    for phase in plan.phases:
        # The first steps are one line each, and need no air between them.
        air = [""] if phase.waves[0].workers or phase is plan.phases[0] else []
        lines += [*air, *_phase(phase)]
    sections = (
        ("left alone", _left_alone(plan)),
        ("the way back, if it fails", _way_back(plan)),
        ("must hold before each worker", _guards(plan)),
        ("load of the others while each is out", _headroom(plan)),
        ("what the gates can't see", _gates(plan)),
        ("to know", list(plan.notes)),
        ("forecast", _forecast(plan)),
    )
    lines.append("")
    for title, entries in sections:
        if entries:
            lines += [title, *(line for entry in entries for line in _wrapped(entry, first="  ", rest="    "))]
    return "\n".join(lines) + "\n"


def _total_first(plan: Plan) -> list[str]:
    """Where evidence takes its time by choice, how long it takes is what a person wants to know first."""
    return [f"{_whole(plan, ' in all')} (profile: {plan.profile})"] if plan.profile and plan.phases else []


def _whole(plan: Plan, of_what: str = "") -> str:
    within = "" if plan.forecast.p90_s is None else f", 9 of 10 within {duration(plan.forecast.p90_s)}"
    return f"about {duration(plan.forecast.duration_s)}{of_what}{within}"


def _phase(phase: Phase) -> Iterator[str]:
    if not phase.waves[0].workers:
        step = phase.waves[0].steps[0]
        yield from _wrapped(f"{phase.name} ({_deadline(step)}): {phase.why}", first="", rest="  ")
        return
    yield from _wrapped(f"{phase.name}: {phase.why}", first="", rest="  ")
    for number, wave in enumerate(phase.waves, start=1):
        if len(wave.workers) > 1:
            yield f"  wave {number} of {len(phase.waves)}: {', '.join(wave.workers)} side by side"
        yield from _wave(wave)


def _wave(wave: Wave) -> Iterator[str]:
    shown = None
    for step in wave.steps:
        name = "" if step.worker == shown else str(step.worker)
        shown = step.worker
        head = f"  {name:<17} {step.verb:<14}{_deadline(step):>8}  "
        yield from _wrapped(step.why, first=head, rest=" " * len(head))


def _deadline(step: Step) -> str:
    return f"≤ {step.deadline_s:g} s"


def _left_alone(plan: Plan) -> list[str]:
    reasons = dict.fromkeys(plan.skipped.values())
    return [f"{', '.join(worker for worker, why in plan.skipped.items() if why == reason)}: {reason}" for reason in reasons]


def _way_back(plan: Plan) -> list[str]:
    waves = [", ".join(wave.workers) for phase in plan.rollback for wave in phase.waves]
    if not waves:
        return []
    if plan.point_of_no_return is not None:
        return [f"NONE AFTER {plan.point_of_no_return}: from there on only forward"]
    targets = sorted({plan.from_releases[worker] for phase in plan.rollback for wave in phase.waves for worker in wave.workers})
    whom = "those that failed, and then it pauses" if plan.rollback_scope == "blamed" else "those that were touched"
    return [f"{whom}, to {', '.join(targets)}, each with the same steps and gates: {' → '.join(waves)}"]


def _guards(plan: Plan) -> list[str]:
    if not plan.phases:
        return []
    deadlines = dict.fromkeys(guard.deadline_s for guard in plan.guards)
    those = {at_s: [f"{guard.guard} ≤ {guard.max:g}" for guard in plan.guards if guard.deadline_s == at_s] for at_s in deadlines}
    return [f"{', '.join(names)}, or the rollout waits {deadline_s:g} s and pauses" for deadline_s, names in those.items()]


def _headroom(plan: Plan) -> list[str]:
    """One line for each worker whose siblings' load is known, and one for each reason why it isn't."""
    known = [f"{worker}: {_of_room(room)}" for worker, room in plan.headroom.items() if not room.unknown]
    reasons = dict.fromkeys(room.unknown for room in plan.headroom.values() if room.unknown)
    unknown = [
        f"{', '.join(worker for worker, room in plan.headroom.items() if room.unknown == reason)}: not known: {reason}"
        for reason in reasons
    ]
    sources = dict.fromkeys(room.source for room in plan.headroom.values() if not room.unknown)
    return [*known, *unknown, *(f"from {source}" if source.startswith("the") else source for source in sources)]


def _of_room(room: Headroom) -> str:
    if room.sibling is None:
        return f"uses {100 * room.now:.0f} % of a core; {room.how}"
    ratio = "its queue would only grow" if room.p95_ratio is None else f"p95 × {room.p95_ratio:.2f}"
    now, then, most = (f"{100 * share:.0f} %" for share in (room.now, room.then, room.then_max))
    return f"{room.sibling} from {now} to {then} of a core (at most {most}), {ratio}; {room.how}"


def _gates(plan: Plan) -> list[str]:
    lines = list(gate_lines(plan))
    lines += budget_lines(plan)
    silent = ", ".join(gate.id for gate in plan.gates.values() if not gate.acts)
    lines += [f"{silent}: told of, not acted on (act: false)"] if silent else []
    if plan.recovery is not None:
        share, level = f"{plan.recovery.share_min:.0%} of its pool's median", f"{plan.recovery.level_ratio_max:g} × the CPU per request"
        lines.append(f"recovery: a worker that does {share} at {level} of before passes")
    later = {gate.id: unwatched(gate, plan.watch, plan.sample_s) for gate in plan.gates.values()}
    reasons = dict.fromkeys(why for why in later.values() if why)
    return [*lines, *(f"{', '.join(gate for gate, why in later.items() if why == reason)}: {reason}" for reason in reasons)]


def _forecast(plan: Plan) -> list[str]:
    if not plan.phases:
        return []
    said = plan.forecast
    evidence_s = sorted(set(said.evidence_s.values()))
    spread = f"{evidence_s[0]:g}" if len(evidence_s) == 1 else f"{evidence_s[0]:g} to {evidence_s[-1]:g}"
    phases = ", ".join(f"{phase.name} {duration(total((phase,), said.steps).mean_s)}" for phase in plan.phases) if said.steps else ""
    return [
        _whole(plan) + (f": {phases}" if phases else ""),
        f"{duration(said.fixed_s)} of it are the playbook's own times (ramp and evidence {spread} s per worker); {said.basis}",
        *_windows(plan.windows),
    ]


def _windows(windows: Windows | None) -> Iterator[str]:
    if windows is not None:
        yield f"may begin {windows_text(windows)}"


def _wrapped(text: str, *, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False)
