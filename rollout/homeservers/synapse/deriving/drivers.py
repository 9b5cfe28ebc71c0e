"""How everything is reached: the inventory's drivers, as far as files say."""

from collections.abc import Collection, Mapping, Sequence

from rollout.homeservers.synapse.deriving.findings import Findings, Path
from rollout.homeservers.synapse.deriving.managed import Managed
from rollout.homeservers.synapse.deriving.processes import Process
from rollout.homeservers.synapse.deriving.sources import Proxy, Sources
from rollout.homeservers.synapse.deriving.starting import derive_releases_driver, derive_workers_driver
from rollout.model.ids import WorkerId

_DSN = "file:/etc/rollout/database.dsn"
_LEDGER = "/var/lib/rollout/ledger.json"
_POSTGRESQL = frozenset({"psycopg2", "psycopg"})
REMARKS: dict[Path, str] = {("ledger_driver", "path"): "on the proxy's machine; any file that outlives a reboot"}


def derive_drivers(
    sources: Sources,
    processes: Sequence[Process],
    managed: Mapping[WorkerId, Managed],
    hosts: Collection[str],
    proxy: Proxy | None,
    known: Mapping[str, Collection[str]],
    findings: Findings,
) -> dict[str, object]:
    """Return the inventory's sections for drivers; None where something must be filled in. *hosts* as in starting.py."""
    workers_driver = derive_workers_driver(sources, processes, managed, hosts, findings)
    _say_if_unknown("workers", str(workers_driver["driver"]), known, findings)
    sections: dict[str, object] = {
        "workers_driver": workers_driver,
        "releases_driver": derive_releases_driver(sources, processes, managed, findings),
        "traffic_driver": _traffic(sources, proxy, known, findings),
        "metrics_driver": {"driver": "scrape"},
        "probe_driver": {"driver": "http"},
    }
    findings.doubtful(
        ("probe_driver",),
        "without as_token and user nothing but /health is asked of a worker that was just started",
        "the token of an application service, as env:NAME or file:PATH, and a user in its namespace",
    )
    if (database := _database(sources, processes, findings)) is not None:
        sections["database_driver"] = database
    return {**sections, "ledger_driver": {"driver": "file", "path": _LEDGER}}


def _traffic(sources: Sources, proxy: Proxy | None, known: Mapping[str, Collection[str]], findings: Findings) -> dict[str, object]:
    here = ("traffic_driver",)
    for one in sources.proxies:
        for gap in one.gaps:
            findings.doubtful(here, f"{gap.what} ({gap.place})", gap.look)
    for one in sources.proxies:
        if proxy is not None and one is not proxy and any(backend.servers for backend in one.backends):
            findings.doubtful(
                here,
                f"{one.kind} is there as well ({', '.join(one.files)}), and the inventory has one proxy before the workers: {proxy.kind}",
                f"whether any worker gets requests through {one.kind} alone",
            )
    if proxy is None and sources.proxies and not any(backend.direct for one in sources.proxies for backend in one.backends):
        kinds = " and ".join(one.kind for one in sources.proxies)
        findings.doubtful(
            here, f"{kinds} was read, and none of its backends leads to a process of this homeserver", "the proxy's other files"
        )
    kind = proxy.kind if proxy is not None else sources.proxies[0].kind if sources.proxies else "haproxy"
    _say_if_unknown("traffic", kind, known, findings)
    return _nginx(findings) if kind == "nginx" else _haproxy(sources, proxy, findings)


def _nginx(findings: Findings) -> dict[str, object]:
    findings.missing(
        ("traffic_driver", "include"),
        "rollout changes a file of upstreams that nobody else changes, and no file says which that shall be",
        "a file with these upstreams alone, weight=100 at each server, included by nginx (docs/nginx.md)",
    )
    return {"driver": "nginx", "include": None}


def _haproxy(sources: Sources, proxy: Proxy | None, findings: Findings) -> dict[str, object]:
    read = proxy or next(iter(sources.proxies), None)
    section: dict[str, object] = {"driver": "haproxy", "sockets": list(read.sockets) if read is not None and read.sockets else None}
    if section["sockets"] is None:
        if read is not None:
            why = f"no `stats socket PATH … level admin` in {', '.join(read.files)}"
        elif sources.looked_for_proxies:
            why = f"no configuration of HAProxy or nginx was found in {', '.join(sources.looked_for_proxies)}"
        else:
            why = "no configuration of a proxy was given"
        findings.missing(("traffic_driver", "sockets"), why, "`stats socket /run/haproxy/admin.sock mode 600 level admin` under global")
    masters = [unit.master_socket for unit in sources.units if unit.master_socket]
    masters += [sources.supervisor.master_socket] if sources.supervisor and sources.supervisor.master_socket else []
    if masters:
        return {**section, "master_socket": masters[0]}
    findings.doubtful(
        ("traffic_driver",),
        "without master_socket nobody sees the sessions that a reload of HAProxy leaves in its old process",
        "what follows -S where HAProxy is started",
    )
    return section


def _database(sources: Sources, processes: Sequence[Process], findings: Findings) -> dict[str, object] | None:
    shared = sources.shared
    found = shared.values.get("database")
    name = str(found["name"]) if isinstance(found, Mapping) and found.get("name") else None
    if name not in _POSTGRESQL:
        if name is not None:
            if len(processes) > 1:
                findings.contradict(f"workers need PostgreSQL, and the database is {name}", shared.place("database", "name"))
        else:
            findings.doubtful(("database_driver",), "no `database` in the files", "database_driver: {driver: postgresql, dsn: file:PATH}")
        return None
    args = found.get("args") if isinstance(found, Mapping) else None
    said = {key: str(args[key]) for key in ("host", "port", "dbname", "database") if key in args} if isinstance(args, Mapping) else {}
    about = " ".join(f"{'dbname' if key == 'database' else key}={value}" for key, value in said.items())
    findings.missing(
        ("database_driver", "dsn"),
        f"Synapse's own access stays where it is ({shared.place('database')}), and this wants a role that may only read",
        f"write its DSN there: {about} user=… password=… (what it may do: examples/lab/inventory.yaml)",
    )
    return {"driver": "postgresql", "dsn": _DSN}


def _say_if_unknown(port: str, driver: str, known: Mapping[str, Collection[str]], findings: Findings) -> None:
    if driver not in known.get(port, ()):
        findings.missing(
            (f"{port}_driver", "driver"),
            f"this release has no driver {driver}; there is {', '.join(sorted(known.get(port, ())))}",
            "a newer release, or a driver of your own: docs/adding-a-driver.md",
        )
