"""
What happened: the lines of the journal. Folding them gives the state; nothing else is remembered.

`at_s` is seconds since the epoch and never decreases within a rollout. A new kind of event needs: a class here, a row in
deciding/state.py, a sentence in interfaces/narrate.py, and a line in the golden journal (docs/adding-an-event.md).
"""

from dataclasses import dataclass, field
from enum import StrEnum

from rollout.model.effect import Effect
from rollout.model.gate import Measured, Metric, Tally, Verdict
from rollout.model.ids import DeployId, EffectNumber, Role, StepId, WorkerId
from rollout.model.release import Release
from rollout.model.sighting import Observation
from rollout.model.warming import Warmed


class Outcome(StrEnum):
    """How a rollout ended, or why its process stopped."""

    DEPLOYED = "deployed"
    ROLLED_BACK = "rolled_back"  # by itself, after a FAIL
    ROLLED_BACK_ON_REQUEST = "rolled_back_on_request"
    ABORTED = "aborted"  # on request, and every worker runs what it ran before
    HALTED = "halted"  # mixed releases or a worker that can't be brought back: an operator is needed
    REFUSED = "refused"  # nothing was touched
    PAUSED = "paused"  # safe, resumable
    INTERRUPTED = "interrupted"  # safe, resumable


EXIT_CODES = {
    Outcome.DEPLOYED: 0,
    Outcome.ROLLED_BACK_ON_REQUEST: 0,
    Outcome.ROLLED_BACK: 3,
    Outcome.ABORTED: 3,
    Outcome.HALTED: 4,
    Outcome.REFUSED: 5,
    Outcome.PAUSED: 7,
    Outcome.INTERRUPTED: 130,
}

# After these the rollout can be taken up again.
RESUMABLE = frozenset({Outcome.PAUSED, Outcome.INTERRUPTED})


class Command(StrEnum):
    """What a person may ask of a running rollout."""

    ABORT = "abort"  # make safe and end
    ROLLBACK = "rollback"  # take the touched workers back
    INTERRUPT = "interrupt"  # a signal: make safe and stop, resumable
    CONTINUE = "continue"  # take back a pause that has not come about yet
    PAUSE = "pause"  # end what is under way with the worker that is out, then stop, resumable
    SKIP = "skip"  # leave a worker that has not been touched as it is


@dataclass(frozen=True, slots=True)
class DeployBegan:
    """*end_by_s* is when the playbook's window ends, None without one; *windows_ignored* why it was begun regardless of them."""

    at_s: float
    deploy_id: DeployId
    plan_digest: str
    decision_version: int
    operator: str
    last_number: EffectNumber
    token: int = 0
    taken_from: str = ""
    end_by_s: float | None = None
    windows_ignored: str = ""


