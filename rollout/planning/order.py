"""
Who comes first.

What can be replaced comes before what pauses, and main comes last: by then the release has been seen to work where a bad one does the least
harm. The playbook's order decides among roles of the same duty, `depends_on` among workers of the same role.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rollout.homeservers.synapse.roles import ROLE_ORDER, duty_of
from rollout.model.ids import PoolId, Role, WorkerId
from rollout.model.plan import Duty, Worker
from rollout.model.playbook import Strategy
from rollout.planning.waves import into_waves

CANARY = "canary"
MAIN = Role("main")

_DUTY_RANK = {Duty.REPLACEABLE: 0, Duty.SHARDED: 1, Duty.SINGLETON: 2}

RoleGroup = tuple[Role, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A phase before its steps are made: rows of workers that may be out together, one row after the other."""

    name: str
    why: str
    rows: tuple[tuple[Worker, ...], ...]

    def workers(self) -> tuple[Worker, ...]:
        """List its workers in order."""
        return tuple(worker for row in self.rows for worker in row)


def in_stretches(
    workers: Iterable[Worker], strategy: Strategy, budget: Mapping[PoolId, int], ours: frozenset[WorkerId]
) -> tuple[Stretch, ...]:
    """
    Put the workers in order: the canary first, if there is one to choose, then group by group of roles.

    *ours* are workers that an earlier rollout left out. They come first in their group, because their pool is short of them.
    """
    groups = role_groups(strategy.role_order)
    rank = {role: index for index, group in enumerate(groups) for role in group}
    ordered = sorted(workers, key=lambda worker: (rank[worker.role], worker.id not in ours))
    canary = _canary(ordered, strategy.canary, ours)
    stretches = [] if canary is None else [canary]
    chosen = {worker.id for stretch in stretches for worker in stretch.workers()}
    for group in groups:
        members = [worker for worker in ordered if worker.role in group and worker.id not in chosen]
        if members:
            roles = dict.fromkeys(worker.role for worker in members)
            stretches.append(Stretch(" + ".join(roles), _why(group, members), tuple(into_waves(members, budget))))
    return tuple(stretches)


def role_groups(role_order: Iterable[Role | RoleGroup]) -> tuple[RoleGroup, ...]:
    """
    List the roles in the order in which they are rolled; those of one group side by side. Main is always alone and last.

    Roles that *role_order* leaves out follow in the homeserver's own order. A group waits for the turn of its least movable member.
    """
    wanted = [entry if isinstance(entry, tuple) else (entry,) for entry in role_order]
    named = {role for group in wanted for role in group}
    wanted += [(role,) for role in ROLE_ORDER if role not in named]
    groups = [group for entry in wanted if (group := tuple(role for role in entry if role != MAIN))]
    return (*sorted(groups, key=lambda group: max(_DUTY_RANK[duty_of(role)] for role in group)), (MAIN,))


def _canary(ordered: Sequence[Worker], wanted: WorkerId | None, ours: frozenset[WorkerId]) -> Stretch | None:
    """Choose the first worker; None when none was asked for and there is none whose work a sibling takes over."""
    replaceable = [worker for worker in ordered if worker.duty is Duty.REPLACEABLE]
    left_out = [worker for worker in replaceable if worker.id in ours]
    asked_for = [worker for worker in ordered if worker.id == wanted]
    if left_out:
        canary, why = left_out[0], "the first that is still out from an earlier rollout"
    elif asked_for:
        canary, why = asked_for[0], "as the playbook says"
    elif replaceable:
        canary, why = replaceable[0], "the first replaceable worker in role order"
        why += f" ({wanted}, which the playbook names, isn't rolled)" if wanted is not None else ""
    else:
        return None
    return Stretch(CANARY, f"{canary.id}, {why}", ((canary,),))


def _why(group: RoleGroup, members: Sequence[Worker]) -> str:
    if group == (MAIN,):
        return "last, when everybody else has shown the release to work"
    duties = {worker.duty for worker in members}
    if duties == {Duty.REPLACEABLE}:
        why = "a sibling takes over"
    elif duties == {Duty.SHARDED}:
        why = "its share can't be moved"
    elif duties == {Duty.SINGLETON}:
        why = "nobody takes over"
    else:
        why = "not everybody's work can be taken over"
    return f"{why}; side by side" if len({worker.role for worker in members}) > 1 else why
