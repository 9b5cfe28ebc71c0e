"""supervisord's configuration: where its socket is, and what it starts."""

from rollout.adapters.discovery.supervisord_conf import parse_supervisord

TEXT = """\
; a comment
[unix_http_server]
file=/run/supervisor.sock   ; where it listens
password=not-for-you

[program:sync1]
command=/srv/s/current/sync1/venv/bin/python -m synapse.app.generic_worker
environment=SECRET="not-for-you"
[program:haproxy]
command = "/usr/sbin/haproxy" -W -S /run/master.sock,mode,600 -f /etc/haproxy.cfg
[eventlistener:x]
command=/bin/x
[include]
files = conf.d/*.conf /etc/other.ini
"""


def test_its_socket_its_programs_and_haproxys_master() -> None:
    found = parse_supervisord({"/etc/s/supervisord.conf": TEXT, "/etc/s/conf.d/more.conf": "[program:main]\ncommand=python x\n"})
    assert found.socket == "/run/supervisor.sock"
    assert [(one.name, one.program, one.place.line) for one in found.programs] == [
        ("sync1", "/srv/s/current/sync1/venv/bin/python", 7),
        ("haproxy", "/usr/sbin/haproxy", 10),
        ("main", "python", 2),
    ]
    assert found.master_socket == "/run/master.sock"
    assert [one.what for one in found.gaps] == ["supervisord includes /etc/other.ini, which was not read"]
    assert "not-for-you" not in repr(found)


def test_a_socket_beside_the_file() -> None:
    assert parse_supervisord({"/etc/s.conf": "[unix_http_server]\nfile=%(here)s/s.sock\n"}).socket == "/etc/s.sock"
    assert parse_supervisord({"/etc/s.conf": "[unix_http_server]\nfile=%(ENV_HOME)s/s.sock\n"}).socket is None


def test_what_is_no_configuration_is_skipped() -> None:
    found = parse_supervisord({"s.conf": "[[[\n=\n[program:x]\ncommand='unended\n[program:a]\ncommand=b\n"})
    assert [(one.name, one.program) for one in found.programs] == [("x", "'unended"), ("a", "b")]
