"""
The ledger as a ConfigMap, compared and set by its resourceVersion; what is in it, and what is compared, is the agent's (agent/book.py).

There is no agent in a cluster, and none is needed: an act carries what it was written for, read before its number is compared here. Who
is stopped in between, and woken after somebody else has acted, is refused by what it carries (docs/decisions/0017-kubernetes.md).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import uniform
from time import sleep  # noqa: TID251  (others who write at the same moment are given theirs)
from typing import TypeVar

from pydantic import Field

from rollout.adapters.faults import translated
from rollout.adapters.kubernetes import acts
from rollout.adapters.kubernetes.access import ClusterSettings, read_settings
from rollout.adapters.kubernetes.cluster import PATIENCE_S, ConflictError, Object
from rollout.adapters.kubernetes.grants import not_granted
from rollout.adapters.kubernetes.kinds import CONFIG_MAPS
from rollout.adapters.kubernetes.looking import looking
from rollout.adapters.ledger.claims import claim_of, mark_of
from rollout.agent.book import Claim, Content, begun, check_token, ended, understood
from rollout.model.effect import Effect
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.sighting import DrainMark
from rollout.ports.acts import Work
from rollout.ports.privileges import Grant

WHERE = "ledger_driver"
ENTRY = "ledger.json"
ASK_S = 5.0
LOOK_S = 2.0
# Whoever else writes does so once each few seconds.
TRIES_MAX = 20
PAUSE_S = 0.05

_Answer = TypeVar("_Answer")


class LedgerSettings(ClusterSettings):
    """*name*: the ConfigMap. For the others see access.ClusterSettings."""

    name: str = Field(default="rollout-ledger", min_length=1)


def build(settings: Mapping[str, object], inventory: Inventory) -> "KubernetesLedger":
    """Open the driver; nothing is connected yet."""
    return KubernetesLedger(read_settings(LedgerSettings, settings, inventory, WHERE))


class KubernetesLedger:
    """See ports.ledger. For use by several threads."""

    def __init__(self, settings: LedgerSettings) -> None:
        self._name = settings.name
        self._namespace = settings.namespace
        self._looking = looking(settings)
        self._cluster = self._looking.cluster

    @property
    def _where(self) -> str:
        return f"ConfigMap {self._name} in {self._cluster.where}"

    def perform(self, effect: Effect, work: Work) -> None:
        """See ports.ledger. What is no act on the cluster is done in this process, which is weaker: see `fence`."""
        with self.fence(effect):
            if work.acts is not None and acts.are_ours(work.acts):
                acts.run(self._cluster, work.acts)
            else:
                work.here()

    @contextmanager
    def fence(self, effect: Effect) -> Iterator[None]:
        """
        See ports.ledger. Nobody is kept out while the act inside runs: who has a higher number or token may act meanwhile.

        An act that carries preconditions is refused then; one that doesn't is done, in this process, whenever it is woken.
        """
        claim = claim_of(effect)
        token, number = self._changing(lambda content: begun(content, claim), PATIENCE_S)
        yield
        if claim.clears or claim.runs is not None:
            self._end(claim, token, number)

    def guard(self, homeserver: str) -> None:
        """See ports.ledger. There is nobody but new pods, which come in by themselves; whether the ledger can be written is seen."""
        del homeserver
        self._changing(lambda _: None)

    def marks(self) -> dict[WorkerId, DrainMark]:
        """See ports.ledger."""
        return {WorkerId(worker): mark_of(mark) for worker, mark in self._seen().marks.items()}

    def last_number(self) -> EffectNumber:
        """See ports.ledger."""
        return EffectNumber(max(self._seen().numbers.values(), default=0))

    def take(self, token: int, owner: str = "") -> None:
        """See ports.ledger."""

        def taken(content: Content) -> None:
            check_token(content, token, f"token {token}", self._where)
            if token > content.token or owner:
                content.token, content.taken_by = token, owner

        self._changing(taken)

    def token(self) -> int:
        """See ports.ledger."""
        return self._seen().token

    def beat(self, token: int, alive_until_s: float) -> None:
        """See ports.ledger."""

        def beaten(content: Content) -> None:
            check_token(content, token, f"the holder of token {token}", self._where)
            content.token, content.alive_until_s = token, alive_until_s

        self._changing(beaten)

    def grants(self) -> tuple[Grant, ...]:
        """See ports.privileges."""
        return (
            Grant(self._namespace, "", "configmaps", ("create",)),
            Grant(self._namespace, "", "configmaps", ("get", "update"), (self._name,)),
        )

    def not_granted(self, timeout_s: float, *, thorough: bool) -> tuple[str, ...]:
        """See ports.privileges."""
        return not_granted(self._looking, self.grants(), timeout_s, thorough=thorough)

    def _end(self, claim: Claim, token: int, number: int) -> None:
        try:
            self._changing(lambda content: ended(content, claim, token, number), PATIENCE_S)
        except (TransientDriverError, PermanentDriverError) as error:
            what = "it was done, and the ledger could not be told"
            raise OutcomeUnknownError(what, where=claim.worker, why=f"{error.where}: {error.what}") from error

    def _seen(self) -> Content:
        return self._content(self._looking.get(CONFIG_MAPS, self._name, LOOK_S))

    def _changing(self, change: Callable[[Content], _Answer], timeout_s: float = ASK_S) -> _Answer:
        """
        Read, change and write in one go: again when somebody else has written in between, or when nobody knows whether we have.

        A change that was written is made once more then, and must mean the same: what a number's owner does again is accepted.
        """
        failed: Exception | None = None
        for _ in range(TRIES_MAX):
            found = self._cluster.get(CONFIG_MAPS, self._name, timeout_s)
            content = self._content(found)
            with translated():
                answer = change(content)
            try:
                self._write(found, content, timeout_s)
            except (ConflictError, OutcomeUnknownError) as error:
                failed = error
                sleep(uniform(0.0, PAUSE_S))  # noqa: S311  (so that two who collide don't again)
            else:
                return answer
        raise TransientDriverError("the ledger can't be written", where=self._where, why=str(failed))

    def _write(self, found: Object | None, content: Content, timeout_s: float) -> None:
        data = {ENTRY: json.dumps({name: getattr(content, name) for name in Content.__slots__}, indent=1)}
        if found is None:
            self._cluster.create(CONFIG_MAPS, {"metadata": {"name": self._name}, "data": data}, timeout_s)
        else:
            # Also what is there already: so it is seen whether we may, and that nobody has written since.
            self._cluster.replace(CONFIG_MAPS, {**found, "data": {**(found.get("data") or {}), **data}}, timeout_s)

    def _content(self, found: Object | None) -> Content:
        if found is None:
            return Content()
        try:
            return understood(json.loads(found["data"][ENTRY]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            remedy = "look which pods have rollout.internal/admitted=false, admit what is yours by hand, then delete the ConfigMap"
            raise PermanentDriverError("the ledger is not one", where=self._where, why=type(error).__name__, remedy=remedy) from error
