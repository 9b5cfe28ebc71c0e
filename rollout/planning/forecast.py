"""
How long it takes: each step by what it took before, else by assumptions that are printed with it.

A step's time has a part that is known (the playbook's own times: baseline, ramps, least soaks, watch) and a part that is not: drains,
boots, caches that warm up, samples that have yet to come. Of the second part each kind of step has a model, and earlier rollouts say by how
much it was wrong for this role:

drains    the last of n idle long-polls ends after about 30 s × n ÷ (n + 1), n being the sessions of now; events end most of them sooner,
          so history scales this
soaks     the slowest gate's samples at the role's rate of last time, or the load-recovery gate's first window; history adds what came on
          top
the rest  as long as it took before

Few observations are told with care. Two or more are believed (one counts for no more than three times their middle), a single one meets
the assumption half-way. Nine of ten take no more than the largest of up to ten observations, in which the assumption counts as one more.
Steps are added up by their means, since the middle of a sum of many skewed times is near the sum of their means and well above that of
their middles; workers of one wave count as the slowest of them. Steps hardly depend on one another, so what they may take longer adds up by
squares.

Rejected: drawing thousands of rollouts at random (the core knows no randomness, and this is within a percent or two of it).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, floor, sqrt
from statistics import fmean, median
from types import MappingProxyType

from rollout.homeservers.synapse.canaries import bought_metrics
from rollout.model.gate import Metric
from rollout.model.ids import Role, StepId, WorkerId
from rollout.model.load import Load, Traffic
from rollout.model.plan import Duty, Forecast, Phase, Plan, Step, StepForecast, Verb, Wave, Worker
from rollout.model.sighting import Observation
from rollout.planning.worker_steps import ramp_down_s, ramp_s

# Idle long-polls last 30 s and set the tail of a drain (measured: 2 to 15 s with 15 to 40 users who write to one another).
DRAIN_S = 30.0
# Measured: 0.7 to 1.1 s from start to /health on an idle machine, 7.4 s on a busy one.
BOOT_S = 10.0
# A role that is watched for being alive only is watched for so long (gating/liveness.py).
LIVENESS_S = 10.0
# What can't be measured so long after the end of the watch is unmeasurable.
WATCH_MARGIN_S = 120.0

# With so many observations nine of ten can be told from them.
OBSERVED_ENOUGH = 10
# A single one counts for no more than so many times the middle of all: one bad night is not what comes next.
ODD = 3.0
LATE = 0.9

# What the verbs are called where they are added up; the first three are what varies most.
PARTS = {
    "drains": (Verb.DRAIN, Verb.HOLD),
    "boots": (Verb.RESTART, Verb.AWAIT_HEALTHY, Verb.LET_GO),
    "recovery": (Verb.ADMIT, Verb.SOAK),
    "warming": (Verb.WARM,),
    "preparation": (Verb.PREPARE, Verb.MIGRATE),
    "survey and watch": (Verb.SURVEY, Verb.WATCH),
}
PART_OF = {verb: part for part, verbs in PARTS.items() for verb in verbs}


# Of fewer requests one or none may have failed by chance.
FAILED_OF_MIN = 500.0
NOTHING_ASKED: Mapping[WorkerId, Traffic] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Spread:
    """What something takes: on average, as often more as less, and no more than that nine times of ten."""

    mean: float
    median: float
    p90: float


@dataclass(frozen=True, slots=True)
class Shape:
    """
    What is known of a step before it begins: *fixed_s* is the playbook's, it takes at least *floor_s*, and besides some *unit_s*: as many
    as steps of this *kind* took before, or as *assumed*.
    """

    kind: tuple[Verb, Role | None, str]
    fixed_s: float
    floor_s: float
    unit_s: float
    assumed: Spread


@dataclass(frozen=True, slots=True)
class History:
    """
    What earlier rollouts of this homeserver took: for each kind of step how many units beyond its floor (Shape), the newest first.

    *samples_per_s* are what a gate's metric counted per worker of a role while it soaked last. *surveyed* are workers that have a baseline
    already, and *traffic* what that says they were asked; *unread* is why there is no history.
    """

    rollouts: int = 0
    beyond: Mapping[tuple[Verb, Role | None, str], Sequence[float]] = field(default_factory=dict)
    samples_per_s: Mapping[tuple[Role, Metric], float] = field(default_factory=dict)
    surveyed: frozenset[WorkerId] = frozenset()
    unread: str = ""
    traffic: Mapping[WorkerId, Traffic] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Total:
    """Seconds of several steps; *fixed_s* as in StepForecast."""

    fixed_s: float
    mean_s: float
    p90_s: float


def forecast(
    plan: Plan, sessions: Mapping[WorkerId, int], history: History = History(), traffic: Mapping[WorkerId, Traffic] = NOTHING_ASKED
) -> Forecast:
    """Forecast *plan*; *sessions* are those that each worker has now, and *traffic* what it is asked, where the history doesn't say."""
    workers = {worker.id: worker for worker in plan.workers}
    surveyed = history.surveyed.issuperset(workers)
    steps: dict[StepId, StepForecast] = {}
    used: dict[str, int] = {}
    evidence_s: dict[WorkerId, float] = {}
    estimates: dict[tuple[Verb, Role | None, str], Spread] = {}
    for step in (step for phase in plan.phases for wave in phase.waves for step in wave.steps):
        worker = None if step.worker is None else workers[step.worker]
        now = None if step.worker is None else sessions.get(step.worker)
        shape = shape_of(plan, step, worker, now, history.samples_per_s, surveyed=surveyed)
        observed = history.beyond.get(shape.kind, ())
        if shape.kind not in estimates:
            estimates[shape.kind] = estimate(observed, shape.assumed)
        spread = estimates[shape.kind]
        seconds = (round(max(shape.fixed_s, shape.floor_s + shape.unit_s * units), 3) for units in (spread.mean, spread.median, spread.p90))
        steps[step.id] = StepForecast(shape.fixed_s, *seconds)
        used[PART_OF[step.verb]] = used.get(PART_OF[step.verb], 0) + len(observed)
        if step.worker is not None and step.verb in {Verb.ADMIT, Verb.SOAK}:
            evidence_s[step.worker] = evidence_s.get(step.worker, 0.0) + shape.fixed_s
    whole = total(plan.phases, steps)
    return Forecast(
        duration_s=round(whole.mean_s, 3),
        evidence_s=evidence_s,
        basis=_basis(history, used),
        p90_s=round(whole.p90_s, 3),
        fixed_s=round(whole.fixed_s, 3),
        bases=tuple(_bases(history, used)),
        steps=steps,
        traffic={**traffic, **history.traffic},
    )


