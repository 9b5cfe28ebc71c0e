"""How a long list is written in a sentence."""

from collections.abc import Sequence

# The first few say what it is.
LISTED_MAX = 5


def listed(names: Sequence[str], most: int = LISTED_MAX) -> str:
    """Write the first few of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
