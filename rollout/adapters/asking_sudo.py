"""Whether sudo would allow what drivers do as root on hosts: asked beforehand, of all at once, and nothing is done."""

from collections.abc import Callable, Sequence
from functools import partial

from rollout.adapters.places import Place
from rollout.adapters.remote_commands import may_as_root
from rollout.adapters.side_by_side import ask_all
from rollout.ports.privileges import Privileges


def not_allowed(privileges: Sequence[Privileges], at: Callable[[str], Place], timeout_s: float) -> tuple[str, ...]:
    """
    Return a sentence for each command that sudo would not let be run; *at* finds a host by its name.

    One round trip to each host, side by side. Raises DriverError when one can't be asked.
    """
    return tuple(line for lines in ask_all({one.host: partial(_ask, one, at, timeout_s) for one in privileges}).values() for line in lines)


def _ask(one: Privileges, at: Callable[[str], Place], timeout_s: float) -> tuple[str, ...]:
    told = at(one.host).run(tuple(may_as_root(argv, one.user) for argv in one.commands), timeout_s, changes=False)
    refused = (argv for argv, said in zip(one.commands, told, strict=True) if said.status != 0)
    return tuple(f"sudo does not let {one.user} run `{' '.join(argv)}` on host {one.host}" for argv in refused)
