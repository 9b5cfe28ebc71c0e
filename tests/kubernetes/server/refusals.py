"""
What the server refuses, and the Status that it says it with.

Source: staging/src/k8s.io/apimachinery/pkg/api/errors/errors.go in kubernetes/kubernetes (NewNotFound and its like).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.kubernetes.server.kinds import Kind
from tests.kubernetes.server.objects import Object


class RefusedError(Exception):
    """A request that isn't done; *details* and *metadata* are the Status's own."""

    def __init__(
        self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None, metadata: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.metadata = dict(metadata or {})

    def status(self) -> Object:
        said: Object = {"kind": "Status", "apiVersion": "v1", "metadata": self.metadata, "status": "Failure", "message": self.message}
        if self.reason:
            said["reason"] = self.reason
        if self.details:
            said["details"] = self.details
        return said | {"code": self.code}


class UndecodableError(RefusedError):
    """An object that isn't of its kind's types."""

    def __init__(self, kind: Kind, why: str) -> None:
        what = f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: {why}'
        super().__init__(400, "BadRequest", what)


def _about(kind: Kind, name: str) -> dict[str, Any]:
    group = {"group": kind.group} if kind.group else {}
    return ({"name": name} if name else {}) | group | {"kind": kind.plural}


def not_found(kind: Kind, name: str) -> RefusedError:
    return RefusedError(404, "NotFound", f'{kind.resource} "{name}" not found', _about(kind, name))


def no_such_path() -> RefusedError:
    return RefusedError(404, "NotFound", "the server could not find the requested resource", {})


def exists(kind: Kind, name: str) -> RefusedError:
    return RefusedError(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', _about(kind, name))


def conflict(kind: Kind, name: str, why: str) -> RefusedError:
    return RefusedError(409, "Conflict", f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}', _about(kind, name))


def stale(kind: Kind, name: str) -> RefusedError:
    return conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again")


def invalid(kind: Kind, name: str, causes: Sequence[tuple[str, str, str]]) -> RefusedError:
    """*causes*: reason, such as FieldValueInvalid, message and field of each."""
    said = [f"{field}: {message}" for _, message, field in causes]
    whole = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    group = {"group": kind.group} if kind.group else {}
    listed = [{"reason": reason, "message": message, "field": field} for reason, message, field in causes]
    whose = f"{kind.name}.{kind.group}" if kind.group else kind.name
    details = {"name": name} | group | {"kind": kind.name, "causes": listed}
    return RefusedError(422, "Invalid", f'{whose} "{name}" is invalid: {whole}', details)


def bad_request(message: str) -> RefusedError:
    return RefusedError(400, "BadRequest", message)


def expired(message: str, metadata: Mapping[str, Any] | None = None) -> RefusedError:
    return RefusedError(410, "Expired", message, metadata=metadata)


def forbidden(kind: Kind, name: str, why: str) -> RefusedError:
    what = f'{kind.resource} "{name}"' if name else kind.resource
    return RefusedError(403, "Forbidden", f"{what} is forbidden: {why}", _about(kind, name))
