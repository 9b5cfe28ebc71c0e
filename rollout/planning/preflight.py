"""
Could a rollout begin now? Everything that is looked at beforehand, as a list: all refusals in one pass, each with its cause and what to do.

What could not be seen is *unknown*, which refuses like *no*. A *warning* is worth knowing and refuses nothing: the rollout doesn't depend
on it, or finds it out by itself before anything is touched. Here is what concerns workers, metrics and guards; preflight_database.py and
preflight_release.py have the rest.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from rollout.model.conditions import DatabaseConditions, FilesUsed, Room
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.listing import listed
from rollout.model.plan import Guard, Plan
from rollout.model.release import Release
from rollout.model.sighting import Observation
from rollout.planning.standing import judge

# A worker that has used so many of its file handles has none for the users of a sibling that is out.
FILES_FULL = 0.9
# So far ahead is looked: in the incident that this is for they were used up within ten minutes.
FILES_AHEAD_S = 600.0


class Result(StrEnum):
    """What came of looking at one thing."""

    OK = "ok"
    NO = "no"
    UNKNOWN = "unknown"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what came of it, why in a sentence, what to try where it isn't ok, and where that is written."""

    name: str
    result: Result
    why: str
    remedy: str = ""
    source: str = ""

    @property
    def refuses(self) -> bool:
        """Tell whether a rollout may not begin for it."""
        return self.result in {Result.NO, Result.UNKNOWN}


@dataclass(frozen=True, slots=True)
class Findings:
    """
    What was seen before a rollout.

    *unmeasured* says whose metrics can't be read or believed, and why. *broken* are the guards that don't hold, and why. *conditions* is
    None where the inventory names no database. *room* is a sentence where it can't be told. *connections* are what each worker's pool may
    open on the new release; who isn't in it is unknown. *not_allowed* says what the hosts' sudo would refuse; a sentence where it can't be
    asked, None where nothing is done as root; *not_granted* the same of a cluster. *past_s* is of how many seconds of each worker on what
    it runs now a Prometheus has kept the metrics, or a sentence; None where the inventory names none.
    """

    observation: Observation
    unmeasured: Mapping[WorkerId, str] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[WorkerId, FilesUsed] = field(default_factory=dict)
    conditions: DatabaseConditions | None = None
    room: Room | str | None = None
    connections: Mapping[WorkerId, int] = field(default_factory=dict)
    not_allowed: tuple[str, ...] | str | None = None
    not_granted: tuple[str, ...] | str | None = None
    past_s: Mapping[WorkerId, float | str] | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """
    What is asked: may *to* be rolled out now, as *plan* has it (None where nothing could be planned).

    *accepted* are the hazards that the playbook accepts, *background* is its word on background updates ("refuse" or "warn"), *no_way_back*
    is consent to go where no way leads back from.
    """

    inventory: Inventory
    guards: tuple[Guard, ...]
    findings: Findings
    to: Release | None
    plan: Plan | None = None
    accepted: Sequence[str] = ()
    background: str = "refuse"
    no_way_back: bool = False

    def running(self) -> tuple[Release, ...]:
        """List the releases that run, each once."""
        seen = self.findings.observation
        found = dict.fromkeys(
            judge(worker, seen, proxied=entry.pool is not None).release for worker, entry in self.inventory.workers.items()
        )
        return tuple(seen.releases[release] for release in found if release is not None and release in seen.releases)

    @property
    def migrates(self) -> bool:
        """Tell whether the database would be migrated: some worker runs another version."""
        return self.to is not None and any(release.version != self.to.version for release in self.running())


def of_workers(inventory: Inventory, seen: Observation) -> Iterator[Check]:
    """Look at each worker: well, seen, in traffic, and on a release that is known."""
    for worker, entry in inventory.workers.items():
        standing = judge(worker, seen, proxied=entry.pool is not None)
        if worker in seen.missing or worker not in seen.sightings:
            yield Check(worker, Result.UNKNOWN, standing.blockers[0], "rollout status")
        elif standing.blockers:
            yield Check(worker, Result.NO, "; ".join(standing.blockers), "bring it back by hand, or see what its log says")
        elif standing.foreign:
            why = "drained by somebody else: it counts as out, and is left alone"
            yield Check(worker, Result.NO, why, "whoever drained it admits it again; or max_unavailable leaves room for it to be out")
        elif standing.ours:
            yield Check(worker, Result.OK, "out since an earlier rollout of ours: the next one brings it back first")
        else:
            yield Check(worker, Result.OK, f"runs {standing.release}")
    yield from _mixed(inventory, seen)


def _mixed(inventory: Inventory, seen: Observation) -> Iterator[Check]:
    standings = {worker: judge(worker, seen, proxied=entry.pool is not None) for worker, entry in inventory.workers.items()}
    found: dict[str, list[str]] = {}
    for worker, standing in standings.items():
        if standing.release is not None:
            found.setdefault(standing.release, []).append(worker)
    if len(found) > 1:
        why = "several releases run: " + "; ".join(f"{release} ({', '.join(workers)})" for release, workers in found.items())
        yield Check("releases", Result.WARNING, why, "each worker would go back to its own")


def of_metrics(question: Question) -> Iterator[Check]:
    """Look at each metrics page: it answers, and it is of now."""
    for worker in question.inventory.workers:
        if why := question.findings.unmeasured.get(worker):
            yield Check(f"metrics of {worker}", Result.UNKNOWN, why, "its `metrics` in the inventory, and what stands between us and it")
        else:
            yield Check(f"metrics of {worker}", Result.OK, "can be measured")


