"""What an effect asks of a ledger, in the agent's words."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rollout.agent.book import Claim
from rollout.model.effect import NEXT, Effect
from rollout.model.plan import Verb
from rollout.model.sighting import DrainMark
from rollout.ports.acts import WayBack
from rollout.ports.ledger import brings_back


def claim_of(effect: Effect, way_back: WayBack | None = None) -> Claim:
    """Say what an effect asks of the ledger. Raises ValueError for one that is not on a worker."""
    if effect.worker is None:
        msg = "only effects on a worker are fenced"
        raise ValueError(msg)
    # One that is taken back keeps its mark, which then names what is condemned.
    takes_out = effect.verb in {Verb.DRAIN, Verb.HOLD}
    mark: dict[str, Any] = {"release": effect.release, "why": effect.why, "condemned": effect.condemned}
    if way_back is not None:
        mark["back"] = asdict(way_back)
    return Claim(
        worker=effect.worker,
        number=None if effect.number == NEXT else effect.number,
        token=effect.token,
        owner=effect.owner,
        mark=mark if takes_out else None,
        condemned=effect.condemned,
        clears=brings_back(effect),
        runs=effect.release if effect.verb is Verb.RESTART else None,
        what=f"{effect.verb} of {effect.worker} by {effect.owner or 'somebody'} ({effect.why})",
    )


def mark_of(mark: Mapping[str, Any]) -> DrainMark:
    return DrainMark(mark["number"], mark["release"], mark["why"], mark["at_s"], mark.get("condemned"))
