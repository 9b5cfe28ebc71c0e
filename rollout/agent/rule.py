"""May a worker that we took out be brought back, when nobody lives who would do it? One pure function, of the agent and of simulations."""

from dataclasses import dataclass

WAIT, ADMIT, PAGE = "wait", "admit", "page"


@dataclass(frozen=True, slots=True)
class Out:
    """
    A worker that is out by our hand, since *at_s*. *condemned* is the release that it must not be admitted on. *after_s* is how long the
    proxy itself may need to end what was begun (a hold), *has_way_back* whether anybody wrote down how to admit it.
    """

    at_s: float
    condemned: str | None
    after_s: float = 0.0
    has_way_back: bool = True


@dataclass(frozen=True, slots=True)
class Seen:
    """What its own listener answers (*why* if it isn't well), and the release that its link names; None when that can't be seen."""

    answers: bool
    why: str
    runs: str | None


@dataclass(frozen=True, slots=True)
class Ruling:
    """WAIT, ADMIT or PAGE; *state* is one word, so that each is told once, *why* a sentence for people."""

    do: str
    state: str
    why: str


def rule(out: Out, seen: Seen, now_s: float, alive_until_s: float, readmit_after_s: float) -> Ruling:
    """Rule on one worker. What can't be seen is never well; what is condemned is never admitted."""
    if now_s <= alive_until_s:
        return Ruling(WAIT, "alive", "somebody lives who looks after it")
    if now_s < out.at_s + max(readmit_after_s, out.after_s):
        return Ruling(WAIT, "young", "it has not been out for long enough")
    if out.condemned is not None and seen.runs is None:
        return Ruling(PAGE, "unseen", f"{out.condemned} was being taken back from it, and what it runs can't be seen")
    if out.condemned is not None and seen.runs == out.condemned:
        return Ruling(PAGE, "condemned", f"it runs {out.condemned}, which was being taken back")
    if not seen.answers:
        return Ruling(PAGE, "silent", f"it doesn't answer: {seen.why}")
    if not out.has_way_back:
        return Ruling(PAGE, "no_way_back", "nobody wrote down how to admit it")
    return Ruling(ADMIT, "well", "it answers, and nothing is known against what it runs")
