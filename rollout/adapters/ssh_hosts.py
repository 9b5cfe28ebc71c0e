"""How a host is reached over SSH, as it stands in the inventory. Nothing is imported here that connects."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from rollout.adapters.known_hosts import SSH_PORT
from rollout.adapters.problem import Problem
from rollout.adapters.secrecy import HIDDEN
from rollout.adapters.settings import FilePath, Settings, refused
from rollout.adapters.wording import shortened
from rollout.model.inventory import Inventory

# What OpenSSH looks at.
KNOWN_HOSTS = (Path("~/.ssh/known_hosts"), Path("/etc/ssh/ssh_known_hosts"))

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_ADDRESS = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]{0,254}")


def _is_user(user: str) -> str:
    if _NAME.fullmatch(user) is None:
        raise refused(f"user can't be {shortened(user)!r}", "the name of an account on the host, such as deploy")
    return user


def _is_address(address: str) -> str:
    if _ADDRESS.fullmatch(address) is None:
        # Before the @ there may be a password.
        shown = f"{HIDDEN}@{address.rpartition('@')[2]}" if "@" in address else address
        raise refused(f"address can't be {shortened(shown)!r}", "a name or an address alone; user and port have keys of their own")
    return address


class HostEntry(Settings):
    """
    One host. ~/.ssh/config is not read: what is used is what stands here.

    *identity_file*: the private key; absent, those in ~/.ssh and in the agent are tried. *known_hosts*: where its host key must stand; what
    OpenSSH reads if absent. *jump*: the name of another of the hosts, through which this one is reached.
    """

    address: Annotated[str, AfterValidator(_is_address)]
    user: Annotated[str, AfterValidator(_is_user)]
    port: int = Field(default=SSH_PORT, ge=1, le=65_535)
    identity_file: FilePath | None = None
    known_hosts: FilePath | None = None
    agent: bool = Field(default=True, description="try the keys of the SSH agent, too")
    jump: str | None = None

    def spelled(self) -> str:
        """Write it as people do."""
        return f"{self.user}@{self.address}" + ("" if self.port == SSH_PORT else f":{self.port}")

    def known_hosts_files(self) -> tuple[Path, ...]:
        return tuple(path.expanduser() for path in (KNOWN_HOSTS if self.known_hosts is None else (self.known_hosts,)))


def jumps_that_lead_nowhere(hosts: Mapping[str, HostEntry]) -> Iterator[Problem]:
    """Say what is wrong with the hosts' ways to one another."""
    for name, entry in hosts.items():
        passed = [name]
        jump = entry.jump
        while jump is not None:
            if jump not in hosts:
                yield Problem(("hosts", passed[-1], "jump"), f"there is no host {jump!r} to jump from", ", ".join(sorted(hosts)))
                break
            if jump in passed:
                yield Problem(("hosts", name, "jump"), f"host {name} is reached through itself", "a host that is reached directly")
                break
            passed.append(jump)
            jump = hosts[jump].jump


def hosts_of_others(inventory: Inventory) -> dict[str, HostEntry]:
    """Return the hosts that the inventory's drivers name, so that they needn't be written down twice. The first one counts."""
    found: dict[str, HostEntry] = {}
    for driver in (inventory.workers_driver, inventory.releases_driver, inventory.traffic_driver):
        entries = driver.settings().get("hosts")
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            try:
                found.setdefault(str(name), HostEntry.model_validate_json(json.dumps(entry, default=str), strict=True))
            except ValidationError:
                # Whose it is says so.
                continue
    return found
