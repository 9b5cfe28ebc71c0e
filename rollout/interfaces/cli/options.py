"""Options that several commands share, and their environment variables."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rollout.interfaces.cli.completion import complete_rollout

_Function = Callable[..., Any]

FILE = click.Path(dir_okay=False, path_type=Path)
# One that is read: whoever reads it says what is wrong with it, and what to do.
READ = click.Path(path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)
_PASSWORD = re.compile(r"[\w+.-]+://[^/@]*:[^/]+@|.*[?&]password=", re.IGNORECASE)
LEVELS = ("debug", "info", "warning", "error")


def inventory_option(function: _Function) -> _Function:
    """`-i`: what the homeserver consists of; and `--log-level`, which goes with everything that looks at one."""
    option = click.option(
        "-i", "--inventory", "inventory_path", type=READ, envvar="ROLLOUT_INVENTORY", show_envvar=True, required=True,
        help="what the homeserver consists of",
    )  # fmt: skip
    return option(log_level_option(function))


def log_level_option(function: _Function) -> _Function:
    """`--log-level`: set the logs up before the command runs."""
    option = click.option(
        "--log-level", type=click.Choice(LEVELS), default="warning", envvar="ROLLOUT_LOG_LEVEL", show_envvar=True, show_default=True,
        expose_value=False, callback=_set_logs_up, help="logs go to stderr, as JSON when that is not a terminal",
    )  # fmt: skip
    return option(function)


def _set_logs_up(_context: click.Context, _parameter: click.Parameter, level: str) -> None:
    from rollout.interfaces.cli.logging import configure

    configure(level)


def playbook_option(function: _Function) -> _Function:
    """`-p`: how to roll. Which commands can do without one is theirs to say."""
    option = click.option(
        "-p", "--playbook", "playbook_path", type=READ, envvar="ROLLOUT_PLAYBOOK", show_envvar=True,
        help="order, limits, gates and guards of a rollout",
    )  # fmt: skip
    return option(function)


def journal_option(function: _Function) -> _Function:
    """`--journal`: where rollouts are written down."""
    option = click.option(
        "--journal", "journal_place", metavar="PATH-or-URL", envvar="ROLLOUT_JOURNAL", show_envvar=True, callback=_without_password,
        help="where rollouts are written down: a file, postgresql://USER@HOST/DATABASE, or env:NAME or file:PATH that holds the URL"
        "  [default: journal.db in the user's state directory]",
    )  # fmt: skip
    return option(function)


def _without_password(context: click.Context, parameter: click.Parameter, place: str | None) -> str | None:
    """Who lists the processes of this machine sees their arguments; their environment is their own."""
    given = context.get_parameter_source(parameter.name or "")
    if place is not None and given is ParameterSource.COMMANDLINE and _PASSWORD.match(place):
        raise click.BadParameter(
            "everybody on this machine can read a password there; put the URL into the environment (ROLLOUT_JOURNAL, or env:NAME) "
            "or into a file (file:PATH)",
            context,
            parameter,
        )
    return place


def rollout_argument(function: _Function) -> _Function:
    """`[ROLLOUT]`: which one, the newest if absent."""
    return click.argument("deploy_id", required=False, metavar="[ROLLOUT]", shell_complete=complete_rollout)(function)


def take_over_option(function: _Function) -> _Function:
    """`--take-over`: whoever holds the lease."""
    return click.option("--take-over", is_flag=True, help="take the homeserver's lease from whoever holds it: they stop at once")(function)


def accept_version_option(function: _Function) -> _Function:
    """`--accept-version`: take over what other decision code has begun."""
    option = click.option(
        "--accept-version", type=click.IntRange(min=1), metavar="NUMBER",
        help="the version of the decision code that wrote the journal, to take over from it; the refusal names it",
    )  # fmt: skip
    return option(function)


def events_option(function: _Function) -> _Function:
    """`--events`: the journal, as it grows."""
    option = click.option(
        "--events", type=click.Choice(["ndjson"]), help="write every event of the journal to stdout; text for people then goes to stderr"
    )
    return option(function)


def ignore_windows_option(function: _Function) -> _Function:
    """`--ignore-windows`: for emergencies."""
    return click.option(
        "--ignore-windows", is_flag=True, help="for emergencies: at any hour, whatever the playbook's windows say (it is written down)"
    )(function)


def watch_option(function: _Function) -> _Function:
    """`--watch`: who goes on with the last watch."""
    option = click.option(
        "--watch", "watched", type=click.Choice(["attached", "detached"]), default="attached", show_default=True,
        help="detached: end with 8 once every worker has passed, while a process of its own watches on",
    )  # fmt: skip
    return option(function)


def json_option(function: _Function) -> _Function:
    """`--json`: for programs."""
    return click.option("--json", "as_json", is_flag=True, help="for programs")(function)


def no_way_back_option(function: _Function) -> _Function:
    """`--accept-no-way-back`: consent that `--yes` doesn't give."""
    return click.option("--accept-no-way-back", is_flag=True, help="go on where after the migration there is only forward")(function)


def need_playbook(path: Path | None) -> Path:
    """Return it. Raises UsageError when none was given."""
    if path is None:
        raise click.UsageError("a playbook is needed: --playbook FILE, or ROLLOUT_PLAYBOOK")
    return path
