"""systemd's units: what they start, with which files, and what goes down along with what."""

from pathlib import Path

from rollout.adapters.discovery.look import look
from rollout.adapters.discovery.places import Named
from rollout.adapters.discovery.unit_files import parse_units
from rollout.homeservers.synapse.deriving.sources import Unit

WORKER = """\
[Unit]
Requires=matrix-synapse.service
PartOf=matrix-synapse.target other.service
[Service]
ExecStart=/opt/bin/python -m synapse.app.generic_worker \\
  --config-path=/etc/s/homeserver.yaml \\
# a comment in between
  --config-path=/etc/s/conf.d/ -c "/etc/s/workers/%i.yaml"
"""


def only(files: dict[str, str], *links: str) -> Unit:
    (unit,) = parse_units(files, links)
    return unit


def test_a_template_names_its_files_and_its_enabled_instances() -> None:
    unit = only(
        {"/e/w@.service": WORKER}, "/e/s.target.wants/w@sync1.service", "/e/s.target.wants/x@y.service", "/e/a.requires/w@sync2.service"
    )
    assert unit.configs == ("/etc/s/workers/%i.yaml",)
    assert unit.instances == ("sync1", "sync2")
    assert not unit.main
    assert unit.program == "/opt/bin/python"
    assert unit.place.line == 5


def test_ties_are_told_with_their_lines() -> None:
    ties = [(tie.verb, tie.unit, tie.place.line) for tie in only({"/e/w@.service": WORKER}).ties]
    assert ties == [("Requires", "matrix-synapse.service", 2), ("PartOf", "matrix-synapse.target", 3), ("PartOf", "other.service", 3)]


def test_main_is_known_by_what_it_starts() -> None:
    keys = "ExecStartPre=python -m synapse.app.homeserver -c /etc/s/homeserver.yaml --generate-keys\n"
    assert only({"/e/m.service": f"[Service]\n{keys}ExecStart=python -m synapse.app.homeserver -c /etc/s/homeserver.yaml\n"}).main


def test_a_container_is_known_by_its_own_name() -> None:
    run = "run -m synapse.app.generic_worker -c /data/h.yaml -c /data/w.yaml"
    text = f"[Service]\nExecStartPre=/usr/bin/docker create --name=w-0 image {run}\nExecStart=/usr/bin/docker start --attach w-0\n"
    unit = only({"/e/w-0.service": text})
    assert (unit.container, unit.configs, unit.program) == ("w-0", ("/data/w.yaml",), "")


def test_a_drop_in_follows_its_unit_and_the_first_unit_counts() -> None:
    files = {
        "/etc/w@.service": WORKER,
        "/etc/w@.service.d/more.conf": "[Service]\nExecStart=\nExecStart=/new/python -m synapse.app.generic_worker -c a.yaml -c b.yaml\n",
        "/lib/w@.service": "[Service]\nExecStart=/old/python -m synapse.app.generic_worker -c a.yaml -c c.yaml\n",
    }
    unit = only(files)
    assert unit.program == "/new/python"
    assert "c.yaml" not in unit.configs


def test_units_of_others_are_left_out() -> None:
    assert parse_units({"/e/cron.service": "[Service]\nExecStart=/usr/sbin/cron -c x.yaml\n"}, ()) == ()


def test_haproxys_master_socket() -> None:
    environment = 'Environment="CONFIG=/c" "EXTRAOPTS=-S /run/haproxy-master.sock"'
    debian = f"[Service]\n{environment}\nExecStart=/usr/sbin/haproxy -Ws -f $CONFIG $EXTRAOPTS\n"
    assert only({"/e/haproxy.service": debian}).master_socket == "/run/haproxy-master.sock"
    assert only({"/e/haproxy.service": "[Service]\nExecStart=haproxy -W -S /run/m,mode,600 -f c\n"}).master_socket == "/run/m"


def test_links_that_lead_nowhere_from_here_still_say_what_is_enabled(tmp_path: Path) -> None:
    """In a copy of /etc they all do; and a masked unit is one to /dev/null."""
    (tmp_path / "homeserver.yaml").write_text("server_name: a.org\n")
    units = tmp_path / "system"
    (units / "s.target.wants").mkdir(parents=True)
    (units / "w@.service").write_text(WORKER)
    (units / "s.target.wants/w@sync1.service").symlink_to("/nowhere/w@.service")
    (units / "synapse-gone.service").symlink_to("/nowhere/else")
    (units / "synapse-masked.service").symlink_to("/dev/null")
    (unit,) = look(Named((tmp_path / "homeserver.yaml",), units=(units,))).sources.units
    assert unit.instances == ("sync1",)
