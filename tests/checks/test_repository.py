"""The repository's own rules: what may stand in a file, what lies where, what the lock says."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TRACKED = (
    subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    .stdout.rstrip("\0")
    .split("\0")
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

TOP_LEVEL_FILES = {".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"}
TOP_LEVEL_FOLDERS = {".ci", "changelog.d", "docs", "examples", "playbooks", "requirements", "rollout", "tests"}

MACHINE_PATH = re.compile(r"(?<![\w.$}~])/(?:work|root|home/[a-z]\w*)\b")
REGISTRY_HOST = re.compile(r"pypi\.org|pythonhosted\.org|npmjs\.org|crates\.io", re.IGNORECASE)


def test_the_patterns_find_what_they_are_for() -> None:
    """Spelt so that this file itself stays clean."""
    assert MACHINE_PATH.search("cd |home|mara|rollout".replace("|", "/"))
    assert MACHINE_PATH.search('"|root|.cache"'.replace("|", "/"))
    assert not MACHINE_PATH.search("$HOME|work|lab".replace("|", "/"))
    assert REGISTRY_HOST.search("https://files.PythonHosted!org/x".replace("!", "."))


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY_HOST], ids=["machine path", "registry host"])
def test_no_file_names_one_machine_or_registry(pattern: re.Pattern[str]) -> None:
    """What works only where it was written, or from where it was fetched, would break or tell tales elsewhere."""
    found = [
        f"{name}:{number}: {line.strip()}"
        for name in TRACKED
        if (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_top_level_holds_what_was_agreed() -> None:
    assert {name for name in TRACKED if "/" not in name} <= TOP_LEVEL_FILES
    assert {name.split("/")[0] for name in TRACKED if "/" in name} <= TOP_LEVEL_FOLDERS


def test_lock_pins_every_requirement_by_hash() -> None:
    """A requirement is a block: its first line pins a version, the others are hashes; no option, address or path stands between them."""
    blocks = re.split(r"\n(?! )", (ROOT / "requirements/dev.lock").read_text().rstrip("\n"))
    for block in blocks:
        assert re.fullmatch(r"[a-z0-9-]+==\S+( ; [^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+", block), block


def test_lock_holds_all_that_is_declared() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements/dev.lock").read_text(), re.MULTILINE))
    project = PROJECT["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["lab"], *PROJECT["dependency-groups"]["dev"]]
    assert {canonicalize_name(Requirement(line).name) for line in declared} - locked == set()
