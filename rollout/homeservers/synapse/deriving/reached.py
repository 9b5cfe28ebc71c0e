"""Where each process and its metrics page are reached, and on which machine it is, as far as files say."""

from collections.abc import Iterable
from dataclasses import dataclass

from rollout.homeservers.synapse.deriving.findings import Findings
from rollout.homeservers.synapse.deriving.listeners import Listener, is_loopback
from rollout.homeservers.synapse.deriving.processes import Process
from rollout.homeservers.synapse.deriving.proxied import Placement

_PAGE = "/_synapse/metrics"


@dataclass(frozen=True, slots=True)
class Reached:
    """
    Addresses; None where nothing says them. *host* is empty for the machine that the proxy is on, and *unsaid* where nobody speaks of it.

    *contained*: these addresses are a container's.
    """

    url: str | None
    metrics: str | None
    host: str = ""
    contained: bool = False
    unsaid: bool = False


def reached(process: Process, placement: Placement | None, container: str, findings: Findings) -> Reached:
    """
    Work out the addresses of a process.

    *placement* is where it stands at the proxy, whose word on the host counts before the instance map's. *container* is its
    name, if it runs in one, which only other containers know.
    """
    listener = None if placement is None else placement.listener
    if listener is not None and listener.port is None:
        listener = None
    host = _host(process, placement if listener is not None else None)
    host = host or container
    contained = bool(container) or host == process.id
    listener = listener or _best(process.listeners)
    return Reached(
        url=_url(process, listener, host, findings),
        metrics=_metrics(process, host, findings),
        host="" if contained else host,
        contained=contained,
        unsaid=not host and not process.is_main and process.mapped is None and placement is None,
    )


def _host(process: Process, placement: Placement | None) -> str:
    """Name the machine, by what others call it; empty if that is their own."""
    host = placement.server.host if placement is not None else process.mapped.host if process.mapped is not None else ""
    return "" if is_loopback(host) else host


def _best(listeners: Iterable[Listener]) -> Listener | None:
    """Choose where /health is asked for: any http listener answers that."""
    found = [one for one in listeners if one.kind == "http" and one.port is not None]
    return min(found, key=lambda one: (not one.for_users, one.replicates, one.shows_metrics), default=None)


def _url(process: Process, listener: Listener | None, host: str, findings: Findings) -> str | None:
    at = ("workers", process.id, "url")
    if listener is not None:
        if listener.private and host:
            _say_private(at, process, listener, host, findings)
        return listener.url(host)
    if not process.known and process.mapped is not None and process.mapped.port is not None:
        return Listener("http", process.mapped.place, port=process.mapped.port).url(host)
    sockets = [one for one in process.listeners if one.path is not None]
    if sockets:
        why = f"it listens on a unix socket only ({sockets[0].place}), and is asked over TCP"
    elif process.known:
        why = f"it has no http listener ({process.place})"
    else:
        why = "no worker file says where it listens"
    findings.missing(
        at, why, "an http listener on a port (`resources` may be empty, /health is answered all the same), and its address here"
    )
    return None


def _metrics(process: Process, host: str, findings: Findings) -> str | None:
    at = ("workers", process.id, "metrics")
    pages = [one for one in process.listeners if one.shows_metrics and one.port is not None]
    if pages:
        page = min(pages, key=lambda one: one.kind != "metrics")
        if page.private and host:
            _say_private(at, process, page, host, findings)
        return f"{page.url(host)}{_PAGE}"
    why = f"it has no metrics listener on a port ({process.place})" if process.known else "no worker file says where its metrics are"
    findings.missing(
        at, why, "`- {type: metrics, port: …}` among its listeners, `enable_metrics: true` in homeserver.yaml, and its address here"
    )
    return None


def _say_private(at: tuple[str, ...], process: Process, listener: Listener, host: str, findings: Findings) -> None:
    findings.doubtful(
        at,
        f"{process.id} is on {host}, and this listener is heard on {', '.join(listener.addresses)} of its machine alone ({listener.place})",
        "bind_addresses that can be reached from where rollout runs",
    )