_LATER = {
    "files_projected": "how files grow",
    "reactor_tick_s": "how long workers let wait",
    "replication_lag_s": "how far workers are behind",
    "in_flight": "how many requests are under way",
    "latency_p95_s": "how long requests take",
    "error_ratio": "how many requests fail",
}
_OF_USERS = frozenset({"in_flight", "latency_p95_s", "error_ratio"})


def of_guards(question: Question) -> Iterator[Check]:
    """Look at the playbook's guards, as the rollout will before each worker."""
    readings = question.findings.observation.guards
    for guard in question.guards:
        broken = question.findings.broken.get(guard.guard, "")
        reading = next((one for one in readings if one.guard == guard.guard), None)
        known = reading is not None and reading.value is not None
        name, most = f"guard {guard.guard}", f"at most {guard.max:g}"
        if reading is not None and reading.short:
            # Measured by the rollout itself, before anybody goes out.
            yield Check(name, Result.OK, f"{most}; {_LATER.get(guard.guard, 'it')} is measured when the rollout has begun")
        elif broken:
            yield Check(name, Result.NO if known else Result.UNKNOWN, broken, _remedy(guard.guard, known=known))
        else:
            yield Check(name, Result.OK, most)


def _remedy(guard: str, *, known: bool) -> str:
    """Say where to look when a guard doesn't hold."""
    if not known:
        return "what reads it: database_driver, or the metrics pages"
    if guard in _OF_USERS:
        return "what requests wait for: the database's locks are listed here; or wait until it is over"
    return "what is listed of the database and of file handles here"


def of_files(question: Question) -> Iterator[Check]:
    """Look at file handles: how many are used, and where their growth leads."""
    found = question.findings.files
    full = False
    for worker, used in found.items():
        level = f"{used.open:.0f} of {used.max:.0f} file handles are used"
        remedy = "a higher limit (LimitNOFILE), or find what holds them: requests that wait for the database do"
        ahead = used.share_in(FILES_AHEAD_S)
        if used.open >= FILES_FULL * used.max:
            full = True
            yield Check(f"files of {worker}", Result.NO, level, remedy)
        elif ahead is not None and ahead >= 1 and used.growth_per_s:
            in_s = (used.max - used.open) / used.growth_per_s
            full = True
            why = f"{level}, {used.growth_per_s:.2g} more each second: none will be left in {in_s:.0f} s"
            yield Check(f"files of {worker}", Result.NO, why, remedy)
    if blind := [worker for worker in question.inventory.workers if worker not in found]:
        needed = any(guard.guard.startswith("files_") for guard in question.guards)
        why = f"not known of {', '.join(blind)}"
        yield Check("files", Result.UNKNOWN if needed else Result.WARNING, why, "the metrics pages")
    elif found and not full:
        fullest = max(found, key=lambda worker: found[worker].open / found[worker].max)
        used = found[fullest]
        grows = (
            "measured too shortly to say how they grow" if used.growth_per_s is None else f"{max(0.0, used.growth_per_s):.2g} more a second"
        )
        yield Check("files", Result.OK, f"{fullest} uses most: {used.open:.0f} of {used.max:.0f}, {grows}")


def of_sudo(question: Question) -> Iterator[Check]:
    """Look at what drivers would do as root on hosts."""
    found = question.findings.not_allowed
    if isinstance(found, str):
        yield Check("sudo", Result.UNKNOWN, f"what it allows can't be asked: {found}", "rollout status")
    elif found is not None:
        yield from (Check("sudo", Result.NO, one, "install on that host what `rollout sudoers` prints") for one in found)
        if not found:
            yield Check("sudo", Result.OK, "the hosts allow all that is done as root")


def of_grants(question: Question) -> Iterator[Check]:
    """Look at what drivers would do in a cluster."""
    found = question.findings.not_granted
    if isinstance(found, str):
        yield Check("rbac", Result.UNKNOWN, f"what the cluster allows can't be asked: {found}", "rollout status")
    elif found is not None:
        yield from (Check("rbac", Result.NO, one, "apply what `rollout rbac` prints") for one in found)
        if not found:
            yield Check("rbac", Result.OK, "the cluster allows all that is done there")


def of_past(question: Question) -> Iterator[Check]:
    """Look at what a Prometheus has kept. It refuses nothing: who has no baseline there is surveyed."""
    past_s = question.findings.past_s
    if past_s is None:
        return
    needed_s = 0.0 if question.plan is None else question.plan.baseline_s
    lacking: dict[str, list[WorkerId]] = {}
    for worker, kept in past_s.items():
        if isinstance(kept, str) or kept < needed_s:
            why = kept if isinstance(kept, str) else f"{kept:.0f} s of the {needed_s:g} s that are needed"
            lacking.setdefault(why, []).append(worker)
    for why, workers in lacking.items():
        sentence = f"Prometheus has none for {listed(workers)} (the journal or a survey has to do): {why}"
        yield Check("baseline", Result.WARNING, sentence, "history_driver in the inventory")
    if past_s and not lacking:
        least_s = min(kept for kept in past_s.values() if not isinstance(kept, str))
        yield Check("baseline", Result.OK, f"Prometheus has {least_s / 60:.0f} min or more of each worker")


def of_blockers(blockers: str, told: Sequence[Check]) -> Iterator[Check]:
    """Turn what a planner refuses, a line each, into checks; what was *told* already is left out. One that is ok when there is nothing."""
    lines = [line.strip() for line in blockers.splitlines() if line.strip()]
    if not lines:
        yield Check("plan", Result.OK, "it can be planned now")
    said = "\n".join(check.why for check in told if check.refuses)
    yield from (Check("plan", Result.NO, line) for line in lines if line not in said)
