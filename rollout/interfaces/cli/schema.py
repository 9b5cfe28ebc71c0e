"""`schema`: what may stand in each file, for editors and other programs."""

import json
from typing import Any

import click
from pydantic import TypeAdapter

from rollout.homeservers.synapse.roles import ROLE_ORDER
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook

KINDS = {"inventory": Inventory, "playbook": Playbook, "plan": Plan}


def schema_of(kind: str) -> dict[str, Any]:
    """Generate the JSON Schema of a kind of file."""
    generated: dict[str, Any] = TypeAdapter(KINDS[kind]).json_schema()
    _tell_more(kind, generated)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"rollout {kind}", **generated}


def _tell_more(kind: str, schema: dict[str, Any]) -> None:
    """Add what the models can't say, and `rollout check` refuses: roles that there are not, gates without a threshold."""
    roles = {"enum": list(ROLE_ORDER)}
    if kind == "inventory":
        schema["$defs"]["WorkerEntry"]["properties"]["role"].update(roles)
    elif kind == "playbook":
        gate, ordered = schema["$defs"]["GateEntry"], schema["$defs"]["Strategy"]["properties"]["role_order"]["items"]["anyOf"]
        for role in (gate["properties"]["roles"]["items"], schema["properties"]["liveness_only"]["items"], ordered[0], ordered[1]["items"]):
            role.update(roles)
        sequential = {"properties": {"test": {"const": "sequential"}}, "required": ["test"]}
        gate["anyOf"] = [{"required": ["ratio_max"]}, {"required": ["max"]}, sequential]


def schema_text(kind: str) -> str:
    """Return it as it is committed in rollout/schemas/."""
    return json.dumps(schema_of(kind), indent=2, ensure_ascii=False) + "\n"


@click.command()
@click.argument("kind", type=click.Choice(list(KINDS)))
def schema(kind: str) -> int:
    """Print the JSON Schema of an inventory, a playbook or a saved plan."""
    click.echo(schema_text(kind), nl=False)
    return 0
