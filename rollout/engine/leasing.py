"""
Holding the homeserver's lease while a rollout is under way.

A thread renews it three times while it is valid, and tells the ledger at the target that somebody is there. What it learns that matters
becomes an event: that the lease is lost, and that it is held again. Renewals are none.

Whether the lease is still valid is judged here by seconds gone by on this machine since the last renewal was *asked for*: a process that
was stopped for an hour knows when it is woken that it holds nothing any more, before anybody has told it.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rollout.model.effect import Effect
from rollout.model.errors import DriverError, TakenOverError
from rollout.model.event import EffectFailed, LeaseLost, LeaseRegained
from rollout.ports.clock import Clock
from rollout.ports.lease import Claim, Lease, LeaseKeeper
from rollout.ports.ledger import Ledger

# A lease is renewed so often while it is valid, so that two renewals may fail.
RENEWALS = 3
# One that failed is tried again so often.
ATTEMPTS = 30
TIMEOUT_MAX_S = 5.0
# Whoever has not been heard of at the target for so long does not live: then somebody else brings back what is ours.
ALIVE_FOR_S = 30.0
# The loop says that it lives about twice a second. One that hangs for so long must not keep others from taking over.
SILENT_S = 60.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of a renewal that was asked for then: it was *taken* by somebody, or could not be done; empty where it could."""

    asked_at_s: float
    taken: str = ""
    unrenewed: str = ""


