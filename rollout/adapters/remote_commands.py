"""
Commands for another machine's shell, as data: lists of words until the very end, quoted in one place, several in one round trip.

The account's own shell may be any (fish, csh): it is only asked to start `sh`. Between the commands' outputs stand lines that begin with a
mark that nobody else knows, so that what a command prints is never taken for the end of it.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

Argv = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, to stdout and stderr, and its exit status."""

    status: int
    out: str

    @property
    def why(self) -> str:
        """Return its last lines, for an error."""
        return "\n".join(self.out.strip().splitlines()[-3:])


def as_root(argv: Argv, user: str) -> Argv:
    """Put sudo before it, which never asks for a password; root needs none."""
    return argv if user == "root" else ("sudo", "-n", "--", *argv)


def may_as_root(argv: Argv, user: str) -> Argv:
    """Ask sudo whether it would do so: status 0 if it would. Nothing is done."""
    return ("true",) if user == "root" else ("sudo", "-n", "-l", "--", *argv)


# $0: what shall be said; $1: the command that says it; $2: the command that makes it so, each of these two as one quoted line; $3: whether
# that is done in any case.
_SO_THAT = """
[ -z "$3" ] && said=$(eval "$1" 2>/dev/null) && [ "$said" = "$0" ] && exit 0
eval "$2" || exit
said=$(eval "$1") || { status=$?; echo "$said"; echo "what it is now can't be told"; exit "$status"; }
[ "$said" = "$0" ] && exit 0
echo "it is done, and now it says that it is $said, not $0"
exit 1
"""


def so_that(says: Argv, wanted: str, act: Argv, *, always: bool = False) -> Argv:
    """Do *act* unless *says* prints *wanted* already (*always*: even then), and fail unless it does afterwards."""
    return ("/bin/sh", "-c", _SO_THAT, wanted, shlex.join(says), shlex.join(act), "always" if always else "")


def script(commands: Sequence[Argv], mark: str, *, fed: bool = False) -> str:
    """Write *commands* as one line, each begun whatever became of the one before. If *fed*, the last reads what comes on stdin."""
    # Messages and dates are the same everywhere, and what a worker wrote stays UTF-8.
    steps = ["export LC_ALL=C.UTF-8", f"echo {mark}"]
    sources = [*[" </dev/null"] * (len(commands) - 1), "" if fed else " </dev/null"]
    steps += [f"{shlex.join(argv)} 2>&1{source}; printf '\\n%s %d\\n' {mark} $?" for argv, source in zip(commands, sources, strict=True)]
    return shlex.join(("exec", "sh", "-c", "; ".join(steps)))


def said_in(output: str, commands: int, mark: str) -> tuple[Said, ...] | None:
    """Take the answers of that many *commands* apart; None when the output is not whole."""
    # What stands before the first mark is the account's own greeting.
    _, found, rest = output.partition(f"{mark}\n")
    pieces = rest.split(f"\n{mark} ")
    if not found or len(pieces) != commands + 1:
        return None
    statuses = [piece.partition("\n")[0] for piece in pieces[1:]]
    if not all(status.isdecimal() for status in statuses):
        return None
    outputs = [pieces[0], *(piece.partition("\n")[2] for piece in pieces[1:-1])]
    return tuple(Said(int(status), out) for status, out in zip(statuses, outputs, strict=True))
