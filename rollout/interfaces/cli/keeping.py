"""What is to be known about where the journal is kept, and what of it may be deleted."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import click

from rollout.interfaces.report.words import table
from rollout.ports.journal import DeployLine, Journal, Keeping, dispensable, has_ended

# Every reading of a rollout reads its lines alone; beyond this a copy or a backup of the whole begins to take minutes.
SIZE_NOTED_BYTES = 1_000_000_000
# What rollouts look back at: a baseline of the last day (engine/baseline.py).
_DAY_S = 86_400.0
# The first is what most set, the others what some set alone.
CI_VARIABLES = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "TF_BUILD", "BUILDKITE", "CIRCLECI", "TEAMCITY_VERSION", "DRONE")
_KEEP = re.compile(r"([1-9]\d{0,8})(d?)\Z")


def goes_with_the_runner(keeping: Keeping, environment: Mapping[str, str]) -> bool:
    """Tell whether this is a job of a CI system, and the journal a file on its runner."""
    return keeping.file is not None and any(environment.get(name, "").lower() not in {"", "0", "false"} for name in CI_VARIABLES)


def concerns(keeping: Keeping, environment: Mapping[str, str]) -> list[str]:
    """Say what somebody who begins a rollout should know."""
    said = []
    if goes_with_the_runner(keeping, environment):
        said.append(
            f"the journal is a file on a CI runner ({keeping.where}), and goes with it if the job is ended in mid-rollout\n"
            "    try: --journal postgresql://USER@HOST/DATABASE (with a password: env:NAME), or a path that outlives the job\n"
            "    without it: `rollout status` and a new `rollout deploy` start from what they find; what we left out of traffic is marked\n"
            "    at the target, and comes first"
        )
    if keeping.size_bytes > SIZE_NOTED_BYTES:
        said.append(
            f"the journal has {keeping.size_bytes / 1e9:.1f} GB ({keeping.where})\n"
            "    try: rollout history --prune 100, which deletes all but the newest 100 rollouts (or 90d: what ended longer ago)"
        )
    return said


@dataclass(frozen=True, slots=True)
class Keep:
    """How much history is kept: the newest *rollouts*, or what ended in the last *days*; the other is None."""

    rollouts: int | None
    days: int | None


def read_keep(context: click.Context, parameter: click.Parameter, written: str | None) -> Keep | None:
    """`100`: that many rollouts; `90d`: those of the last 90 days."""
    if written is None:
        return None
    match = _KEEP.match(written)
    if match is None:
        raise click.BadParameter(f"{written!r} is neither a number of rollouts (100) nor of days (90d)", context, parameter)
    number = int(match[1])
    return Keep(None, number) if match[2] else Keep(number, None)


def prune(journal: Journal, homeserver: str, lines: list[DeployLine], keep: Keep, now_s: float, *, ask: bool) -> str:
    """
    Delete what is not kept, and say what that was. *lines* is the whole history, newest first.

    Raises click.Abort when somebody is asked and says no.
    """
    since_s = None if keep.days is None else now_s - keep.days * _DAY_S
    gone = dispensable(lines, keep.rollouts, since_s)
    kept = [line for line in lines if line not in gone]
    listed = table(("deleted", "to", "outcome"), [(line.deploy_id, line.to_version, line.outcome or "") for line in gone])
    if ask and gone:
        click.confirm(f"{listed}\nDelete these for ever?", abort=True)
    # A rollout that is kept may be asked what it was compared with.
    before_s = since_s if since_s is not None else min((line.began_at_s for line in kept), default=0.0) - _DAY_S
    baselines = journal.forget(homeserver, [line.deploy_id for line in gone], before_s)
    said = [] if ask or not gone else [listed]
    said.append(f"deleted: {len(gone)} rollouts and {baselines} baselines; kept: {len(kept)} rollouts")
    if unended := [line.deploy_id for line in kept[1:] if not has_ended(line)]:
        said.append(f"kept, because they have not ended: {', '.join(unended)}; `rollout abort` ends one")
    return "\n".join(said)
