"""What all drivers do with their settings: check them, and resolve references to secrets."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rollout.model.errors import InvalidFileError


class Settings(BaseModel):
    """Base of every driver's settings: frozen, and nothing that isn't known is accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_Checked = TypeVar("_Checked", bound=Settings)


def check(kind: type[_Checked], settings: Mapping[str, object], where: str) -> _Checked:
    """Check settings. Raises InvalidFileError, naming the key and what it may be."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        problems = "\n".join(f"{'.'.join(map(str, one['loc'])) or where}: {one['msg']}" for one in error.errors(include_input=False))
        raise InvalidFileError(f"{where} doesn't fit", why=problems, remedy=f"keys are: driver, {', '.join(kind.model_fields)}") from None


def resolve_secret(reference: str) -> str:
    """Return what `env:NAME` or `file:PATH` refers to. Raises InvalidFileError naming the reference; no error ever holds the secret."""
    kind, _, name = reference.partition(":")
    if kind == "env" and name:
        if name not in os.environ:
            raise InvalidFileError(f"there is no secret {reference}", why="the environment has no such variable", remedy=f"export {name}=…")
        return os.environ[name]
    if kind == "file" and name:
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InvalidFileError(f"there is no secret {reference}", why=error.strerror or str(error)) from error
    raise InvalidFileError(
        "a secret is written as env:NAME or file:PATH", remedy="never write the secret itself into a file that is shared"
    )
