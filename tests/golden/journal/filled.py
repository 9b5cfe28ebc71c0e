"""Values of any type of the model, with every field filled: what a journal's line may hold."""

import dataclasses
import enum
import types
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints


def filled(kind: Any, turn: int) -> Any:  # noqa: ANN401  (a type, and a value of it)
    """
    Make a value. *turn* chooses among the members of enumerations, and is odd for what is true.

    Every field is set to something else than its default, and no collection is empty, so that whatever may stand in a line does.
    """
    if isinstance(kind, NewType):
        return filled(kind.__supertype__, turn)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{field.name: filled(hints[field.name], turn) for field in dataclasses.fields(kind)})
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return kind(*(filled(hint, turn) for hint in get_type_hints(kind).values()))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        members = list(kind)
        return members[turn % len(members)]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return filled(next(one for one in arguments if one is not type(None)), turn)
    if origin is tuple:
        return (filled(arguments[0], turn),) if arguments[1:] == (...,) else tuple(filled(one, turn) for one in arguments)
    if origin in {frozenset, list}:
        return origin([filled(arguments[0], turn)])
    if (isinstance(origin, type) and issubclass(origin, dict)) or (origin is not None and "Mapping" in str(origin)):
        return {filled(arguments[0], turn): filled(arguments[1], turn)}
    return {bool: turn % 2 == 0, int: 7, float: 0.1 + 0.2, str: "»text«\n\x1b"}[kind]


def turns(kind: Any) -> int:  # noqa: ANN401  (a type)
    """Say how many turns it takes until every member of every enumeration in it, and both truths, have had theirs."""
    if isinstance(kind, NewType):
        return turns(kind.__supertype__)
    if dataclasses.is_dataclass(kind):
        return max((turns(one) for one in get_type_hints(kind).values()), default=1)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return len(kind)
    if kind is bool:
        return 2
    return max((turns(one) for one in get_args(kind) if one is not ...), default=1)
