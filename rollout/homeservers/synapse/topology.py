"""
Who does what, as the configuration says: stream writers, shard lists, the instance map.

A share of the work belongs to an instance by its place in a list (a hash modulo its length), so two processes that read different lists
would both send, or both persist, the same things, or neither would. Such a change can't be rolled worker by worker; it is recognised and
refused with the procedure.

Source: synapse/config/workers.py, ShardedWorkerHandlingConfig and WriterLocations; docs/workers.md.
"""

from collections.abc import Mapping

Topology = dict[str, tuple[str, ...]]

_SHARD_LISTS = (
    "federation_sender_instances",
    "pusher_instances",
    "outbound_federation_restricted_to",
    "media_instance_running_background_jobs",
)
_SINGLE = ("run_background_tasks_on", "update_user_directory_from_worker", "notify_appservices_from_worker")

PROCEDURE = (
    "stop every process that is in the old or the new list, start them together on the new configuration, then restart the others; "
    "see Synapse's docs/workers.md. Roll the release and the topology apart"
)


def read_topology(config: Mapping[str, object]) -> Topology:
    """Read it out of a parsed homeserver.yaml. Names are sorted, as Synapse sorts shard lists itself."""
    found: Topology = {}
    instance_map = config.get("instance_map")
    if isinstance(instance_map, Mapping):
        found["instance_map"] = tuple(sorted(str(name) for name in instance_map))
    writers = config.get("stream_writers")
    if isinstance(writers, Mapping):
        for stream, names in writers.items():
            found[f"stream_writers.{stream}"] = _names(names)
    for key in (*_SHARD_LISTS, *_SINGLE):
        if config.get(key) is not None:
            found[key] = _names(config[key])
    return found


def _names(value: object) -> tuple[str, ...]:
    return tuple(sorted(str(name) for name in value)) if isinstance(value, list | tuple) else (str(value),)


def explain_difference(old: Mapping[str, tuple[str, ...]], new: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Say, one sentence each, what differs; empty when nothing does."""
    return tuple(
        f"{key} would change from {_say(old.get(key))} to {_say(new.get(key))}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    )


def _say(names: tuple[str, ...] | None) -> str:
    return "nothing" if names is None else f"[{', '.join(names)}]"


def procedure() -> str:
    """Say what to do instead of rolling."""
    return PROCEDURE


def read_modules(config: Mapping[str, object]) -> tuple[str, ...]:
    """List the modules that a parsed homeserver.yaml loads, sorted."""
    modules = config.get("modules")
    if not isinstance(modules, list):
        return ()
    return tuple(sorted(str(entry["module"]) for entry in modules if isinstance(entry, Mapping) and "module" in entry))
