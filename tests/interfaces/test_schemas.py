"""The committed JSON Schemas are those of the models."""

import json
from pathlib import Path

import pytest

from rollout.interfaces.cli.schema import KINDS, schema_of, schema_text
from tests.interfaces.homeserver import Homeserver

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_committed_is_what_is_generated(kind: str) -> None:
    """After a change of a model: `make schemas`."""
    assert (ROOT / f"rollout/schemas/{kind}.schema.json").read_text(encoding="utf-8") == schema_text(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_prints_it(kind: str, site: Homeserver) -> None:
    assert json.loads(site.run("schema", kind).output) == schema_of(kind)


def test_a_schema_refuses_what_check_refuses_without_the_other_file() -> None:
    """So that an editor says it first: roles that there are not, gates without a threshold, weights that are no percent."""
    role = schema_of("inventory")["$defs"]["WorkerEntry"]["properties"]["role"]
    assert "event_persister" in role["enum"]
    playbook = schema_of("playbook")["$defs"]
    sequential = {"properties": {"test": {"const": "sequential"}}, "required": ["test"]}
    assert playbook["GateEntry"]["anyOf"] == [{"required": ["ratio_max"]}, {"required": ["max"]}, sequential]
    assert playbook["GateEntry"]["properties"]["roles"]["items"]["enum"] == role["enum"]
    assert playbook["Ramp"]["properties"]["down"]["items"] == {"type": "integer", "minimum": 1, "maximum": 99}
    assert playbook["Strategy"]["properties"]["max_unavailable"]["additionalProperties"]["minimum"] == 1


def test_a_schema_refuses_unknown_keys_and_knows_every_one() -> None:
    playbook = schema_of("playbook")
    assert playbook["additionalProperties"] is False
    assert {"strategy", "gates", "guards", "recovery", "watch", "rollback"} <= set(playbook["properties"])
    assert {"hold", "warm", "ramp"} <= set(playbook["$defs"]["Strategy"]["properties"])
