"""
Each import contract holds, and each can fail.

A contract that nothing can break proves nothing: for every way in which one may be broken, a copy of the package gets a module with
one forbidden import, and exactly that contract must then be reported as broken.
"""

import re
import shutil
import subprocess
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = Path(sysconfig.get_path("scripts")) / "lint-imports"
CONTRACTS = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


@dataclass(frozen=True, slots=True)
class Plant:
    """The module *at* (a path in `rollout/`) holding *code* breaks *contract*."""

    contract: str
    at: str
    code: str

    def __str__(self) -> str:
        return f"{self.contract}: {self.code} in {self.at}"


PLANTS = (
    Plant("floors", "model/planted.py", "import rollout.deciding"),
    Plant("floors", "gating/planted.py", "import rollout.planning"),
    Plant("floors", "engine/planted.py", "import rollout.simulation"),
    Plant("floors", "a_package_on_no_floor/planted.py", "import math"),
    Plant("pure-core", "model/planted.py", "import time"),
    Plant("pure-core", "homeservers/planted.py", "from urllib.request import urlopen"),
    Plant("pure-core", "planning/planted.py", "from pathlib import Path"),
    Plant("pure-core", "gating/planted.py", "import random"),
    Plant("pure-core", "deciding/planted.py", "import threading"),
    Plant("agent", "agent/planted.py", "import rollout.model"),
    Plant("agent", "agent/planted.py", "import pydantic"),
    Plant("independent-adapters", "adapters/probe/planted.py", "import rollout.adapters.documents"),
    Plant("sqlalchemy", "engine/planted.py", "from sqlalchemy import select"),
    Plant("psycopg", "adapters/journal/planted.py", "import psycopg"),
    Plant("supervisor", "interfaces/planted.py", "from supervisor import xmlrpc"),
    Plant("prometheus-client", "adapters/probe/planted.py", "from prometheus_client import parser"),
    Plant("requests", "engine/planted.py", "import requests"),
    Plant("aiohttp", "adapters/probe/planted.py", "import aiohttp"),
    Plant("fabric", "adapters/workers/planted.py", "import fabric"),
    Plant("fabric", "interfaces/planted.py", "from paramiko import SSHClient"),
    Plant("shared", "adapters/kubernetes/planted.py", "import rollout.adapters.releases.commands"),
    Plant("kubernetes", "adapters/workers/planted.py", "import kubernetes"),
    Plant("kubernetes", "adapters/traffic/planted.py", "import websocket"),
)


def test_every_contract_has_a_way_to_break_it() -> None:
    assert {plant.contract for plant in PLANTS} == set(CONTRACTS)


def test_every_adapter_is_independent() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = next(contract["modules"] for contract in contracts if contract["id"] == "independent-adapters")
    shared = next(contract["source_modules"] for contract in contracts if contract["id"] == "shared")
    folders = (path.parent.name for path in (ROOT / "rollout/adapters").glob("*/__init__.py"))
    assert sorted([*named, *shared]) == sorted(f"rollout.adapters.{folder}" for folder in folders)


def test_contracts_hold() -> None:
    assert broken_contracts(ROOT) == set()


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_planted_import_breaks_its_contract_only(plant: Plant, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "rollout", tmp_path / "rollout", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    module = tmp_path / "rollout" / plant.at
    module.parent.mkdir(parents=True, exist_ok=True)
    (module.parent / "__init__.py").touch()
    module.write_text(f"{plant.code}\n")

    assert broken_contracts(tmp_path) == {plant.contract}


def broken_contracts(tree: Path) -> set[str]:
    """Return the ids of the contracts that the package in *tree* breaks. AssertionError if the linter ruled on fewer than all of them."""
    done = subprocess.run(
        [LINT_IMPORTS, "--no-cache", "--no-logo"], cwd=tree, capture_output=True, text=True, timeout=60, check=False, env={"COLUMNS": "400"}
    )
    ruled = dict(re.findall(r"^(.+) (KEPT|BROKEN)\b", done.stdout, re.MULTILINE))
    assert set(ruled) == set(CONTRACTS.values()), done.stdout + done.stderr
    broken = {contract_id for contract_id, name in CONTRACTS.items() if ruled[name] == "BROKEN"}
    assert done.returncode == (1 if broken else 0), done.stdout + done.stderr
    return broken
