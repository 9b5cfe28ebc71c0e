"""Which releases have been prepared: a ConfigMap with an entry for each, compared and set by its resourceVersion."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict

from rollout.adapters.kubernetes.cluster import Cluster, ConflictError, Object
from rollout.adapters.kubernetes.kinds import CONFIG_MAPS
from rollout.adapters.releases.kubernetes.parts import Part, Record
from rollout.model.codec import load_release, to_plain
from rollout.model.errors import PermanentDriverError, TransientDriverError
from rollout.model.ids import ReleaseId

TRIES_MAX = 10
ASK_S = 10.0
# A ConfigMap may have 1 MiB; a release with its deltas has about 15 kB.
KEPT_MAX = 20


def records_in(store: Object | None, where: str) -> dict[ReleaseId, Record]:
    """Read them. PermanentDriverError for a ConfigMap that somebody else has written into."""
    found: dict[ReleaseId, Record] = {}
    for name, text in ((store or {}).get("data") or {}).items():
        try:
            said = json.loads(text)
            parts = {one: Part(dict(its["images"]), its["mark"], str(its["rest"])) for one, its in said["parts"].items()}
            release = load_release(json.dumps(said["release"]))
            found[release.id] = Record(release, parts)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            remedy = "remove that entry, if no worker runs it"
            raise PermanentDriverError(f"entry {name} is no release", where=where, why=type(error).__name__, remedy=remedy) from error
    return found


def keep(cluster: Cluster, store: str, more: dict[ReleaseId, Record], needed: Callable[[ReleaseId], bool]) -> None:
    """Write releases down beside those that are there; of more than KEPT_MAX the oldest go that nobody needs. Raises DriverError."""
    where = f"ConfigMap {store} in {cluster.where}"
    for _ in range(TRIES_MAX):
        found = cluster.get(CONFIG_MAPS, store, ASK_S)
        data = dict((found or {}).get("data") or {})
        wanted = {_entry(name): _text(record) for name, record in more.items()}
        if all(data.get(name) == text for name, text in wanted.items()):
            return
        entries = {_entry(name): name for name in records_in(found, where)}
        spare = [entry for entry, name in entries.items() if entry not in wanted and not needed(name)]
        data |= wanted
        for name in spare[: max(0, len(data) - KEPT_MAX)]:
            del data[name]
        body: Object = {"metadata": {"name": store}, "data": data}
        try:
            if found is None:
                cluster.create(CONFIG_MAPS, body, ASK_S)
            else:
                cluster.replace(CONFIG_MAPS, {**found, "data": data}, ASK_S)
        except ConflictError:
            continue
        return
    raise TransientDriverError("others write it all the time", where=where)


def _entry(name: ReleaseId) -> str:
    """Name its entry, whose name has fewer letters than a version (1.163.2+build) may have."""
    return re.sub(r"[^-._a-zA-Z0-9]", "_", name)


def _text(record: Record) -> str:
    return json.dumps({"release": to_plain(record.release), "parts": {name: asdict(part) for name, part in record.parts.items()}})
