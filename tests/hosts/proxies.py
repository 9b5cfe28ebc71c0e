"""Real HAProxy and nginx on hosts of a bed, before workers on the machine that runs the tests; and the drivers that reach them over SSH."""

import base64
import io
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rollout.adapters.traffic import haproxy, nginx
from rollout.adapters.traffic.haproxy import Haproxies
from rollout.adapters.traffic.nginx import Nginxes
from rollout.interfaces.sudoers_text import sudoers_text
from rollout.lab.processes import wait_until
from rollout.lab.programs import haproxy_binary
from rollout.model.inventory import Inventory
from rollout.ports.privileges import Privileged
from tests.contracts.nginx import HOLD_LUA as NGINX_HOLD_LUA
from tests.contracts.nginx import hold_in, nginx_binary
from tests.contracts.proxy import HOLD_LUA, Backend, Front, serving
from tests.hosts.bed import USER, Bed

PORT = 8448
SOCKET = "/run/haproxy/admin.sock"
MASTER = "/run/haproxy/master.sock"
INCLUDE = "/etc/nginx/rollout/upstreams.conf"
HOLD_PAGE = "http://127.0.0.1:9145/"
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or "/usr/bin/python3"
_HAPROXY = "/opt/haproxy/bin/haproxy"
_HAPROXY_UNIT = f"""\
[Service]
RuntimeDirectory=haproxy
ExecStart={_HAPROXY} -W -db -S {MASTER},mode,660,group,haproxy -f /etc/haproxy/haproxy.cfg
"""
# As Debian's, so that an upgrade of the program is possible: it isn't where nginx stays in the foreground.
_NGINX_UNIT = f"""\
[Service]
Type=forking
PIDFile=/run/nginx.pid
ExecStart={nginx_binary()}
ExecStop=/bin/sh -c 'kill -QUIT $MAINPID'
TimeoutStopSec=1
KillMode=mixed
"""


class Fronts(Front):
    """A proxy on each of some hosts of *bed*; requests go to one after the other."""

    bed: Bed
    hosts: tuple[str, ...]

    def begin_request(self) -> None:
        self.address = self.bed.addresses[self.hosts[len(self.open) % len(self.hosts)]]
        Front.begin_request(self)


def prepare(bed: Bed, *hosts: str) -> None:
    """Install both proxies there, once; neither runs yet."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(haproxy_binary().parent, "haproxy/bin")
    for host in hosts:
        bed.run(host, "sh", "-c", "base64 -d | tar -x -C /opt", stdin=base64.b64encode(packed.getvalue()).decode())
        bed.run(host, "sh", "-c", f"groupadd --system haproxy; usermod -aG haproxy {USER}; install -d -o {USER} /etc/nginx/rollout")
        bed.write(host, "/etc/systemd/system/haproxy.service", _HAPROXY_UNIT)
        bed.write(host, "/etc/systemd/system/nginx.service", _NGINX_UNIT)
        bed.write(host, "/etc/haproxy/hold.lua", HOLD_LUA.read_text())
        bed.run(host, "systemctl", "daemon-reload")


@contextmanager
def running(bed: Bed, unit: str, files: Mapping[str, Mapping[str, str]], backends: Mapping[str, Backend]) -> Iterator[Fronts]:
    """Run *unit* on hosts, with its files (host -> path -> text)."""
    fronts = Fronts(bed.place, PORT, dict(backends))
    fronts.bed, fronts.hosts = bed, tuple(files)
    try:
        for host, texts in files.items():
            for path, text in texts.items():
                bed.write(host, path, text)
            bed.run(host, "systemctl", "restart", unit)
            wait_until(partial(bed.allows, host, "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{PORT}"), 10, f"{unit} listens")
        yield fronts
    finally:
        for backend in backends.values():
            backend.released.set()
        for one in fronts.open:
            one.close()
        for host in files:
            # A test may have ended it, and long-polls are not waited for.
            bed.run(host, "sh", "-c", f"systemctl kill --signal=KILL {unit} 2>/dev/null; systemctl stop {unit}")


@contextmanager
def haproxies(bed: Bed, *hosts: str, names: tuple[str, ...] = ("sync1", "sync2"), can_hold: bool = True) -> Iterator[Fronts]:
    """Run HAProxy on hosts, with a backend `sync`."""
    with serving(names, f"{bed.network}.1") as backends:
        servers = "\n".join(
            f"    server {name} {bed.network}.1:{backend.server_port} check inter 100ms rise 1 fall 1 weight 100"
            for name, backend in backends.items()
        )
        text = f"""\
