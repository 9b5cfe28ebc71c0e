"""What all drivers do with their settings: check them, and resolve references to secrets."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError, PydanticKnownError

from rollout.adapters.problem import Problem
from rollout.adapters.reading import read_bounded
from rollout.adapters.secrecy import without_credentials
from rollout.adapters.wording import OWN, Wording
from rollout.model.errors import InvalidFileError

# A connection string or a token has some hundred.
SECRET_BYTES_MAX = 65_536


class Settings(BaseModel):
    """Base of every driver's settings: frozen, and nothing that isn't known is accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InvalidSettingsError(InvalidFileError):
    """A driver doesn't accept its settings; *problems* lead to places below its key in the inventory."""

    def __init__(self, where: str, problems: tuple[Problem, ...]) -> None:
        first, *others = problems
        super().__init__(first.what, where=where, why="\n".join(f"also {other.what}" for other in others), remedy=first.remedy)
        self.problems = problems


_Checked = TypeVar("_Checked", bound=Settings)


def check(kind: type[_Checked], settings: Mapping[str, object], where: str) -> _Checked:
    """Check settings. Raises InvalidSettingsError, naming each key and what it may be."""
    try:
        # Through JSON and strictly, as the inventory itself is read: a number in quotes is no number here either.
        return kind.model_validate_json(json.dumps(settings, default=str), strict=True)
    except ValidationError as error:
        problems = Wording(settings, kind.model_json_schema(), above=(where,)).problems(error.errors(include_url=False))
        raise InvalidSettingsError(where, tuple(problems)) from None


def resolve_secret(reference: str) -> str:
    """Return what `env:NAME` or `file:PATH` refers to. Raises InvalidFileError naming the reference; no error ever holds the secret."""
    kind, _, name = reference.partition(":")
    if kind not in {"env", "file"} or not name or (kind == "env" and not name.isidentifier()):
        raise InvalidFileError("a secret is written as env:NAME or file:PATH, not as itself", remedy="env:NAME or file:PATH")
    secret = _from_environment(name) if kind == "env" else _from_file(name)
    if not secret:
        raise InvalidFileError(f"the secret {reference} is empty", remedy="put it there")
    return secret


def _from_environment(name: str) -> str:
    if name not in os.environ:
        raise InvalidFileError(f"there is no secret env:{name}: the environment has no such variable", remedy=f"export {name}=…")
    return os.environ[name].strip()


def _from_file(path: str) -> str:
    name = without_credentials(path)
    try:
        content = read_bounded(Path(path), SECRET_BYTES_MAX)
    except (OSError, ValueError) as error:
        why = (error.strerror or "" if isinstance(error, OSError) else str(error)).lower()
        raise InvalidFileError(f"there is no secret file:{name}: {why}", remedy="a file that whoever runs this can read") from error
    if len(content) > SECRET_BYTES_MAX:
        raise InvalidFileError(f"the secret file:{name} is longer than {SECRET_BYTES_MAX} bytes", remedy="a file with nothing else in it")
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        # Without its cause, which holds the bytes.
        raise InvalidFileError(f"the secret file:{name} is not UTF-8", remedy="save it as UTF-8") from None


def refused(what: str, remedy: str) -> PydanticCustomError:
    """Make what a validator of a setting raises, in our own words."""
    # A template of pydantic's own would take braces in a path for something to fill in.
    return PydanticCustomError(OWN, "{what}", {"what": what, "remedy": remedy})


def _can_be_resolved(reference: str) -> str:
    try:
        resolve_secret(reference)
    except InvalidFileError as error:
        raise refused(error.what, error.remedy) from None
    return reference


def _not_empty(written: object) -> object:
    # An empty path would be the directory in which somebody happens to be.
    if isinstance(written, str) and not written.strip():
        raise PydanticKnownError("string_too_short", {"min_length": 1})
    return written


# A setting that refers to a secret: checked with the others, so that it is told with its place, and resolved by who needs it.
SecretReference = Annotated[str, AfterValidator(_can_be_resolved)]
# A setting that names a file or a directory.
FilePath = Annotated[Path, BeforeValidator(_not_empty)]
