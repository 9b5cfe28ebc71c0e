"""`schema`: what may stand in each file, for editors and other programs."""

import json
from typing import Any

import click
from pydantic import TypeAdapter

from rollout.model.inventory import Inventory
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook

KINDS = {"inventory": Inventory, "playbook": Playbook, "plan": Plan}


def schema_of(kind: str) -> dict[str, Any]:
    """Generate the JSON Schema of a kind of file."""
    generated: dict[str, Any] = TypeAdapter(KINDS[kind]).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"rollout {kind}", **generated}


def schema_text(kind: str) -> str:
    """Return it as it is committed in rollout/schemas/."""
    return json.dumps(schema_of(kind), indent=2, ensure_ascii=False) + "\n"


@click.command()
@click.argument("kind", type=click.Choice(list(KINDS)))
def schema(kind: str) -> int:
    """Print the JSON Schema of an inventory, a playbook or a saved plan."""
    click.echo(schema_text(kind), nl=False)
    return 0