global
    stats socket {SOCKET} mode 660 group haproxy level admin
    {"lua-load /etc/haproxy/hold.lua" if can_hold else ""}
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend clients
    bind :{PORT}
    default_backend sync
backend sync
    balance roundrobin
    option httpchk GET /health
    {"http-request lua.rollout_hold" if can_hold else ""}
{servers}
"""
        with running(bed, "haproxy", {host: {"/etc/haproxy/haproxy.cfg": text} for host in hosts}, backends) as fronts:
            yield fronts


@contextmanager
def nginxes(bed: Bed, *hosts: str, names: tuple[str, ...] = ("sync1", "sync2")) -> Iterator[Fronts]:
    """Run nginx on hosts, with an upstream `sync`; it is known to have read its file."""
    with serving(names, f"{bed.network}.1") as backends:
        servers = "\n".join(
            f"    server {bed.network}.1:{backend.server_port} weight=100 max_fails=0; # {name}" for name, backend in backends.items()
        )
        include = f"upstream sync {{\n{servers}\n}}\n"
        hold = hold_in(str(Path(INCLUDE).parent), HOLD_PAGE.removeprefix("http://").rstrip("/"))
        text = f"""\
{hold.top}user www-data;
worker_processes 2;
pid /run/nginx.pid;
events {{ worker_connections 200; }}
http {{
    access_log off;
    include {INCLUDE};
    {hold.http}
    {hold.server}
    server {{
        listen {PORT};
        location / {{ {hold.location} proxy_pass http://sync; proxy_read_timeout 60s; proxy_next_upstream off; }}
    }}
}}
"""
        for host in hosts:
            bed.run(host, "sh", "-c", "rm -f /etc/nginx/rollout/.* /etc/nginx/rollout/* 2>/dev/null; true")
        loaded = f"{Path(INCLUDE).parent}/.{Path(INCLUDE).name}.loaded"
        lua = str(Path(INCLUDE).with_name("hold.lua"))
        texts = {"/etc/nginx/nginx.conf": text, INCLUDE: include, loaded: include, lua: NGINX_HOLD_LUA.read_text()}
        files = dict.fromkeys(hosts, texts)
        with running(bed, "nginx", files, backends) as fronts:
            yield fronts


def hosts_of(bed: Bed, *hosts: str, **changed: object) -> dict[str, object]:
    """Write how hosts are reached, as in an inventory."""
    reached = {"user": USER, "identity_file": str(bed.identity_file), "known_hosts": str(bed.known_hosts), "agent": False, **changed}
    return {host: {"address": bed.addresses[host], **reached} for host in hosts}


def inventory(*, hold: bool = False) -> Inventory:
    """Make one in which pool `sync` may be held, or not."""
    nowhere = {"driver": "none"}
    return Inventory.model_validate(
        {
            "homeserver": "example.org",
            "workers": {"main": {"role": "main", "pool": "sync", "url": "http://localhost:1", "metrics": "http://localhost:1/"}},
            "pools": {"sync": {"backend": "sync", "hold": hold}},
            "workers_driver": nowhere,
            "releases_driver": nowhere,
            "traffic_driver": nowhere,
            "ledger_driver": nowhere,
        }
    )


def haproxy_driver(bed: Bed, *hosts: str, **changed: object) -> Haproxies:
    """Open the driver for HAProxy on hosts."""
    sockets = [{"host": host, "path": SOCKET, "master": MASTER} for host in hosts]
    driver = haproxy.build({"hosts": hosts_of(bed, *hosts), "sockets": sockets, "python": PYTHON, **changed}, inventory(hold=True))
    assert isinstance(driver, Haproxies)
    return driver


def nginx_driver(bed: Bed, *hosts: str, **changed: object) -> Nginxes:
    """Open the driver for nginx on hosts, and allow there what it needs."""
    settings = {
        "hosts": hosts_of(bed, *hosts),
        "include": INCLUDE,
        "nginx": [str(nginx_binary())],
        "python": PYTHON,
        "hold_page": HOLD_PAGE,
    }
    driver = nginx.build({**settings, "proxies": list(hosts), **changed}, inventory())
    assert isinstance(driver, Privileged)
    for one in driver.privileges():
        bed.write(one.host, "/etc/sudoers.d/rollout", sudoers_text([one]), "440")
    return driver
