"""What is said about what was read: marks on the inventory, and contradictions."""

from dataclasses import dataclass, field

from rollout.homeservers.synapse.deriving.sources import Place

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """
    Something of the inventory, at *at*, that the files don't say, or not for certain.

    *why* it isn't known, and where to *look* or what to do. *needed*: the inventory can't be used without it.
    """

    at: Path
    why: str
    look: str
    needed: bool = False


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What can't all be true, in one sentence."""

    what: str
    place: Place


@dataclass(slots=True)
class Findings:
    """What was found so far; whoever derives a part adds to it."""

    marks: list[Mark] = field(default_factory=list)
    contradictions: list[Contradiction] = field(default_factory=list)

    def missing(self, at: Path, why: str, look: str) -> None:
        """Mark what must be filled in."""
        self.marks.append(Mark(at, why, look, needed=True))

    def doubtful(self, at: Path, why: str, look: str) -> None:
        """Mark what has an answer that somebody should look at."""
        self.marks.append(Mark(at, why, look))

    def contradict(self, what: str, place: Place) -> None:
        """Say a contradiction, once."""
        found = Contradiction(what, place)
        if found not in self.contradictions:
            self.contradictions.append(found)
