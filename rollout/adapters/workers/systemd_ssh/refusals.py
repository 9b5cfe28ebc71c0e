"""What is said when it can't be done."""

from collections.abc import Mapping
from typing import NoReturn

from rollout.adapters.remote_commands import Argv, Said
from rollout.agent.units import Unit
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError
from rollout.model.ids import WorkerId


def not_allowed(worker: WorkerId, host: str, user: str, argv: Argv, answer: Said) -> PermanentDriverError:
    return PermanentDriverError(
        f"sudo does not let {user} run `{' '.join(argv)}` on host {host}",
        where=worker,
        why=answer.why or "no rule of /etc/sudoers.d there has it, or one wants a password",
        remedy=f"install on {host} what `rollout sudoers --host {host} -i INVENTORY` prints",
    )


def takes_along(worker: WorkerId, others: Mapping[WorkerId, str]) -> PermanentDriverError:
    """*others* are the workers that would be stopped with it, each with the line of a unit's file that says so."""
    return PermanentDriverError(
        f"stopping it would stop {', '.join(sorted(others))} as well",
        where=worker,
        why="\n".join(others[other] for other in sorted(others)),
        remedy="write Wants= and After= in its place (systemctl edit --full, on the host), then systemctl daemon-reload",
    )


def exits_at_once(worker: WorkerId, host: str, user: str, unit: Unit, last_words: tuple[tuple[str, ...], bool]) -> PermanentDriverError:
    """*last_words*: its last lines, and whether we may read them at all."""
    lines, readable = last_words
    why = [unit.fate]
    if lines:
        why += [f"its last words: {lines[0]}", *lines[1:]]
    elif readable:
        why.append("it wrote nothing to the journal (its own log file may say more)")
    else:
        why.append(f"what it wrote is not known: {user} may not read the journal on host {host} (group systemd-journal)")
    remedy = f"journalctl -u {unit.name} on host {host}"
    return PermanentDriverError("it exits as soon as it is started", where=worker, why="\n".join(why), remedy=remedy)


def not_loaded(worker: WorkerId, host: str, name: str, unit: Unit) -> PermanentDriverError:
    if unit.load == "not-found":
        what, remedy = f"systemd on host {host} has no unit {name}", "unit or units in the inventory's workers_driver"
    else:
        what, remedy = f"systemd on host {host} can't use unit {name} ({unit.load})", f"systemctl status {name} on host {host}"
    return PermanentDriverError(what, where=worker, remedy=remedy)


def lost_sight(worker: WorkerId, error: DriverError) -> NoReturn:
    raise OutcomeUnknownError("what became of it can't be seen", where=worker, why=f"{error.where}: {error.what}") from error
