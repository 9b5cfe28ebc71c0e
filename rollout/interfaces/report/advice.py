"""
What a person does next, as commands that can be pasted.

A rollout that stopped must be easy to pick up by somebody who was just woken. What is out of traffic by our hand comes first: the proxy's
own words for it, which need nothing of ours.
"""

import shlex
from collections.abc import Mapping

from rollout.engine.drivers import servers
from rollout.model.event import RESUMABLE, Outcome
from rollout.model.ids import DeployId, WorkerId
from rollout.model.inventory import Inventory

# Where HAProxy's pods have their runtime API unless it is said (adapters/traffic/haproxy_pods.py).
PODS_PORT = 1999
NEAR_PORT = 19_990


def by_hand(inventory: Inventory, worker: WorkerId) -> tuple[str, ...]:
    """Return the shell commands that bring a worker back at the proxy; a sentence where the proxy is one that we don't know by hand."""
    place = servers(inventory).get(worker)
    if place is None:
        return (f"the inventory doesn't say where {worker} stands at the proxy",)
    settings = inventory.traffic_driver.settings()
    if inventory.traffic_driver.driver == "nginx":
        return _in_nginxes(inventory, place.backend, place.name, settings)
    if inventory.traffic_driver.driver != "haproxy":
        return (f"admit server {place.name} of {place.backend} at the proxy",)
    name = f"{place.backend}/{place.name}"
    let_go = f"; rollout-let-go {place.backend}" if _can_be_held(inventory, worker) else ""
    told = f"echo 'set server {name} weight 100%; set server {name} state ready{let_go}'"
    if isinstance(pods := settings.get("pods"), Mapping):
        from rollout.adapters.kubernetes.access import said_by_others

        return (_in_pods({**said_by_others(inventory), **pods}, told),)
    sockets = settings.get("sockets")
    return tuple(_at_socket(inventory, told, socket) for socket in (sockets if isinstance(sockets, list) else []))


def _in_pods(pods: Mapping[str, object], told: str) -> str:
    """Write a loop over HAProxy's pods; the port on this machine is one that hardly anybody has."""
    kubectl = ["kubectl", *(["--kubeconfig", str(pods["kubeconfig"])] if pods.get("kubeconfig") else [])]
    kubectl += [*(["--context", str(pods["context"])] if pods.get("context") else []), "-n", str(pods.get("namespace"))]
    ask, port = shlex.join(kubectl), pods.get("port", PODS_PORT)
    every = f"{ask} get pods -l {shlex.quote(str(pods.get('selector')))} --field-selector status.phase=Running -o name"
    there = f'{ask} port-forward "$pod" {NEAR_PORT}:{port} >/dev/null & sleep 2'
    return f"for pod in $({every}); do {there}; {told} | socat - TCP:127.0.0.1:{NEAR_PORT}; kill $!; wait; done"


def _at_socket(inventory: Inventory, told: str, socket: object) -> str:
    if not isinstance(socket, Mapping):
        return f"{told} | socat - UNIX-CONNECT:{socket}"
    command = f"{told} | socat - UNIX-CONNECT:{socket.get('path')}"
    host = socket.get("host")
    return command if host is None else _on(inventory, str(host), command)


def _on(inventory: Inventory, host: str, command: str) -> str:
    """Write a command that is run on a host."""
    hosts = _hosts(inventory)
    if host not in hosts:
        return f"on host {host}: {command}"
    entry = hosts[host]
    words = ["ssh"]
    if entry.get("identity_file"):
        words += ["-i", str(entry["identity_file"])]
    if entry.get("known_hosts"):
        words += ["-o", f"UserKnownHostsFile={entry['known_hosts']}"]
    if entry.get("port"):
        words += ["-p", str(entry["port"])]
    if (jump := hosts.get(str(entry.get("jump")))) is not None:
        words += ["-J", f"{jump.get('user')}@{jump.get('address')}" + (f":{jump['port']}" if jump.get("port") else "")]
    return f"{' '.join(words)} {entry.get('user')}@{entry.get('address')} {shlex.quote(command)}"


def _hosts(inventory: Inventory) -> dict[str, Mapping[str, object]]:
    """Return how each host is reached: by the proxy's driver, or by the workers' where that doesn't say."""
    found: dict[str, Mapping[str, object]] = {}
    for driver in (inventory.workers_driver, inventory.traffic_driver):
        hosts = driver.settings().get("hosts")
        found |= {str(name): entry for name, entry in (hosts if isinstance(hosts, Mapping) else {}).items() if isinstance(entry, Mapping)}
    return found


def _in_nginx(upstream: str, server: str, settings: Mapping[str, object], sudo: str = "") -> str:
    file, said = shlex.quote(str(settings.get("include"))), settings.get("nginx")
    nginx = sudo + (shlex.join(map(str, said)) if isinstance(said, list) else "/usr/sbin/nginx")
    # The line with its address or its name, in GNU sed's words. A moment later, or nobody could tell that nginx has read it.
    change = rf"\%server {server} \|# *{server} *$%{{s/ down;/;/;s/weight=[0-9]*/weight=100/}}"
    edit = shlex.quote(rf"/upstream *{upstream} *{{/,/^}}/{{{change}}}")
    # With sudo there is a rule for the one that prints, too.
    test = "-T >/dev/null" if sudo else "-t"
    return f"sed -i {edit} {file} && sleep 2 && {nginx} {test} && {nginx} -s reload"


def _in_nginxes(inventory: Inventory, upstream: str, server: str, settings: Mapping[str, object]) -> tuple[str, ...]:
    hosts = settings.get("proxies")
    if not isinstance(hosts, list):
        return (_in_nginx(upstream, server, settings),)
    as_root = {name for name, entry in _hosts(inventory).items() if entry.get("user") == "root"}
    return tuple(_on(inventory, host, _in_nginx(upstream, server, settings, "" if host in as_root else "sudo -n ")) for host in hosts)


def _can_be_held(inventory: Inventory, worker: WorkerId) -> bool:
    pool = inventory.workers[worker].pool
    return pool is not None and inventory.pools[pool].hold


def left_out(inventory: Inventory, workers: Mapping[WorkerId, str]) -> str:
    """Say which workers are out by our hand, with a remark on each, and how each is brought back."""
    if not workers:
        return "nothing of ours is out of traffic"
    lines = ["out of traffic by our hand:"]
    for worker, remark in workers.items():
        lines.append(f"  {worker}" + (f": {remark}" if remark else ""))
        lines += [f"    {command}" for command in by_hand(inventory, worker)]
    return "\n".join(lines)


def next_commands(deploy_id: DeployId, outcome: Outcome) -> str:
    """Name the commands that go on from here."""
    if outcome in RESUMABLE:
        commands = [
            (f"rollout {'continue' if outcome is Outcome.PAUSED else 'resume'} {deploy_id}", "to go on"),
            (f"rollout rollback {deploy_id}", "to take the touched workers back"),
            (f"rollout abort {deploy_id}", "to leave it as it is"),
        ]
    else:
        commands = [
            ("rollout why", "to see what is wrong"),
            ("rollout status", "to see what runs where"),
            ("rollout deploy …", "to begin anew from what runs, once it is put right"),
        ]
    width = max(len(command) for command, _ in commands)
    return "\n".join(["what next:", *(f"  {command.ljust(width)}  {why}" for command, why in commands)])
