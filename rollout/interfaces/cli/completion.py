"""`completion`: what a shell needs to complete commands, options and names."""

import os
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "rollout"
VARIABLE = "_ROLLOUT_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """
    Print the completion script of a shell.

    bash: `source <(rollout completion bash)` in ~/.bashrc; zsh: the same in ~/.zshrc, after compinit; fish: `rollout completion fish >
    ~/.config/fish/completions/rollout.fish`.
    """
    from rollout.interfaces.cli import cli

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"nothing is known of {shell}")
    click.echo(found(cli, {}, PROGRAM, VARIABLE).source())
    return 0


def complete_worker(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a worker's name, if an inventory was named."""
    return _matching(_workers(context), incomplete)


def complete_worker_or_file(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a worker's name, or a path where none begins like that."""
    return complete_worker(context, parameter, incomplete) or [CompletionItem(incomplete, type="file")]


def complete_rollout(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a rollout, newest first, if an inventory was named."""
    return _matching(_rollouts(context), incomplete)


def complete_version(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a version that has a recorded lock."""
    return _matching(_versions(context), incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _inventory(context: click.Context) -> Path | None:
    named = context.params.get("inventory_path") or os.environ.get("ROLLOUT_INVENTORY")
    return None if named is None else Path(named)


def _workers(context: click.Context) -> list[str]:
    # Somebody who presses a key wants a name or nothing; what is wrong with a file is for `rollout check` to say.
    try:
        from rollout.adapters.documents.read import read_inventory

        path = _inventory(context)
        return [] if path is None else [str(worker) for worker in read_inventory(path).workers]
    except Exception:  # noqa: BLE001  (as above)
        return []


def _rollouts(context: click.Context) -> list[str]:
    try:
        from rollout.adapters.documents.read import read_inventory
        from rollout.adapters.journal.sql import open_journal

        path = _inventory(context)
        if path is None:
            return []
        journal = open_journal(context.params.get("journal_place") or os.environ.get("ROLLOUT_JOURNAL"))
        return [str(line.deploy_id) for line in journal.deploys(read_inventory(path).homeserver, 20)]
    except Exception:  # noqa: BLE001  (as above)
        return []


def _versions(context: click.Context) -> list[str]:
    try:
        from rollout.adapters.documents.read import read_inventory

        path = _inventory(context)
        locks = None if path is None else read_inventory(path).releases_driver.settings().get("locks")
        return [] if locks is None else sorted(lock.stem for lock in Path(str(locks)).glob("*.txt"))
    except Exception:  # noqa: BLE001  (as above)
        return []
