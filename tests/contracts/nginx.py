"""A real nginx in front of two servers that answer when they are told to."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rollout.agent.nginx import LOADED, beside, workers
from tests.contracts.proxy import Front, free_port, running, serving, until


def nginx_binary() -> Path:
    """Find Debian's nginx. It is not on everybody's PATH."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin")
    assert found is not None, "nginx is missing: apt-get install nginx"
    return Path(found)


# Of Debian's libnginx-mod-http-lua; the second needs the first.
MODULES = [Path("/usr/lib/nginx/modules", name) for name in ("ndk_http_module.so", "ngx_http_lua_module.so")]
HOLD_LUA = files("rollout.adapters.traffic").joinpath("nginx_hold.lua")


@dataclass(frozen=True, slots=True)
class Hold:
    """What a configuration needs so that upstream `sync` can be held: at its top, in http, in the location, and a server."""

    top: str = ""
    http: str = ""
    location: str = ""
    server: str = ""


def hold_in(directory: str, page: str) -> Hold:
    """Return it, for a hold.lua in *directory* that tells what it holds at *page* (an address)."""
    assert all(module.exists() for module in MODULES), "nginx's Lua is missing: apt-get install libnginx-mod-http-lua"
    return Hold(
        "".join(f"load_module {module};\n" for module in MODULES),
        f'lua_package_path "{directory}/?.lua;;"; lua_shared_dict rollout_hold 4m;',
        'access_by_lua_block { require("hold").wait("sync") } log_by_lua_block { require("hold").over() }',
        f'server {{ listen {page}; location / {{ content_by_lua_block {{ require("hold").tell() }} }} }}',
    )


class Nginx(Front):
    """nginx, with upstream `sync`; *include* is the file of upstreams, and *page* where it tells what it holds."""

    page: str | None = None

    @property
    def include(self) -> Path:
        return self.place / "upstreams.conf"

    @property
    def configuration(self) -> Path:
        return self.place / "nginx.conf"

    @property
    def pid_file(self) -> Path:
        return self.place / "nginx.pid"

    @property
    def command(self) -> tuple[str, ...]:
        return (str(nginx_binary()), "-p", str(self.place), "-c", str(self.configuration))


@contextmanager
def nginx(place: Path, names: tuple[str, ...] = ("sync1", "sync2"), *, processes: int = 2, can_hold: bool = False) -> Iterator[Nginx]:
    """Run one, with so many workers, in front of a backend for each name."""
    with serving(names) as backends:
        port = free_port()
        found = Nginx(place, port, backends)
        hold = Hold()
        if can_hold:
            address = f"127.0.0.1:{free_port()}"
            found.page = f"http://{address}/"
            hold = hold_in(str(place), address)
            (place / "hold.lua").write_text(HOLD_LUA.read_text())
        servers = "\n".join(f"    server 127.0.0.1:{backend.server_port} weight=100; # {name}" for name, backend in backends.items())
        found.include.write_text(f"# Of rollout.\nupstream sync {{\n{servers}\n}}\n")
        found.configuration.write_text(
            f"""\
{hold.top}worker_processes {processes};
user root; # whose the files of a test are
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{ worker_connections 200; }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    include {place}/upstreams.conf;
    {hold.http}
    {hold.server}
    server {{
        listen 127.0.0.1:{port};
        location / {{ {hold.location} proxy_pass http://sync; proxy_read_timeout 60s; proxy_next_upstream off; }}
    }}
}}
"""
        )
        with running(found, [*found.command, "-g", "daemon off;"]):
            until(lambda: found.pid_file.exists() and found.pid_file.read_text() != "")
            until(lambda: len(workers(str(found.pid_file))) == processes and _listens(port))
            yield found


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def say_that_it_is_read(include: Path) -> None:
    """Let it be known that nginx has the file as it is; it was written just before nginx was started, too short to tell by ages."""
    beside(include, LOADED).write_text(include.read_text())
