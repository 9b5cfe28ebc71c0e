"""
The loop: decide, record, perform, until the end.

The journal is the state. Every event is durable before anything follows from it: an intent before its act, an outcome before the next
decision. Nothing here chooses; nothing here acts but through the performer.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import assert_never

from rollout.deciding import buying
from rollout.deciding.decide import decide, focus, is_eager
from rollout.deciding.decision import Finish, Note, Perform, WaitUntil
from rollout.deciding.fold import fold
from rollout.deciding.state import DeployState
from rollout.engine.perform import Performer
from rollout.model.errors import JournalTakenError
from rollout.model.event import DeployFinished, EffectIntended, Event, LeaseLost, OperatorSpoke, Outcome
from rollout.model.ids import DeployId
from rollout.model.plan import Plan
from rollout.ports.clock import Clock
from rollout.ports.journal import Journal

# A person's word and a signal are heeded at least this often.
HEED_EVERY_S = 0.5
# A decision to wait until a moment that has come already would turn this loop into a busy one.
WAIT_MIN_S = 0.02

Listener = Callable[[Event, DeployState], None]


class Loop:
    """One rollout under way: its state, its journal and its listeners (which are told of each event once it is durable)."""

    def __init__(
        self, deploy_id: DeployId, plan: Plan, state: DeployState, journal: Journal, clock: Clock, listeners: Sequence[Listener] = ()
    ) -> None:
        self._deploy_id = deploy_id
        self._journal = journal
        self._clock = clock
        self._listeners = listeners
        self.plan = plan
        self.state = state

    def record(self, events: Sequence[Event]) -> None:
        """
        Make events durable, in one transaction, then take them into the state.

        Raises JournalTakenError when somebody else has written into this rollout's journal.
        """
        if not events:
            return
        self._journal.append(self._deploy_id, events, after=self.state.lines)
        self.admit(events)

    def admit(self, events: Sequence[Event]) -> None:
        """Take events that are durable already into the state, and tell the listeners."""
        for event in events:
            self.state = fold(self.plan, self.state, event)
            for listener in self._listeners:
                listener(event, self.state)

    def run(self, performer: Performer, heed: Callable[[], Sequence[OperatorSpoke]], heed_every_s: float = HEED_EVERY_S) -> DeployState:
        """
        Go on until the rollout finishes or stops. *heed*, called every *heed_every_s*, returns what was asked of it since the last time.

        Somebody else who writes into its journal runs it now: then this loop ends without another word in there.
        """
        try:
            return self._run(performer, heed, heed_every_s)
        except JournalTakenError as error:
            now_s = max(self._clock.now_s(), self.state.last_at_s)
            self.admit((LeaseLost(now_s, error.what, taken_over=True),))
            left = decide(self.plan, self.state, now_s)
            why, drained = (left.why, left.drained) if isinstance(left, Finish) else (error.what, ())
            self.admit((DeployFinished(now_s, Outcome.INTERRUPTED, why, drained),))
            return self.state

    def _run(self, performer: Performer, heed: Callable[[], Sequence[OperatorSpoke]], heed_every_s: float) -> DeployState:
        while True:
            self.record([_not_before(event, self.state.last_at_s) for event in heed()])
            # Time never runs backwards, whatever the clock does.
            now_s = max(self._clock.now_s(), self.state.last_at_s)
            decision = decide(self.plan, self.state, now_s)
            match decision:
                case Finish():
                    self.record((DeployFinished(now_s, decision.outcome, decision.why, decision.drained),))
                    return self.state
                case Note():
                    self.record((decision.event,))
                case Perform():
                    effect = replace(decision.effect, owner=self._deploy_id)
                    self.record((EffectIntended(now_s, effect),))
                    performer.submit(effect)
                case WaitUntil():
                    asked = buying.asked(self.plan, self.state)
                    performer.attend(focus(self.plan, self.state), eager=is_eager(self.plan, self.state), asked=asked)
                    until_s = max(now_s + WAIT_MIN_S, min(decision.at_s, now_s + heed_every_s))
                    self.record([_not_before(event, self.state.last_at_s) for event in performer.collect(until_s)])
                case _:
                    assert_never(decision)


def _not_before(event: Event, at_s: float) -> Event:
    return event if event.at_s >= at_s else replace(event, at_s=at_s)