def traffic_of(loads: Mapping[WorkerId, Load]) -> dict[WorkerId, Traffic]:
    """Return what each worker was asked, of those of which it is known."""
    return {
        worker: Traffic(
            load.ordinary_per_s, load.requests_per_s - load.ordinary_per_s, load.failed if load.requests >= FAILED_OF_MIN else None
        )
        for worker, load in loads.items()
        if load.requests_per_s is not None and load.ordinary_per_s is not None
    }


def without_bought(traffic: Traffic, bought_per_s: float, role: Role) -> Traffic:
    """Take off the canary requests that were bought while it was measured."""
    if Metric.LATENCY_P95 in bought_metrics(role):
        return replace(traffic, requests_per_s=max(0.0, traffic.requests_per_s - bought_per_s))
    return replace(traffic, polls_per_s=max(0.0, traffic.polls_per_s - bought_per_s))


def sessions_of(seen: Observation) -> dict[WorkerId, int]:
    """Return how many sessions each worker has, of those of which it is known."""
    proxies = {worker: sighting.proxy for worker, sighting in seen.sightings.items()}
    return {worker: proxy.sessions for worker, proxy in proxies.items() if proxy is not None and proxy.sessions is not None}


def shape_of(
    plan: Plan,
    step: Step,
    worker: Worker | None,
    sessions: int | None,
    samples_per_s: Mapping[tuple[Role, Metric], float],
    *,
    surveyed: bool = False,
) -> Shape:
    """Say what is known of a step; *sessions* is None where nobody has counted them, *surveyed* where everybody has a baseline already."""
    fixed_s, floor_s, unit_s, kind = 0.0, 0.0, 1.0, ""
    match step.verb:
        case Verb.SURVEY:
            fixed_s = 0.0 if surveyed else plan.baseline_s
        case Verb.WATCH:
            fixed_s = plan.watch.watch_s
        case Verb.ADMIT:
            fixed_s = ramp_s(plan.ramp)
        case Verb.DRAIN:
            fixed_s, unit_s = ramp_down_s(plan.ramp), _tail_s(sessions)
        case Verb.SOAK:
            fixed_s = max((plan.gates[gate].soak_s for gate in step.gates), default=LIVENESS_S)
            floor_s = _evidence_s(plan, step, worker, samples_per_s)
        case Verb.WARM:
            kind, unit_s = ("inheritors", float(len(step.warms))) if step.worker not in step.warms else ("itself", 1.0)
            unit_s *= plan.warm.seconds if plan.warm is not None else 0.0
        case Verb.PREPARE:
            kind = _kind_of_prepare(plan)
        case _:
            pass
    role = None if worker is None else worker.role
    return Shape((step.verb, role, kind), fixed_s, max(fixed_s, floor_s), unit_s, _assumed(plan, step.verb, kind))