class Tenure:
    """The lease of one homeserver, held. Use as a context manager: it is renewed until it is left, and then given back."""

    def __init__(self, keeper: LeaseKeeper, ledger: Ledger, clock: Clock, lease: Lease, since_s: float) -> None:
        self._keeper = keeper
        self._ledger = ledger
        self._clock = clock
        self._until_s = since_s + lease.ttl_s
        self._lost = False
        self._taken = False
        self._failed = False
        self._heard_at_s: float | None = None
        self._tell: Callable[[LeaseLost | LeaseRegained], object] | None = None
        self._untold: list[LeaseLost | LeaseRegained] = []
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_again_and_again, daemon=True)
        self.lease = lease

    def __enter__(self) -> Self:
        """Begin to renew."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give it back; where that can't be done it runs out by itself."""
        self._ended.set()
        self._thread.join(2 * TIMEOUT_MAX_S)
        self.release()

    @property
    def pause_s(self) -> float:
        """How long to wait until the next renewal."""
        return self.lease.ttl_s / (ATTEMPTS if self._failed else RENEWALS)

    def holds(self) -> bool:
        """Tell whether the lease is ours for certain."""
        return not self._taken and self._clock.elapsed_s() < self._until_s

    def is_taken(self) -> bool:
        """Tell whether somebody else has taken it."""
        return self._taken

    def listen(self, tell: Callable[[LeaseLost | LeaseRegained], object]) -> None:
        """Tell what has been learnt so far, and from now on."""
        with self._guard:
            for event in self._untold:
                tell(event)
            self._untold.clear()
            self._tell = tell

    def lives(self) -> None:
        """Hear from the loop that it goes on; once it has been heard, only while it is heard the lease is renewed."""
        self._heard_at_s = self._clock.elapsed_s()

    def beat(self) -> LeaseLost | LeaseRegained | None:
        """Renew once; return what has changed by that, if anything has."""
        return self._learn(self._ask())

    def refuse(self, effect: Effect) -> EffectFailed | None:
        """Refuse to take anybody out without the lease; None where nothing forbids the effect."""
        if not effect.takes_out or self.holds():
            return None
        # The next renewal is news then, though nobody was told of the loss.
        self._lost = True
        return EffectFailed(self._clock.now_s(), effect.number, "the lease had run out", permanent=False, unheld=True)

    def refuses(self, effect: Effect, tell: Callable[[EffectFailed], object]) -> bool:
        """Tell of a refusal, if it is one, in order with what else is told of the lease."""
        with self._guard:
            refusal = self.refuse(effect)
            if refusal is not None:
                tell(refusal)
        return refusal is not None

    def _ask(self) -> _Answer:
        """Renew at the place where the lease is kept; no lock of ours is held for as long as that takes."""
        asked_at_s = self._clock.elapsed_s()
        if self._taken or (self._heard_at_s is not None and asked_at_s - self._heard_at_s > SILENT_S):
            return _Answer(asked_at_s, unrenewed="the rollout's own loop hangs")
        taken = self._beat_ledger()
        try:
            self._keeper.renew(self.lease.token, min(TIMEOUT_MAX_S, self.lease.ttl_s / RENEWALS))
        except TakenOverError as error:
            return _Answer(asked_at_s, taken=error.why or error.what)
        except DriverError as error:
            return _Answer(asked_at_s, taken=taken, unrenewed=error.what + (f" ({error.why})" if error.why else ""))
        except Exception as error:  # noqa: BLE001  (a driver's bug must not end the thread: nobody would learn that nothing is renewed)
            return _Answer(asked_at_s, taken=taken, unrenewed=f"{type(error).__name__}: {error}")
        return _Answer(asked_at_s, taken=taken)

    def _learn(self, answer: _Answer) -> LeaseLost | LeaseRegained | None:
        """Say what an answer changes. One that was not renewed is good for as long as it was renewed for; that it is lost is said once."""
        now_s, was_lost = self._clock.now_s(), self._lost
        self._failed = bool(answer.unrenewed)
        if self._taken:
            return None
        if answer.taken:
            self._taken = self._lost = True
            return LeaseLost(now_s, answer.taken, taken_over=True)
        if answer.unrenewed:
            self._lost = was_lost or not self.holds()
            why = f"it could not be renewed for {self.lease.ttl_s:g} s: {answer.unrenewed}"
            return LeaseLost(now_s, why, taken_over=False) if self._lost and not was_lost else None
        self._until_s, self._lost = answer.asked_at_s + self.lease.ttl_s, False
        return LeaseRegained(now_s) if was_lost else None

    def release(self) -> None:
        """Give it back, if it is ours and can be reached. From now on whatever is still out has nobody here."""
        if self._taken:
            return
        with suppress(DriverError):
            self._ledger.beat(self.lease.token, self._clock.now_s())
        with suppress(DriverError):
            self._keeper.release(self.lease.token, TIMEOUT_MAX_S)

    def _beat_ledger(self) -> str:
        """Say at the target that somebody is there, whether or not the lease can be renewed; return who has taken over by what is there."""
        try:
            self._ledger.beat(self.lease.token, self._clock.now_s() + max(ALIVE_FOR_S, self.lease.ttl_s))
        except TakenOverError as error:
            return f"{error.what}: {error.why}"
        except DriverError:
            return ""
        return ""

    def _renew_again_and_again(self) -> None:
        while not self._ended.wait(self.pause_s):
            answer = self._ask()
            with self._guard:
                event = self._learn(answer)
                if event is None:
                    continue
                if self._tell is None:
                    self._untold.append(event)
                else:
                    self._tell(event)


def acquire(keeper: LeaseKeeper, ledger: Ledger, clock: Clock, claim: Claim, *, take_over: bool) -> Tenure:
    """
    Take the lease, and let the target know its token.

    Raises LeaseHeldError when somebody else holds it and *take_over* is not said; DriverError when that can't be found out.
    """
    since_s = clock.elapsed_s()
    lease = keeper.acquire(claim, TIMEOUT_MAX_S, above=ledger.token(), take_over=take_over)
    tenure = Tenure(keeper, ledger, clock, lease, since_s)
    try:
        ledger.take(lease.token, claim.holder)
        ledger.beat(lease.token, clock.now_s() + ALIVE_FOR_S)
    except DriverError:
        tenure.release()
        raise
    return tenure
