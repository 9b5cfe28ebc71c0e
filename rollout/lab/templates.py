"""Every configuration file of a lab, as text or as what YAML is written from."""

import base64
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from rollout.lab.paths import SERVER_NAME, WORKERS, Lab
from rollout.lab.programs import Programs

DATABASE = "synapse"
# A user like any other, as whom the application service asks.
CANARY_USER = "canary"


def write_secrets(lab: Lab) -> None:
    """Make what is secret, once."""
    for name in ("registration_shared_secret", "macaroon_secret", "worker_secret", "as_token", "hs_token"):
        path = lab.target / "etc" / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(16))
    key = lab.target / "etc/signing.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(f"ed25519 a_lab {base64.b64encode(secrets.token_bytes(32)).decode().rstrip('=')}\n")


def secret(lab: Lab, name: str) -> str:
    """Read a secret."""
    return (lab.target / "etc" / name).read_text()


def write_configuration(lab: Lab, place: Path) -> None:
    """Write homeserver.yaml and a file per worker below *place*, and what they refer to below the lab's etc/."""
    etc = lab.target / "etc"
    _write(etc / "log.yaml", _LOG)
    _write(etc / "application_service.yaml", _application_service(lab))
    _write(place / "homeserver.yaml", _homeserver(lab))
    for worker in WORKERS:
        if worker != "main":
            _write(place / "workers" / f"{worker}.yaml", _worker(lab, worker))


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


_LOG = {
    "version": 1,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s - %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    # INFO writes a line per request, which on two cores is load of its own.
    "root": {"level": "WARNING", "handlers": ["console"]},
    "disable_existing_loggers": False,
}


def _application_service(lab: Lab) -> dict[str, object]:
    return {
        "id": "rollout",
        "url": None,
        "as_token": secret(lab, "as_token"),
        "hs_token": secret(lab, "hs_token"),
        "sender_localpart": "rollout",
        "rate_limited": False,
        "namespaces": {"users": [{"regex": f"@.*:{SERVER_NAME}", "exclusive": False}], "rooms": [], "aliases": []},
    }


def _listeners(lab: Lab, worker: str) -> list[dict[str, object]]:
    return [
        {
            "type": "http",
            "port": lab.ports.http[worker],
            "bind_addresses": [lab.addresses.of(worker)],
            "x_forwarded": True,
            "resources": [{"names": ["client", "federation"] if WORKERS[worker][1] else []}],
        },
        {"type": "metrics", "port": lab.ports.metrics[worker], "bind_addresses": [lab.addresses.of(worker)]},
    ]


def _replication(lab: Lab) -> dict[str, object]:
    return {
        "type": "http",
        "port": lab.ports.replication,
        "bind_addresses": [lab.addresses.of("main")],
        "resources": [{"names": ["replication"]}],
    }


def _homeserver(lab: Lab) -> dict[str, object]:
    often = {"per_second": 10_000, "burst_count": 10_000}
    etc, here = lab.target / "etc", lab.addresses.here
    return {
        "server_name": SERVER_NAME,
        "public_baseurl": f"{lab.base_url}/",
        "pid_file": str(lab.runtime / "main.pid"),
        "report_stats": False,
        "listeners": [*_listeners(lab, "main"), _replication(lab)],
        "database": {
            "name": "psycopg2",
            "args": {"user": "synapse", "database": DATABASE, "host": here, "port": lab.ports.postgres, "cp_min": 2, "cp_max": 6},
        },
        "redis": {"enabled": True, "host": here, "port": lab.ports.valkey},
        "instance_map": {
            "main": {"host": lab.addresses.of("main"), "port": lab.ports.replication},
            "event_persister1": {"host": lab.addresses.of("event_persister1"), "port": lab.ports.http["event_persister1"]},
        },
        "stream_writers": {"events": ["event_persister1"]},
        "send_federation": False,
        "federation_sender_instances": ["fedsender1"],
        "worker_replication_secret": secret(lab, "worker_secret"),
        "registration_shared_secret": secret(lab, "registration_shared_secret"),
        "macaroon_secret_key": secret(lab, "macaroon_secret"),
        "signing_key_path": str(etc / "signing.key"),
        "media_store_path": str(lab.target / "media"),
        "log_config": str(etc / "log.yaml"),
        "app_service_config_files": [str(etc / "application_service.yaml")],
        "enable_metrics": True,
        "enable_registration": False,
        "presence": {"enabled": False},
        "trusted_key_servers": [],
        "federation_verify_certificates": False,
        # The peer is on this machine.
        "ip_range_blacklist": [],
        # Otherwise a sender that once didn't find its peer, which goes down with the lab, leaves it alone for ten minutes.
        "federation": {"destination_min_retry_interval": "1s", "destination_max_retry_interval": "5s"},
        # Otherwise the same /sync asked again is answered from a cache for two minutes, and says nothing of the worker.
        "caches": {"sync_response_cache_duration": 0},
        "rc_message": often,
        "rc_registration": often,
        "rc_login": {"address": often, "account": often, "failed_attempts": often},
        "rc_joins": {"local": often, "remote": often},
        "rc_joins_per_room": often,
        "rc_admin_redaction": often,
        "rc_invites": {"per_room": often, "per_user": often, "per_issuer": often},
        "rc_federation": {"window_size": 1000, "sleep_limit": 1000, "sleep_delay": 500, "reject_limit": 1000, "concurrent": 50},
        "suppress_key_server_warning": True,
        "password_config": {"pepper": ""},
        "bcrypt_rounds": 4,
    }


