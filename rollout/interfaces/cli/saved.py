"""A plan that was saved: read, and asked whether it still holds."""

from collections.abc import Callable
from pathlib import Path

from rollout.adapters.reading import read_bounded
from rollout.adapters.wording import shortened
from rollout.engine.readiness import Readiness, Seen
from rollout.interfaces.cli.opening import Opened
from rollout.interfaces.cli.selecting import Measuring, look_for, still_ready, with_history, with_loads
from rollout.model.codec import load_plan
from rollout.model.errors import InvalidFileError, RefusedError
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook
from rollout.planning.digest import digest_of_plan
from rollout.planning.drift import Drift, drift

# Of a thousand workers a plan has about ten.
PLAN_BYTES_MAX = 32_000_000


def read_plan(path: Path, inventory: Inventory) -> Plan:
    """Read a saved plan. Raises InvalidFileError."""
    where, again = str(path), f"rollout plan -o {path}"
    try:
        content = read_bounded(path, PLAN_BYTES_MAX)
        text = content.decode()
    except (OSError, ValueError) as error:
        why = (error.strerror or "").lower() if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidFileError("the plan can't be read", where=where, why=why, remedy=again) from error
    if len(content) > PLAN_BYTES_MAX:
        raise InvalidFileError(f"the file is larger than {PLAN_BYTES_MAX:,} bytes: it is no plan", where=where, remedy=again)
    try:
        plan = load_plan(text)
    except InvalidFileError as error:
        raise InvalidFileError("this is no plan that `rollout plan` saved", where=where, why=error.why, remedy=again) from error
    if plan.homeserver != inventory.homeserver:
        what = f"this is a plan for {shortened(plan.homeserver)}, not for {inventory.homeserver}"
        raise InvalidFileError(what, where=where, remedy="the plan or the inventory that goes with the other")
    try:
        Playbook.model_validate(plan.basis.playbook)
    except ValueError as error:
        raise InvalidFileError("this plan was saved by another release of rollout", where=where, remedy=again) from error
    if digest_of_plan(plan) != plan.digest:
        raise InvalidFileError("the plan was changed after it was saved", where=where, remedy=again)
    return plan


def drift_of(plan: Plan, opened: Opened, playbook: Playbook | None, measuring: Measuring) -> Drift:
    """Look at the homeserver, and say what has changed since a plan was made."""
    return drift(plan, _look(plan, opened, playbook, measuring)[1].observation, opened.inventory, playbook)


def _look(plan: Plan, opened: Opened, playbook: Playbook | None, measuring: Measuring) -> tuple[Readiness, Seen]:
    readiness, seen = look_for(opened, playbook or Playbook.model_validate(plan.basis.playbook))
    return readiness, with_loads(seen, opened, measuring)


def still_true(plan: Plan, path: Path, opened: Opened, playbook: Playbook | None, measuring: Measuring, say: Callable[[str], None]) -> Plan:
    """
    Return the plan, with a forecast as of now, and say what it bears.

    Raises RefusedError with all that has changed, if it doesn't hold.
    """
    readiness, seen = _look(plan, opened, playbook, measuring)
    found = drift(plan, seen.observation, opened.inventory, playbook)
    if not found.holds:
        why = [*found.breaks, *(f"(it would bear this: {what})" for what in found.bears)]
        what = f"the plan, made {found.age} ago, doesn't hold any more"
        raise RefusedError(what, where=str(path), why="\n".join(why), remedy="plan again, and look at what is different")
    if found.bears:
        say(drift_text(found))
    if plan.phases:
        still_ready(opened, plan, playbook, (readiness, seen))
    return with_history(plan, seen.observation, opened, measuring.journal)


def drift_text(found: Drift) -> str:
    """Print what changed, and whether the plan holds."""
    if not found.breaks and not found.bears:
        return f"nothing has changed since the plan was made, {found.age} ago: it holds\n"
    verdict = "it still holds" if found.holds else "it doesn't hold any more: plan again"
    lines = [f"since the plan was made, {found.age} ago ({verdict}):"]
    lines += [f"  breaks it: {what}" for what in found.breaks]
    lines += [f"  {what}" for what in found.bears]
    return "\n".join(lines) + "\n"