def estimate(observed: Sequence[float], assumed: Spread) -> Spread:
    """Say what to expect after what was *observed*, by the rule at the head of this module."""
    if not observed:
        return assumed
    count = len(observed)
    if count == 1:
        mean, middle = (observed[0] + assumed.mean) / 2, (observed[0] + assumed.median) / 2
    else:
        middle = median(observed)
        odd = max(ODD * middle, assumed.median)
        mean = fmean(min(one, odd) for one in observed)
    # The largest of n is what n in n + 1 are below; from ten on that would be more than was asked for.
    late = max(observed) if count < OBSERVED_ENOUGH else quantile(observed, LATE)
    return Spread(mean, middle, max((count * late + assumed.p90) / (count + 1), mean, middle))


def total(phases: Iterable[Phase], steps: Mapping[StepId, StepForecast], only: Collection[StepId] | None = None) -> Total:
    """Add up the waves, or what of them is in *only*; steps of which nothing is known count for nothing."""
    fixed_s, mean_s, late = 0.0, 0.0, 0.0
    for wave in (wave for phase in phases for wave in phase.waves):
        turns = [turn for turn in _turns(wave, steps, only) if turn]
        if not turns:
            continue
        slowest = max(turns, key=lambda turn: sum(one.mean_s for one in turn))
        mean_s += sum(one.mean_s for one in slowest)
        late += sum((one.p90_s - one.mean_s) ** 2 for one in slowest)
        fixed_s += max(sum(one.fixed_s for one in turn) for turn in turns)
    return Total(fixed_s, mean_s, mean_s + sqrt(late))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which *share* of *values* are, between two of them in proportion."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low, high = ordered[floor(place)], ordered[ceil(place)]
    return low + (high - low) * (place - floor(place))


def _turns(wave: Wave, steps: Mapping[StepId, StepForecast], only: Collection[StepId] | None) -> Iterable[list[StepForecast]]:
    by_worker: dict[WorkerId | None, list[StepForecast]] = {}
    for step in wave.steps:
        if step.id in steps and (only is None or step.id in only):
            by_worker.setdefault(step.worker, []).append(steps[step.id])
    return by_worker.values()


def _tail_s(sessions: int | None) -> float:
    """Return when the last of so many long-polls ends that began at any time."""
    return DRAIN_S if sessions is None else max(1.0, DRAIN_S * sessions / (sessions + 1))


