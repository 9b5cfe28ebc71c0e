"""Which workers a rollout touches, and where it ends."""

import difflib
from collections.abc import Collection, Sequence

from rollout.model.errors import InvalidFileError
from rollout.model.ids import Role, WorkerId
from rollout.model.sighting import runs
from rollout.planning.order import CANARY, Stretch
from rollout.planning.situation import Situation


def why_skipped(situation: Situation, only: Role | None, among: Collection[WorkerId] | None = None) -> dict[WorkerId, str]:
    """
    Say why each worker that isn't rolled isn't. *among* are those that an earlier rollout left to be taken back; None if it isn't that.

    Raises InvalidFileError when *only* names no worker's role.
    """
    roles = list(dict.fromkeys(worker.role for worker in situation.workers))
    if only is not None and only not in roles:
        raise _names_nothing("--only", only, roles)
    skipped: dict[WorkerId, str] = {}
    for worker in situation.workers:
        sighting = situation.observation.sightings.get(worker.id)
        if worker.id in situation.foreign:
            skipped[worker.id] = "drained by somebody else: left as it is"
        elif sighting is not None and sighting.drain is None and runs(sighting, situation.to) is True:
            skipped[worker.id] = f"runs {situation.to.id} already"
        elif only is not None and worker.role != only:
            skipped[worker.id] = f"not asked for (--only {only})"
        elif among is not None and worker.id not in among:
            skipped[worker.id] = "not part of what is taken back"
    return skipped


def cut_after(stretches: tuple[Stretch, ...], until: str, skipped: dict[WorkerId, str]) -> tuple[Stretch, ...]:
    """
    Leave out every wave after the last one that holds what *until* names: the canary, a worker, or a role.

    Raises InvalidFileError when nothing in these stretches goes by that name.
    """
    rows = [(stretch, row) for stretch in stretches for row in stretch.rows]
    last = max(
        (
            index
            for index, (stretch, row) in enumerate(rows)
            if stretch.name == until == CANARY or any(until in {worker.id, worker.role} for worker in row)
        ),
        default=None,
    )
    if last is None:
        if (worker := WorkerId(until)) in skipped:
            raise InvalidFileError(f"--until {until}: this worker isn't rolled", why=skipped[worker])
        names = [CANARY] * any(stretch.name == CANARY for stretch in stretches)
        names += [name for _, row in rows for worker in row for name in (worker.role, worker.id)]
        raise _names_nothing("--until", until, names)
    kept = [row for _, row in rows[: last + 1]]
    cut = [Stretch(stretch.name, stretch.why, tuple(row for row in stretch.rows if row in kept)) for stretch in stretches]
    return tuple(stretch for stretch in cut if stretch.rows)


def _names_nothing(option: str, name: str, known: Sequence[str]) -> InvalidFileError:
    close = difflib.get_close_matches(name, known, n=1)
    return InvalidFileError(
        f"{option} {name}: nothing that is rolled goes by that name", remedy=close[0] if close else ", ".join(dict.fromkeys(known))
    )