def _worker(lab: Lab, worker: str) -> dict[str, object]:
    listeners = _listeners(lab, worker)
    if worker == "event_persister1":
        # The listener that others reach it by carries replication.
        listeners[0]["resources"] = [{"names": ["replication"]}]
    return {
        "worker_app": "synapse.app.generic_worker",
        "worker_name": worker,
        "worker_listeners": listeners,
        "worker_log_config": str(lab.target / "etc" / "log.yaml"),
    }


def inventory(lab: Lab) -> str:
    """Write the inventory that `rollout` reads."""
    workers: dict[str, dict[str, object]] = {}
    for worker, (role, pool) in WORKERS.items():
        place = {"url": lab.url(worker), "metrics": lab.metrics_url(worker)}
        workers[worker] = {"role": role, **({"pool": pool} if pool else {}), **place}
    target = str(lab.target)
    content = {
        "homeserver": SERVER_NAME,
        "kind": "synapse",
        "workers": workers,
        "pools": {"sync": {"backend": "sync"}, "client": {"backend": "client"}, "main": {"backend": "main", "hold": True}},
        "workers_driver": {"driver": "supervisor", "socket": str(lab.supervisor_socket)},
        "releases_driver": {"driver": "venv", "target": target, "locks": f"{target}/locks"},
        "traffic_driver": {"driver": "haproxy", "sockets": [str(lab.proxy_socket)], "master_socket": str(lab.proxy_master_socket)},
        "metrics_driver": {"driver": "scrape"},
        "probe_driver": {"driver": "http", "as_token": f"file:{target}/etc/as_token", "user": f"@{CANARY_USER}:{SERVER_NAME}"},
        "warming_driver": {"driver": "application_service", "as_token": f"file:{target}/etc/as_token"},
        "database_driver": {"driver": "postgresql", "dsn": f"file:{target}/etc/database.dsn"},
        "ledger_driver": {"driver": "file", "path": f"{target}/rollout/ledger.json"},
    }
    return "# Written by `rollout lab up`.\n" + yaml.safe_dump(content, sort_keys=False)


def haproxy(lab: Lab, servers: Mapping[str, str] | None = None) -> str:
    """
    Write the proxy's configuration, with the routes of Synapse's docs/workers.md. *servers* has the lines that say who serves a pool where
    those aren't the lab's own workers.

    Nothing is retried or sent to another server, so that a cut request is seen as one. Connections to the servers are not kept, so that a
    server that closes an idle one cuts nothing.
    """
    servers = servers or {
        pool: "\n".join(
            f"    server {worker} {lab.addresses.of(worker)}:{lab.ports.http[worker]}"
            for worker, (_, its_pool) in WORKERS.items()
            if its_pool == pool
        )
        for pool in ("sync", "client", "main")
    }
    return f"""\
global
    stats socket {lab.proxy_socket} mode 600 level admin
    stats timeout 1m
    log stderr format raw local0 notice
    # Requests for main wait here while it restarts.
    lua-load {lab.target}/etc/hold.lua

defaults
    mode http
    timeout connect 5s
    timeout client 120s
    timeout server 120s
    timeout queue 10s
    # A worker that is busy for some seconds is not down, and where a sibling is out nobody else would be left.
    timeout check 10s
    timeout http-request 10s
    retries 0
    option http-server-close
    option forwardfor
    option httpchk GET /health
    default-server check inter 500ms fastinter 200ms downinter 200ms rise 2 fall 2 weight 100

frontend clients
    bind {lab.addresses.of("haproxy")}:{lab.ports.proxy}
    acl sync path_reg ^/_matrix/client/(r0|v3)/sync$
    acl sync path_reg ^/_matrix/client/(api/v1|r0|v3)/(events|initialSync)$
    acl client path_reg ^/_matrix/client/unstable/org.matrix.simplified_msc3575/sync$
    acl client path_reg ^/_matrix/client/(api/v1|r0|v3)/rooms/[^/]+/(send|state|join|members|joined_members|messages|context|event|redact)
    acl client path_reg ^/_matrix/client/(r0|v3)/(createRoom|joined_rooms|join/|account/whoami|devices|capabilities|keys/query)
    acl client path_reg ^/_matrix/client/(r0|v3)/profile/
    acl client path /_matrix/client/versions
    use_backend sync if sync
    use_backend client if client
    default_backend main

backend sync
    balance hdr(Authorization)
    hash-type consistent
{servers["sync"]}

backend client
    balance leastconn
{servers["client"]}

backend main
    balance roundrobin
    http-request lua.rollout_hold
{servers["main"]}
"""


def supervisord(lab: Lab, programs: Programs) -> str:
    """Write the process manager's configuration: everything that runs here does so under it, named as in the inventory."""
    head = f"""\
[unix_http_server]
file={lab.supervisor_socket}
chmod=0700

[supervisord]
logfile={lab.target}/log/supervisord.log
pidfile={lab.runtime}/supervisord.pid
childlogdir={lab.target}/log
minfds=4096
silent=true

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{lab.supervisor_socket}
"""
    return head + "".join(
        _program(lab, name, command, user)
        for name, (command, user) in programs.commands(lab).items()
        if name not in lab.addresses.elsewhere
    )


def _program(lab: Lab, name: str, command: list[str], user: str | None) -> str:
    # PostgreSQL ends at once, and cleanly, on SIGINT; the others on SIGTERM.
    stop = "INT" if name == "postgres" else "TERM"
    line = " ".join(part.replace("%", "%%") for part in command)
    return f"""
[program:{name}]
command={line}
directory={lab.runtime if user else lab.target}
autostart=false
autorestart=false
startsecs=0
startretries=0
stopsignal={stop}
stopwaitsecs=20
killasgroup=true
redirect_stderr=true
stdout_logfile={lab.target}/log/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=1
{f"user={user}" if user else ""}
"""


def python() -> str:
    """Name the interpreter that runs supervisord and the load."""
    return sys.executable