def _evidence_s(plan: Plan, step: Step, worker: Worker | None, samples_per_s: Mapping[tuple[Role, Metric], float]) -> float:
    """Return how long the slowest gate's samples take, or the first window of the load-recovery gate; 0 where that isn't known."""
    if worker is None:
        return 0.0
    times_s = [0.0]
    for gate in (plan.gates[name] for name in step.gates):
        rate = max(samples_per_s.get((worker.role, gate.metric), 0.0), bought_per_s(plan, worker, gate.metric))
        if rate > 0:
            times_s.append(min(gate.deadline_s, gate.samples_min / rate))
    if plan.recovery is not None and worker.duty is Duty.REPLACEABLE:
        times_s.append(plan.recovery.window_s)
    return max(times_s)


def bought_per_s(plan: Plan, worker: Worker, metric: Metric) -> float:
    """Return how many samples a second canary requests bring, if any are sent to a worker."""
    bought = plan.buying is not None and worker.id in plan.buying.workers and metric in bought_metrics(worker.role)
    return plan.buying.per_s if plan.buying is not None and bought else 0.0


def _kind_of_prepare(plan: Plan) -> str:
    if plan.to_release.schema_version is not None:
        return "again"
    here = {plan.releases[release].version for release in plan.from_releases.values()}
    return "same version" if plan.to_release.version in here else "new version"


def _assumed(plan: Plan, verb: Verb, kind: str) -> Spread:
    """Return what is assumed, in the units of the step's shape."""
    match verb:
        case Verb.PREPARE:
            # Measured: 20 s for a virtual environment from a local index, 2 to 5 s for a configuration to be proven.
            return {"again": Spread(3, 3, 10), "same version": Spread(10, 10, 30)}.get(kind, Spread(60, 60, 180))
        case Verb.MIGRATE:
            # Measured: 1.3 to 2.6 s, of a small database.
            return Spread(5, 5, 30)
        case Verb.DRAIN:
            return Spread(1, 1, 1.3)
        case Verb.AWAIT_HEALTHY:
            return Spread(BOOT_S, BOOT_S, 2 * BOOT_S)
        case Verb.WARM:
            return Spread(1, 1, 1.1)
        case Verb.SOAK:
            # Samples come with the next measurement, and a window ends with one.
            return Spread(plan.sample_s, plan.sample_s, 3 * plan.sample_s)
        case Verb.ADMIT if plan.ramp.utilisation_max is not None:
            return Spread(plan.ramp.step_s, plan.ramp.step_s, 4 * plan.ramp.step_s)
        case Verb.SURVEY | Verb.WATCH:
            return Spread(0, 0, 1)
        case _:
            # A restart's stop and start, what the proxy is told, and what ends under way before a hold.
            return Spread(0.5, 0.5, 2)


_WORDS = {
    "drains": f"{DRAIN_S:g} s × n ÷ (n + 1) to drain n sessions",
    "boots": f"{BOOT_S:g} s to boot",
    "recovery": "enough traffic for every gate",
    "warming": "all of warm.seconds",
    # The plan shows it by itself.
    "preparation": "",
}


def _basis(history: History, used: Mapping[str, int]) -> str:
    assumed = [words for part, words in _WORDS.items() if words and part in used and not used[part]]
    told = []
    if seen := [part for part in _WORDS if used.get(part)]:
        last = "the last rollout" if history.rollouts == 1 else f"the last {history.rollouts} rollouts"
        told.append(f"as in {last}: {', '.join(seen)}")
    if history.unread:
        told.append(f"nothing is known of earlier rollouts ({history.unread})")
    told.append(f"assuming {', '.join([*assumed, 'no waiting for guards'])}")
    return "; ".join(told)


def _bases(history: History, used: Mapping[str, int]) -> Iterable[str]:
    for part, seen in used.items():
        assumed = f"{part}: assumed ({_WORDS.get(part) or 'as the plan shows'})"
        yield f"{part}: {seen} seen in {history.rollouts} rollouts" if seen else assumed
