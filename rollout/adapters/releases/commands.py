"""The user's own commands for releases, as the inventory has them: lists of words with placeholders, filled in word by word."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from rollout.adapters.problem import Problem
from rollout.adapters.releases.on_hosts.settings import HostsSettings
from rollout.adapters.remote_commands import Argv
from rollout.adapters.settings import refused
from rollout.adapters.wording import shortened

# What looks like a placeholder: `${Version}` of dpkg-query and `{{.Id}}` of docker don't.
_PLACEHOLDER = re.compile(r"(?<![${])\{([a-z_]+)\}")
# What each command may be told; whether a version is there must not be told by who says which one it is.
_KNOWN: Mapping[str, frozenset[str]] = {
    "version": frozenset({"worker"}),
    "available": frozenset({"version"}),
    "prepare": frozenset({"version", "worker", "config"}),
    "activate": frozenset({"version", "worker", "config"}),
    "deactivate": frozenset({"version", "worker", "config"}),
    "schema_facts": frozenset({"version"}),
    "migrate": frozenset({"version", "config"}),
}


def _is_command(argv: Argv) -> Argv:
    if not argv[0].strip() or argv[0].startswith("-"):
        raise refused(f"a command can't begin with {shortened(argv[0])!r}", "the program first, then each argument in quotes of its own")
    return argv


_Command = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_is_command)]


class CommandSettings(HostsSettings):
    """
    Commands are lists of words; there is no shell. *version* prints which release is installed, as Synapse itself says it. *activate* has
    the worker run {version} from its next start on, *deactivate* the same on the way back, if that is another command. *prepare* brings
    everything to the host. *available*: status 0 for a version that can be had. *schema_facts* prints the schema version, the oldest
    compatible one, and its deltas, of {version}, once it is prepared. *migrate* brings the database to it.
    """

    version: _Command
    activate: _Command
    deactivate: _Command | None = None
    prepare: _Command | None = None
    available: _Command | None = None
    schema_facts: _Command | None = None
    migrate: _Command | None = None
    room_bytes: int = Field(default=500_000_000, ge=0, description="what must be free at the target before a release is prepared")
    timeout_s: float = Field(default=120.0, gt=0, description="of version, available, activate and deactivate")

    def commands(self) -> dict[str, Argv]:
        """Return those that are there, by their keys."""
        return {key: argv for key in _KNOWN if (argv := getattr(self, key)) is not None}


def unknown_placeholders(settings: CommandSettings) -> Iterator[Problem]:
    """Find what nobody will fill in."""
    for key, argv in settings.commands().items():
        for index, word in enumerate(argv):
            for name in _PLACEHOLDER.findall(word):
                if name not in _KNOWN[key]:
                    known = ", ".join(f"{{{one}}}" for one in sorted(_KNOWN[key]))
                    yield Problem((key, index), f"{{{name}}} is nothing that `{key}` is told", known or "no placeholder")


def filled(argv: Argv, **values: str) -> Argv:
    """Put *values* in the place of placeholders; a value is never looked into for another."""
    return tuple(_PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), word) for word in argv)


def names(argv: Argv, placeholder: str) -> bool:
    """Tell whether a command is told that."""
    return any(placeholder in _PLACEHOLDER.findall(word) for word in argv)
