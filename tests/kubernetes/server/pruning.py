"""
Fields that a kind doesn't have are left out, and the caller is warned, or refused if it is strict.

Which fields there are is what the official client's models say, which are made from the API's own description.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation.
"""

from functools import cache
from types import UnionType
from typing import Union, get_args, get_origin

from kubernetes.client import models
from pydantic import BaseModel

from tests.kubernetes.server.kinds import Kind
from tests.kubernetes.server.objects import Object, Value

_MODELS = {"Event": "CoreV1Event", "HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler"}


def pruned(kind: Kind, obj: Object) -> list[str]:
    """Take the fields that the kind doesn't have out of an object, in place, and return where they were."""
    return _prune(obj, getattr(models, _MODELS.get(kind.name, f"V1{kind.name}")), "")


def _prune(value: Value, sort: Value, where: str) -> list[str]:
    gone: list[str] = []
    model, inner = _plain(sort)
    if model is not None and isinstance(value, dict):
        fields = _fields(model)
        for key in list(value):
            place = f"{where}.{key}" if where else key
            if key not in fields:
                del value[key]
                gone.append(place)
            else:
                gone += _prune(value[key], fields[key], place)
    elif inner is not None and isinstance(value, list):
        for number, one in enumerate(value):
            gone += _prune(one, inner, f"{where}[{number}]")
    return gone


def _plain(sort: Value) -> tuple[type[BaseModel] | None, Value]:
    """Return the model that a type is, or the type of a list's items."""
    origin: Value = get_origin(sort)
    if origin in {Union, UnionType}:
        return next((found for one in get_args(sort) if (found := _plain(one)) != (None, None)), (None, None))
    if origin is list:
        return None, get_args(sort)[0]
    if isinstance(sort, type) and issubclass(sort, BaseModel):
        return sort, None
    return None, None


@cache
def _fields(model: type[BaseModel]) -> dict[str, Value]:
    """Return a model's fields by their names in JSON, with their types."""
    spoken: dict[str, str] = getattr(model, "attribute_map")  # noqa: B009 - it has no type
    # Names that are words of Python's own have a prefix, such as `exec`.
    return {spoken.get(name, name.removeprefix("var_")): field.annotation for name, field in model.model_fields.items()}
