"""HAProxy's and nginx's configurations: who is where, what leads to them, and what can't be told from here."""

import pytest

from rollout.adapters.discovery.haproxy_cfg import address_of, parse_haproxy
from rollout.adapters.discovery.nginx_conf import parse_nginx
from rollout.homeservers.synapse.deriving.sources import Backend, Proxy


def backend(proxy: Proxy, name: str) -> Backend:
    return next(one for one in proxy.backends if one.name == name)


def haproxy(text: str) -> Proxy:
    return parse_haproxy({"haproxy.cfg": text})


def nginx(text: str, **others: str) -> Proxy:
    return parse_nginx({"/etc/nginx/nginx.conf": text, **{f"/etc/nginx/{name}.conf": other for name, other in others.items()}})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("127.0.0.1:8083", ("127.0.0.1", 8083, None)),
        ("host.example:80", ("host.example", 80, None)),
        ("host.example", ("host.example", None, None)),
        ("[::1]:8083", ("::1", 8083, None)),
        ("ipv4@10.0.0.1:80", ("10.0.0.1", 80, None)),
        ("::1:8083", ("::1", 8083, None)),
        ("unix@/run/w.sock", ("", None, "/run/w.sock")),
        ("unix:/run/w.sock:", ("", None, "/run/w.sock")),
        ("/run/w.sock", ("", None, "/run/w.sock")),
    ],
)
def test_addresses(written: str, meant: tuple[str, int | None, str | None]) -> None:
    assert address_of(written) == meant


def test_haproxys_backends_servers_and_routes() -> None:
    proxy = haproxy(
        """
        frontend f
            acl sync path_reg -i ^/sync$   # those with a comment
            acl sync path_reg '^/events$'
            acl post method POST
            acl other path_beg /media
            use_backend a if sync post !other ! other or { path /x } !{ path /y } ! { path /z }
            default_backend b
        backend a
            server s1 10.0.0.1:80 check
        listen b
            bind :1
            server s2 10.0.0.2:80
        """
    )
    assert backend(proxy, "a").routes == ("^/sync$", "^/events$", "/x")
    assert [(one.name, one.host, one.port, one.place.line) for one in backend(proxy, "a").servers] == [("s1", "10.0.0.1", 80, 10)]
    assert (backend(proxy, "a").catches_all, backend(proxy, "b").catches_all) == (False, True)


@pytest.mark.parametrize(
    ("line", "routing"),
    [("balance roundrobin", None), ("balance random(2)", "even"), ("stick on src", "hash"), ("stick-table type ip size 1m", "hash")],
)
def test_haproxy_says_itself_how_it_routes_but_for_two_ways(line: str, routing: str | None) -> None:
    assert backend(haproxy(f"backend a\n  {line}\n"), "a").routing == routing


def test_a_backend_that_can_hold_is_known_by_its_action() -> None:
    proxy = haproxy("backend a\n  http-request lua.rollout_hold\nbackend b\n  http-request lua.other\n")
    assert (backend(proxy, "a").held, backend(proxy, "b").held) == (True, False)


@pytest.mark.parametrize(
    ("line", "sockets", "gap"),
    [
        ("stats socket /run/a.sock mode 600 level admin", ("/run/a.sock",), ""),
        ("stats socket unix@/run/a.sock level admin", ("/run/a.sock",), ""),
        ("stats socket /run/a.sock", (), "may not drain anybody (level operator)"),
        ("stats socket ipv4@127.0.0.1:9 level admin", (), "which is no file"),
        ("stats timeout 1m", (), ""),
    ],
)
def test_haproxys_admin_socket(line: str, sockets: tuple[str, ...], gap: str) -> None:
    proxy = haproxy(f"global\n  {line}\n")
    assert proxy.sockets == sockets
    assert [gap in one.what for one in proxy.gaps] == ([True] if gap else [])


@pytest.mark.parametrize(
    ("line", "gap"),
    [
        ("use_backend %[path,map(/m)]", "worked out when it comes"),
        ("acl a path_beg -f /etc/paths", "patterns of paths stand in /etc/paths"),
        ("server-template w 3 w.example:80", "made by a template"),
        ("server w ${W}:80", "stands in the environment"),
    ],
)
def test_what_haproxy_chooses_only_when_it_runs_is_a_gap(line: str, gap: str) -> None:
    (found,) = haproxy(f"listen l\n  {line}\n").gaps
    assert gap in found.what
    assert found.place.line == 2


def test_nginx_upstreams_servers_and_locations() -> None:
    proxy = nginx(
        """
        http {
            upstream a { hash $x consistent; server 10.0.0.1:80 weight=5; server unix:/run/w.sock; keepalive 4; }
            upstream b { least_conn; server "worker-0:8083"; }  # server commented:1;
            server {
                listen 80;
                location ~ "^/_matrix/x{1,2};$" { proxy_pass http://a$request_uri; }
                location = /y { if ($z) { proxy_pass http://b/; } }
                location / { proxy_pass http://b; }
            }
        }
        """
    )
    assert backend(proxy, "a").routes == ("^/_matrix/x{1,2};$",)
    assert backend(proxy, "a").routing == "hash"
    assert [(one.address, one.port, one.path) for one in backend(proxy, "a").servers] == [
        ("10.0.0.1:80", 80, None),
        ("unix:/run/w.sock", None, "/run/w.sock"),
    ]
    assert backend(proxy, "b").routes == ("/y", "/")
    assert backend(proxy, "b").catches_all
    assert backend(proxy, "b").routing == "even"
    assert [(one.host, one.port) for one in backend(proxy, "b").servers] == [("worker-0", 8083)]


def test_nginx_passes_through_maps_and_variables() -> None:
    proxy = nginx(
        """
        map $arg_since $sync { default a; '' b; }
        upstream a { server h:1; }
        upstream b { server h:2; }
        server { location /s { proxy_pass http://$sync; } location /t { set $to "c:3"; proxy_pass http://$to; } }
        """
    )
    assert (backend(proxy, "a").routes, backend(proxy, "b").routes) == (("/s",), ("/s",))
    assert backend(proxy, "c:3").direct
    assert backend(proxy, "c:3").servers[0].port == 3


def test_what_nginx_includes_is_used_if_it_was_read_and_a_gap_if_not() -> None:
    text = "upstream a { include servers.conf; } include conf.d/*.conf; include mime.types;"
    read = nginx(text, servers="server 10.0.0.1:80; server 10.0.0.2:80;")
    assert [one.host for one in backend(read, "a").servers] == ["10.0.0.1", "10.0.0.2"]
    assert [(one.what, one.look) for one in read.gaps] == [
        ("nginx includes conf.d/*.conf, which was not read", "--nginx conf.d, if it is about the homeserver")
    ]
    assert "nginx includes servers.conf, which was not read" in [one.what for one in nginx(text).gaps]


def test_a_file_that_includes_itself_ends() -> None:
    proxy = nginx("upstream a { include servers.conf; server h:1; }", servers="include servers.conf; server h:2;")
    assert [one.port for one in backend(proxy, "a").servers] == [2, 1]


@pytest.mark.parametrize(
    "text", ["location", "}}}} upstream a {", "upstream a { server", '"unended', "{" * 500, "set $x", "map $a $b { x }", "\\"]
)
def test_what_is_no_configuration_is_skipped(text: str) -> None:
    """Unknown lines are never an error; what follows is still read where that can be."""
    nginx(text)
    haproxy(text)
    assert backend(haproxy(f"{text}\nbackend b\n  server s h:1\n"), "b").servers
