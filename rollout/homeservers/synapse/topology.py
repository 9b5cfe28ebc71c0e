"""
Who does what, as the configuration says: stream writers, shard lists, and where each of them is reached.

Synapse gives a room, a destination or a user to an instance by its *place* in a list: a hash modulo the list's length, and the list is
not sorted first. So two processes that read different lists, or the same names in another order, would both do a thing, or neither would.
Such a change can't be rolled worker by worker; it is recognised here and refused with the procedure.

What is left out of a configuration is filled in with Synapse's default, so that writing a default down is no change.

Source: ShardedWorkerHandlingConfig (synapse/config/_base.py), WriterLocations and WorkerConfig (synapse/config/workers.py), 1.162.0 and
1.163.2.
"""

from collections.abc import Mapping

Topology = dict[str, tuple[str, ...]]

MAIN = "main"
# Stream writers call main by another name than the instance map does.
_MAIN_ALIASES = frozenset({"main", "master"})

# Place in the list decides: events are sharded by room, and device lists have a first writer that does more than the others.
_ORDERED_STREAMS = frozenset({"events", "device_lists"})
_STREAMS = (
    "events",
    "typing",
    "to_device",
    "account_data",
    "receipts",
    "presence",
    "push_rules",
    "device_lists",
    "thread_subscriptions",
    "quarantined_media_changes",
)
# The list, and the older switch that says whether main does it when there is no list.
_SHARD_LISTS = {"federation_sender_instances": "send_federation", "pusher_instances": "start_pushers"}
# One instance each, main if unsaid.
_SINGLE = {
    "run_background_tasks_on": None,
    "notify_appservices_from_worker": "notify_appservices",
    "update_user_directory_from_worker": "update_user_directory",
}


def read_topology(config: Mapping[str, object]) -> Topology:
    """Read it out of a parsed homeserver.yaml (the part that all processes share). Never raises: what makes no sense is left to Synapse."""
    return {
        **_instance_map(config),
        **_stream_writers(config),
        **{key: _shards(config, key, switch) for key, switch in _SHARD_LISTS.items()},
        **{key: _single(config, key, switch) for key, switch in _SINGLE.items()},
        **_optional(config),
    }


def explain_difference(old: Mapping[str, tuple[str, ...]], new: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Say, one sentence each, what differs; empty when nothing does."""
    return tuple(_explain(key, old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key))


def procedure() -> str:
    """Say what to do instead of rolling."""
    return (
        "roll the release first, on the topology that runs; then change the topology by itself: stop, give the new configuration to, and "
        "start together all senders (or pushers) for their list, and every process for stream writers and addresses"
    )


def read_modules(config: Mapping[str, object]) -> tuple[str, ...]:
    """List the modules that a parsed homeserver.yaml loads, in its order, which is the order of their callbacks."""
    modules = config.get("modules")
    if not isinstance(modules, list):
        return ()
    return tuple(str(entry["module"]) for entry in modules if isinstance(entry, Mapping) and "module" in entry)


def _instance_map(config: Mapping[str, object]) -> Topology:
    instances = config.get("instance_map")
    if not isinstance(instances, Mapping):
        return {}
    return {f"instance_map.{_canonical(name)}": (_address(place),) for name, place in instances.items()}


def _address(place: object) -> str:
    if not isinstance(place, Mapping):
        return str(place)
    if "path" in place:
        return f"unix:{place['path']}"
    return f"{'https' if place.get('tls') else 'http'}://{place.get('host')}:{place.get('port')}"


def _stream_writers(config: Mapping[str, object]) -> Topology:
    said = config.get("stream_writers")
    writers: Mapping[object, object] = said if isinstance(said, Mapping) else {}
    streams = dict.fromkeys((*_STREAMS, *map(str, writers)))
    found = {stream: _names(writers.get(stream, MAIN)) for stream in streams}
    return {f"stream_writers.{stream}": names if stream in _ORDERED_STREAMS else tuple(sorted(names)) for stream, names in found.items()}


def _shards(config: Mapping[str, object], key: str, switch: str) -> tuple[str, ...]:
    said = config.get(key)
    if said is not None:
        return _names(said)
    return (MAIN,) if config.get(switch, True) else ()


def _single(config: Mapping[str, object], key: str, switch: str | None) -> tuple[str, ...]:
    said = config.get(key)
    if said:
        return _names(said)
    return (MAIN,) if key in config or switch is None or config.get(switch, True) else ()


def _optional(config: Mapping[str, object]) -> Topology:
    """What has no default worth writing down."""
    found: Topology = {}
    if restricted := config.get("outbound_federation_restricted_to"):
        found["outbound_federation_restricted_to"] = tuple(sorted(_names(restricted)))
    if media := config.get("media_instance_running_background_jobs"):
        found["media_instance_running_background_jobs"] = _names(media)
    if config.get("enable_media_repo", True) is False:
        found["enable_media_repo"] = ("false",)
    redis = config.get("redis")
    if isinstance(redis, Mapping) and redis.get("enabled"):
        # Two halves of a homeserver on two of these would not hear of one another.
        place = redis.get("path") or f"{redis.get('host', 'localhost')}:{redis.get('port', 6379)}"
        found["redis"] = (f"{place}/{redis.get('dbid') or 0}",)
    return found


def _names(value: object) -> tuple[str, ...]:
    return tuple(_canonical(name) for name in value) if isinstance(value, list | tuple) else (_canonical(value),)


def _canonical(name: object) -> str:
    return MAIN if str(name) in _MAIN_ALIASES else str(name)


def _explain(key: str, old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> str:
    sentence = f"{key} would change from {_say(old)} to {_say(new)}"
    if old is not None and new is not None and sorted(old) == sorted(new):
        return f"{sentence}: the same names, but the place in the list decides who does what"
    return sentence


def _say(names: tuple[str, ...] | None) -> str:
    return "nothing" if names is None else f"[{', '.join(names)}]"
