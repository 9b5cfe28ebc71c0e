"""
The command line.

__init__.py   the table of commands, and what every error ends in
options.py    options that several commands share
opening.py    files, drivers and journal, opened
selecting.py  what to roll to, from options to a plan
init.py       init
preview.py    check, plan
rolling.py    deploy, resume, abort, rollback
speaking.py   pause, continue, skip
desk.py       what both have in common
following.py  watching a rollout that another process runs
watching_on.py  handing the last watch to a process of its own
looking.py    status, why, history
keeping.py    where the journal is kept, and for how long
rescue.py     admit
preflight.py  preflight
measuring.py  observe, gate
rehearsing.py rehearse
completion.py completion
schema.py     schema
sudoers.py    sudoers
rbac.py       rbac
lab.py        lab, demo
logging.py    logs on stderr

Whoever types `rollout --help`, or mistypes a command, shall not wait for a database library: before the command is known nothing but
click is imported. A command's module is imported when it is called, and may then import what it needs like any other.
"""

import errno
import importlib
import os
import sys
from contextlib import suppress

import click

from rollout.model.errors import DriverError, RefusedError, RolloutError

# Name -> where it is, and what it does in a few words.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("rollout.interfaces.cli.init:init", "write an inventory from the configurations that are there"),
    "check": ("rollout.interfaces.cli.preview:check", "check inventory and playbook"),
    "preflight": ("rollout.interfaces.cli.preflight:preflight", "say whether a rollout could begin now"),
    "plan": ("rollout.interfaces.cli.preview:plan", "show what a rollout would do, and why"),
    "deploy": ("rollout.interfaces.cli.rolling:deploy", "roll a release, a configuration or a restart out"),
    "status": ("rollout.interfaces.cli.looking:status", "show what runs, and the rollout under way"),
    "why": ("rollout.interfaces.cli.looking:why", "say why a rollout waits, or why it stopped"),
    "resume": ("rollout.interfaces.cli.rolling:resume", "take a rollout up again"),
    "pause": ("rollout.interfaces.cli.speaking:pause", "stop once the worker that is out is back and well"),
    "continue": ("rollout.interfaces.cli.speaking:go_on", "end a pause"),
    "skip": ("rollout.interfaces.cli.speaking:skip", "leave a worker as it is, and go on without it"),
    "abort": ("rollout.interfaces.cli.rolling:abort", "bring back what is out, and end the rollout"),
    "rollback": ("rollout.interfaces.cli.rolling:rollback", "take workers back to what they ran before"),
    "history": ("rollout.interfaces.cli.looking:history", "list rollouts, newest first"),
    "admit": ("rollout.interfaces.cli.rescue:admit", "break-glass: admit what we took out, with nothing but proxy and ledger"),
    "observe": ("rollout.interfaces.cli.measuring:observe", "keep a baseline for the next rollout"),
    "gate": ("rollout.interfaces.cli.measuring:gate", "rule on workers as they run now"),
    "rehearse": ("rollout.interfaces.cli.rehearsing:rehearse", "rehearse a rollout many times, with everything that can go wrong"),
    "completion": ("rollout.interfaces.cli.completion:completion", "print the completion script of a shell"),
    "schema": ("rollout.interfaces.cli.schema:schema", "print the JSON Schema of inventory, playbook or plan"),
    "sudoers": ("rollout.interfaces.cli.sudoers:sudoers", "print the sudo rules that rollout needs on hosts"),
    "rbac": ("rollout.interfaces.cli.rbac:rbac", "print the Role that rollout needs in a Kubernetes namespace"),
    "lab": ("rollout.interfaces.cli.lab:lab", "a real Synapse worker cluster on this machine"),
    "demo": ("rollout.interfaces.cli.lab:demo", "roll the lab to a new release under load"),
}

OUR_BUG = 1
INTERRUPTED = 130
# What writing to a full disk or a closed descriptor says; no file of ours is named then.
CANNOT_BE_WRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF})


class Commands(click.Group):
    """Imports a command when it is called, and turns every error into its text and exit code (docs/exit-codes.md)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order in which people meet them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> None:
        """Run a command, which returns its exit code."""
        ctx.exit(self._code(ctx))

    def _code(self, ctx: click.Context) -> int:
        try:
            return int(super().invoke(ctx) or 0)
        except RolloutError as error:
            click.echo(f"rollout: {error}", err=True)
            # A driver that fails outside a rollout has kept us from beginning: nothing was touched.
            return RefusedError.exit_code if isinstance(error, DriverError) else error.exit_code
        except (KeyboardInterrupt, click.Abort):
            click.echo("\nrollout: interrupted", err=True)
            return INTERRUPTED
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            # click says these itself: wrong usage, an early end, and a reader of our output that has gone.
            raise
        except OSError as error:
            if error.errno not in CANNOT_BE_WRITTEN or error.filename is not None:
                _own_up(error)
            else:
                _let_go_of_output()
                click.echo(f"rollout: the output can't be written: {(error.strerror or '').lower()}", err=True)
            return OUR_BUG
        except Exception as error:  # noqa: BLE001  (the last place at which anything can be said)
            _own_up(error)
            return OUR_BUG


def _let_go_of_output() -> None:
    """What is left of it would be tried once more at the end, and fail again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _own_up(error: Exception) -> None:
    from rollout.interfaces.cli.logging import log

    log().exception("bug", error=type(error).__name__)
    click.echo(
        f"rollout: this is our bug ({type(error).__name__}), not yours; the log above says where it is\n"
        "    if a rollout was under way: `rollout status` shows what is, `rollout resume` goes on,\n"
        "    and `rollout admit --all --mine` brings back what we took out of traffic",
        err=True,
    )


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="homeserver-rollout", prog_name="rollout")
def cli() -> None:
    """Take a Matrix homeserver to a new release, one worker at a time, without its users noticing."""


def main() -> None:
    """Run the command line."""
    cli(prog_name="rollout")
