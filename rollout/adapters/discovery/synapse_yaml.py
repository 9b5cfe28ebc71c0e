"""
Synapse's configuration, as Synapse reads it, with the line of each value.

It is full of secrets, and what isn't asked for is never even converted: a value gets in only if its key is listed here. So none of them can
come out anywhere. Where the file is no YAML at all, the error says where and what is wrong with it, and shows nothing of the line.

The traps of YAML that our own files are protected from are left as they are: aliases, `no` for false, keys that appear twice (the last one
counts). Whoever has them in homeserver.yaml runs with them.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rollout.adapters.reading import PipeError, read_bounded
from rollout.adapters.secrecy import is_secret, plain_name
from rollout.homeservers.synapse.deriving.sources import ParsedFile
from rollout.homeservers.synapse.deriving.sources import Path as Keys
from rollout.model.errors import InvalidFileError

_LOADER: type[yaml.CSafeLoader | yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# The longest that is known, with all of its comments, has 150 kB.
BYTES_MAX = 2_000_000
_NESTING_MAX = 64
# Aliases of aliases would make more of a few lines than anybody can hold.
_VALUES_MAX = 50_000

# What is wanted below each key; `...` is everything.
_LISTENER = {"type": ..., "port": ..., "path": ..., "bind_addresses": ..., "bind_address": ..., "tls": ..., "resources": {"names": ...}}
_WANTED: dict[str, Any] = {
    "server_name": ...,
    "listeners": _LISTENER,
    "worker_listeners": _LISTENER,
    "instance_map": {"*": {"host": ..., "port": ..., "path": ..., "tls": ...}},
    "database": {"name": ..., "args": {"host": ..., "port": ..., "dbname": ..., "database": ...}},
    **dict.fromkeys(
        (
            "worker_app", "worker_name", "stream_writers", "send_federation", "federation_sender_instances", "start_pushers",
            "pusher_instances", "run_background_tasks_on", "notify_appservices", "notify_appservices_from_worker", "update_user_directory",
            "update_user_directory_from_worker", "media_instance_running_background_jobs", "enable_media_repo", "enable_metrics",
            "metrics_port",
        ),
        ...,
    ),
}  # fmt: skip
_MERGE = "tag:yaml.org,2002:merge"
# PyYAML quotes what stands there, which may be a secret; what it writes in angle brackets are its own words.
_QUOTED = re.compile(r"'(?!<)[^']*'|\"[^\"]*\"")
_REMEDIES: dict[type[Exception], str] = {
    FileNotFoundError: "another path: nothing is there",
    IsADirectoryError: "the path of a file in it",
    PipeError: "a file, or a command that writes one: <(…)",
    PermissionError: "sudo: Synapse's files are readable by its own user, most often",
}


def read_bytes(path: Path, bytes_max: int = BYTES_MAX) -> bytes:
    """Read a file of somebody else's. Raises InvalidFileError: not there, not readable, too big to be one."""
    try:
        content = read_bounded(path, bytes_max)
    except (OSError, ValueError) as error:
        why = (error.strerror or "" if isinstance(error, OSError) else str(error)).lower()
        raise InvalidFileError(
            "the file can't be read", where=str(path), why=why, remedy=_REMEDIES.get(type(error), "another path")
        ) from error
    if len(content) > bytes_max:
        raise InvalidFileError(
            f"the file is larger than {bytes_max:,} bytes", where=str(path), remedy="a file of the homeserver's configuration"
        )
    return content


def read_synapse_yaml(path: Path) -> ParsedFile:
    """
    Read one file, as far as its content is asked for. A file that is empty, or holds a list, has nothing, as for Synapse.

    Raises InvalidFileError with file, line and column.
    """
    name, content = str(path), read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise InvalidFileError("not UTF-8", where=f"{name}:{line}:{column}", remedy="save the file as UTF-8") from None
    try:
        _bound(name, text)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        raise _not_valid(name, error) from None
    except yaml.YAMLError:
        raise InvalidFileError("not valid YAML", where=name, why="a character that is no text", remedy="remove it") from None
    picked = _Picked(name)
    values = picked.mapping(node, _WANTED, ()) if isinstance(node, yaml.MappingNode) else {}
    return ParsedFile(name, values, picked.lines)


class _Picked:
    """Converts what is wanted, and remembers its lines."""

    def __init__(self, name: str) -> None:
        self.lines: dict[Keys, int] = {}
        self._name = name
        self._count = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def mapping(self, node: yaml.MappingNode, wanted: Mapping[str, Any], path: Keys) -> dict[str, object]:
        """Convert a mapping; `*` stands for every key."""
        found: dict[str, object] = {}
        for key_node, value_node in _pairs(node):
            key = str(key_node.value)
            if not isinstance(key_node, yaml.ScalarNode) or (key not in wanted and "*" not in wanted):
                continue
            if wanted.get("*") is ... and is_secret((key,)):
                # It was indented too far: nothing that is wanted is called so.
                continue
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            value = self.value(value_node, wanted.get(key, wanted.get("*")), (*path, key))
            # A database may be named by a whole connection string, with its password.
            found[key] = plain_name(value) if path[:1] == ("database",) and isinstance(value, str) else value
        return found

    def value(self, node: yaml.Node, wanted: Any, path: Keys) -> Any:  # noqa: ANN401  (whatever stands there)
        """Convert a value; of what isn't shaped as wanted, nothing."""
        self._count += 1
        if self._count > _VALUES_MAX or len(path) > _NESTING_MAX:
            raise self._error(node, "its aliases make more of this than can be held", "write the values out")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self._entry(child, wanted, (*path, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, {"*": ...} if wanted is ... else wanted, path)
        return self._scalar(node) if wanted is ... else None

    def _entry(self, node: yaml.Node, wanted: Any, path: Keys) -> Any:  # noqa: ANN401  (as above)
        self.lines[path] = node.start_mark.line + 1
        return self.value(node, wanted, path)

    def _scalar(self, node: yaml.Node) -> object:
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, OverflowError):
            raise self._error(node, "a value that Synapse couldn't read either", "the plain value, in quotes if it is text") from None

    def _error(self, node: yaml.Node, what: str, remedy: str) -> InvalidFileError:
        mark = node.start_mark
        return InvalidFileError(what, where=f"{self._name}:{mark.line + 1}:{mark.column + 1}", remedy=remedy)


def _pairs(node: yaml.MappingNode, depth: int = 0) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """List the keys and values of a mapping; those merged into it come first, so that its own count."""
    if depth > _NESTING_MAX:
        return
    for key, value in node.value:
        if key.tag == _MERGE:
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(merged, yaml.MappingNode):
                    yield from _pairs(merged, depth + 1)
    yield from ((key, value) for key, value in node.value if key.tag != _MERGE)


def _bound(name: str, text: str) -> None:
    """Refuse deep nesting from the stream of events, which is read without recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _NESTING_MAX:
            mark = event.start_mark
            where = name if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"
            raise InvalidFileError(f"nested more than {_NESTING_MAX} deep", where=where, remedy="a file of the homeserver's configuration")


def _not_valid(name: str, error: yaml.MarkedYAMLError) -> InvalidFileError:
    mark = error.problem_mark or error.context_mark
    where = name if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"
    why = ", ".join(_QUOTED.sub("…", part) for part in (error.context, error.problem) if part)
    remedy = "indentation, brackets and quotes in this line or the one before (the line isn't shown: it may hold a secret)"
    if error.context == "expected a single document in the stream":
        remedy = "one document: remove `---` and what follows it"
    return InvalidFileError("not valid YAML", where=where, why=why, remedy=remedy)
