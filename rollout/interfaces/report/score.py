"""
How good a forecast was: what a rollout took, against what its plan had said.

Scored is what was deployed. The playbook's own times (baseline, ramps, least soaks, watch) are told apart from what varied, since nobody
misses those. What depends on others than the homeserver and us (guards, room in a pool, somebody who resumes) is left out, and named.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from rollout.deciding.timings import StepTime, Times, times_of
from rollout.interfaces.report.words import duration
from rollout.model.event import Event, Outcome
from rollout.model.ids import StepId
from rollout.model.plan import Plan, StepForecast
from rollout.planning.forecast import PART_OF, PARTS, total

_MINUTE_S = 60.0
# What is less than this share of what varied isn't named.
_NAMED_MIN = 0.05


@dataclass(frozen=True, slots=True)
class Compared:
    """Seconds: what was forecast, and what it took."""

    forecast_s: float
    took_s: float

    @property
    def error(self) -> float | None:
        """By how much longer it took, as a fraction of the forecast; None where that was nothing."""
        return None if self.forecast_s <= 0 else (self.took_s - self.forecast_s) / self.forecast_s


@dataclass(frozen=True, slots=True)
class Score:
    """
    One rollout. *whole* is *fixed* and *variable* together; *parts* are what varied, by kind of step, added up over all workers. *p90_s*:
    the forecast for nine of ten. *left_out*: seconds of waiting that are in none of them, by cause.
    """

    whole: Compared
    fixed: Compared
    variable: Compared
    parts: dict[str, Compared]
    p90_s: float
    left_out: dict[str, float]


def score(plan: Plan, events: Iterable[Event]) -> Score | None:
    """Compare; None for a rollout that wasn't deployed, and for a plan whose steps have no forecast."""
    times = times_of(plan, events)
    said = plan.forecast.steps
    if times.outcome is not Outcome.DEPLOYED or not said:
        return None
    # Workers that were skipped took no time, and are no fault of the forecast.
    expected = total(plan.phases, said, only=times.steps)
    fixed_s = total(plan.phases, {name: _fixed(said[name], one) for name, one in times.steps.items() if name in said}).fixed_s
    return Score(
        whole=Compared(expected.mean_s, times.whole_s),
        fixed=Compared(expected.fixed_s, fixed_s),
        variable=Compared(expected.mean_s - expected.fixed_s, times.whole_s - fixed_s),
        parts=_parts(said, times),
        p90_s=expected.p90_s,
        left_out=dict(times.left_out),
    )


def score_text(scored: Score) -> str:
    """Say it in a sentence or two."""
    longest = max(scored.whole.forecast_s, scored.whole.took_s)
    whole, variable = _said(scored.whole, longest), _said(scored.variable, longest)
    named = [part for part in PARTS if part in scored.parts and scored.parts[part].took_s >= _NAMED_MIN * scored.variable.took_s]
    text = f"forecast {whole}; what varied ({_listed(named)}): forecast {variable}"
    if scored.left_out:
        text += f"; left out: {', '.join(f'{duration(seconds)} of waiting ({cause})' for cause, seconds in scored.left_out.items())}"
    return text


def _said(compared: Compared, longest_s: float) -> str:
    unit_s, unit = (_MINUTE_S, "min") if longest_s >= 2 * _MINUTE_S else (1.0, "s")
    off = "" if compared.error is None else f" ({compared.error:+.0%})"
    return f"{compared.forecast_s / unit_s:.1f} {unit}, took {compared.took_s / unit_s:.1f} {unit}{off}"


def _listed(parts: Collection[str]) -> str:
    return ", ".join(parts) if parts else "nothing much"


def _fixed(said: StepForecast, one: StepTime) -> StepForecast:
    """A step that ended sooner than its fixed time (a baseline that was there already) had no more of it than that."""
    return StepForecast(min(said.fixed_s, one.seconds), one.seconds, one.seconds, one.seconds)


def _parts(said: Mapping[StepId, StepForecast], times: Times) -> dict[str, Compared]:
    parts: dict[str, Compared] = {}
    for name, one in times.steps.items():
        if name in said:
            part = PART_OF[one.step.verb]
            before = parts.get(part, Compared(0.0, 0.0))
            beyond_s = one.seconds - min(said[name].fixed_s, one.seconds)
            parts[part] = Compared(before.forecast_s + said[name].mean_s - said[name].fixed_s, before.took_s + beyond_s)
    return parts