@dataclass(frozen=True, slots=True)
class DeployResumed:
    """
    A new process took the rollout up; *last_number* is the highest number the ledger knows. It holds the lease by *token*, and took it
    from *taken_from* if nobody had given it back.

    *accepted_version*: the other version of the decision code that had written the journal so far, which *operator* accepted by name.
    *detached*: it was begun by the one before, to go on with the last watch. The rest as in DeployBegan.
    """

    at_s: float
    decision_version: int
    operator: str
    last_number: EffectNumber
    accepted_version: int | None = None
    token: int = 0
    taken_from: str = ""
    end_by_s: float | None = None
    windows_ignored: str = ""
    detached: bool = False


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The lease is not held any more: it could not be renewed in time, or somebody else has *taken it over*, who is responsible now."""

    at_s: float
    why: str
    taken_over: bool


@dataclass(frozen=True, slots=True)
class LeaseRegained:
    """The lease that could not be renewed in time was renewed after all: nobody had taken it meanwhile."""

    at_s: float


@dataclass(frozen=True, slots=True)
class EffectIntended:
    at_s: float
    effect: Effect


@dataclass(frozen=True, slots=True)
class EffectSucceeded:
    """The driver says it did it. *release*: what PREPARE found in the installed artefact. *warmed*: what WARM did to each worker."""

    at_s: float
    number: EffectNumber
    release: Release | None = None
    warmed: dict[WorkerId, Warmed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EffectFailed:
    """
    It did not happen. *permanent*: trying again would fail again. *log* holds the worker's last lines, if it has any.

    *ledger_number* is the highest number that the ledger knows, if it came too late by its own (0 otherwise). *fenced*: somebody else has
    taken the homeserver over, and nothing that this rollout does is heard any more. *unheld*: the lease had run out, so it was not even
    tried, which says nothing about the worker.
    """

    at_s: float
    number: EffectNumber
    why: str
    permanent: bool
    log: tuple[str, ...] = ()
    ledger_number: EffectNumber = EffectNumber(0)
    fenced: bool = False
    unheld: bool = False


@dataclass(frozen=True, slots=True)
class EffectInDoubt:
    """It may or may not have happened: it is observed before anything else is done to that worker."""

    at_s: float
    number: EffectNumber
    why: str


@dataclass(frozen=True, slots=True)
class EffectObserved:
    """What became of an effect that was in doubt."""

    at_s: float
    number: EffectNumber
    happened: bool
    why: str


@dataclass(frozen=True, slots=True)
class Observed:
    """A look at the homeserver. Only sightings that changed are carried; every other worker that is not in *missing* was seen unchanged."""

    at_s: float
    observation: Observation


@dataclass(frozen=True, slots=True)
class SamplesTaken:
    at_s: float
    measured: Measured


@dataclass(frozen=True, slots=True)
class BaselineFound:
    """
    A baseline that was there already (*source* says where), per worker; those without one are surveyed, and so are those whose is *partly*
    there: what a SURVEY sees is added to it.

    *recoveries* name, by role and metric, the curves by which earlier restarts recovered (gating/curves.py).
    """

    at_s: float
    source: str
    tallies: dict[WorkerId, Tally]
    partly: tuple[WorkerId, ...] = ()
    recoveries: dict[Role, dict[Metric, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepBegan:
    """*warning* says what to know of it now that the plan didn't: that the others will have much to carry."""

    at_s: float
    step_id: StepId
    warning: str = ""


@dataclass(frozen=True, slots=True)
class StepFinished:
    at_s: float
    step_id: StepId
    why: str


@dataclass(frozen=True, slots=True)
class StepFailed:
    at_s: float
    step_id: StepId
    why: str


@dataclass(frozen=True, slots=True)
class WaitBegan:
    """The rollout waits; *cause* is one of a few words for the accounts (drain, boot, evidence, guard, …), *why* the sentence."""

    at_s: float
    cause: str
    why: str


@dataclass(frozen=True, slots=True)
class GateRuled:
    at_s: float
    step_id: StepId
    worker: WorkerId
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class RollbackBegan:
    """*blamed*: only these are taken back, and then the rollout pauses; everybody who was touched if it is empty."""

    at_s: float
    why: str
    requested: bool
    blamed: tuple[WorkerId, ...] = ()


@dataclass(frozen=True, slots=True)
class WindDownBegan:
    """The rollout brings what is out back into traffic and then ends with *outcome*."""

    at_s: float
    outcome: Outcome
    why: str


@dataclass(frozen=True, slots=True)
class OperatorSpoke:
    at_s: float
    command: Command
    operator: str
    why: str
    worker: WorkerId | None = None


@dataclass(frozen=True, slots=True)
class DeployFinished:
    """The end, or the last line before a pause. *drained*: workers of ours that could not be brought back."""

    at_s: float
    outcome: Outcome
    why: str
    drained: tuple[WorkerId, ...] = ()


Event = (
    DeployBegan
    | DeployResumed
    | LeaseLost
    | LeaseRegained
    | EffectIntended
    | EffectSucceeded
    | EffectFailed
    | EffectInDoubt
    | EffectObserved
    | Observed
    | SamplesTaken
    | BaselineFound
    | StepBegan
    | StepFinished
    | StepFailed
    | WaitBegan
    | GateRuled
    | RollbackBegan
    | WindDownBegan
    | OperatorSpoke
    | DeployFinished
)
