"""What sudo has to allow, as lines for a file in /etc/sudoers.d (sudoers(5))."""

import re
from collections.abc import Sequence

from rollout.ports.privileges import Privileges

# In arguments these have a meaning of their own.
_SPECIAL = re.compile(r"([,:=\\])")
# … and these would be patterns, which match spaces and other units, too.
_PATTERN = re.compile(r"[*?\[\]!^$\"'\s]")


def sudoers_text(privileges: Sequence[Privileges]) -> str:
    """Write one file of rules for each host, with what to do with it. Raises ValueError for a command that can't be written exactly."""
    return "\n".join(_of_host(one) for one in privileges)


def _of_host(one: Privileges) -> str:
    head = f"# On host {one.host} ({one.reached}), as /etc/sudoers.d/rollout: exactly these commands, and no other argument."
    if one.user == "root":
        return f"{head}\n# {one.user} needs no rule.\n"
    how = "# Check it with `visudo -cf FILE`, then `install -m 440 FILE /etc/sudoers.d/rollout`."
    rules = [f"{one.user} ALL=(root) NOPASSWD: {_exactly(argv)}" for argv in dict.fromkeys(one.commands)]
    return "\n".join([head, how, *rules]) + "\n"


def _exactly(argv: Sequence[str]) -> str:
    if odd := [word for word in argv if _PATTERN.search(word)]:
        msg = f"sudoers would take {odd[0]!r} for a pattern"
        raise ValueError(msg)
    return " ".join(_SPECIAL.sub(r"\\\1", word) for word in argv)
