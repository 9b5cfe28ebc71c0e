"""An inventory, derived from what was read: by what, where and of what release its workers' processes are started."""

from rollout.homeservers.synapse.deriving.derive import derive
from rollout.homeservers.synapse.deriving.sources import Program, Supervisor, Tie, Unit
from tests.homeservers.derived import HERE, METRICS, contradictions, derived, http, marks, sources, worker

UNITS = (
    Unit("s.service", HERE, main=True, program="/opt/bin/python"),
    Unit(
        "w@.service", HERE, ("/etc/s/workers/%i.yaml",), ("a",), ties=(Tie("Requires", "s.service", HERE), Tie("PartOf", "s.target", HERE))
    ),
)


def test_units_of_a_template_by_the_files_that_it_names() -> None:
    found = derived(worker("a", http(1, "client"), METRICS), worker("b", http(2, "client"), METRICS), units=UNITS)
    assert found.content["workers_driver"] == {
        "driver": "systemd_ssh",
        "hosts": {"local": {"address": "127.0.0.1", "user": None}},
        "units": {"main": "s.service", "a": "w@a.service", "b": "w@b.service"},
    }
    assert marks(found, "workers_driver", "units", "b") == ["w@b.service is not enabled, as others of w@.service are"]
    assert marks(found, "workers_driver", "units", "main") == ["systemd takes a, b down along with s.service: Requires=s.service (a:1)"]


def test_an_enabled_instance_without_a_file_is_said() -> None:
    units = (UNITS[0], Unit("w@.service", HERE, ("/etc/s/workers/%i.yaml",), ("a", "old")))
    assert contradictions(derived(worker("a", http(1, "client"), METRICS), units=units)) == [
        "w@old.service starts a worker of which no file was read"
    ]


def test_a_template_of_which_nothing_is_enabled_starts_nobody() -> None:
    """Debian's package brings one along, whether there are workers or not."""
    assert contradictions(derived(units=(UNITS[0], Unit("w@.service", HERE, ("/etc/s/workers/%i.yaml",))))) == []


def test_a_worker_without_a_unit_is_marked() -> None:
    found = derived(worker("a", http(1, "client"), METRICS), units=UNITS[:1])
    assert marks(found, "workers_driver", "units", "a") == ["! no unit names /etc/s/workers/a.yaml"]


def test_every_machine_is_one_of_the_hosts() -> None:
    """A worker on a host that isn't listed would be refused."""
    mapped = {"main": {"host": "10.0.0.1", "port": 8008}, "w": {"host": "10.0.0.2", "port": 8081}}
    found = derived(worker("w", http(8081, "client"), METRICS), worker("x", METRICS), units=UNITS, shared={"instance_map": mapped})
    section = found.content["workers_driver"]
    assert isinstance(section, dict)
    assert {name: one["address"] for name, one in section["hosts"].items()} == {
        "10.0.0.1": "10.0.0.1",
        "10.0.0.2": "10.0.0.2",
        "local": "127.0.0.1",
    }
    assert marks(found, "workers_driver", "hosts", "10.0.0.2", "user") == ["! no file says as whom rollout shall log in to 10.0.0.2"]
    assert marks(found, "workers", "x") == ["no file says which machine it runs on, and others run on 10.0.0.1, 10.0.0.2"]


def supervisor(*names: str, socket: str | None = "/run/s.sock") -> Supervisor:
    programs = tuple(Program(name, f"/srv/s/current/{name}/venv/bin/python", HERE) for name in names)
    return Supervisor(("s.conf",), socket, programs, "/run/master.sock")


def test_supervisord_is_reached_by_its_socket_and_knows_the_workers_by_their_names() -> None:
    found = derived(worker("w", http(8081, "client"), METRICS), supervisor=supervisor("main", "other"))
    assert found.content["workers_driver"] == {"driver": "supervisor", "socket": "/run/s.sock"}
    assert marks(found, "workers", "w") == ["supervisord has no program of this name (s.conf)"]
    assert marks(found, "workers", "main") == []
    assert marks(derived(supervisor=supervisor("main", socket=None)), "workers_driver", "socket")[0].startswith("! no `file`")


def test_a_supervisord_of_others_starts_none_of_them() -> None:
    found = derived(supervisor=supervisor("web"))
    assert marks(found, "workers_driver", "socket") == ["! supervisord starts none of the workers by its name (its programs: web)"]


def test_releases_are_where_the_workers_are_started_from() -> None:
    releases = derived(supervisor=supervisor("main")).content["releases_driver"]
    assert releases == {"driver": "venv", "target": "/srv/s", "locks": None}
    elsewhere = derived(units=UNITS)
    assert elsewhere.content["releases_driver"] == {"driver": "venv", "target": None, "locks": None}
    assert "now /opt/bin/python is started" in marks(elsewhere, "releases_driver", "target")[0]


def test_a_driver_that_there_is_not_is_marked() -> None:
    found = derive(sources(units=UNITS), {"workers": ("supervisor",), "traffic": ("haproxy",)})
    assert marks(found, "workers_driver", "driver") == ["! this release has no driver systemd_ssh; there is supervisor"]
    assert marks(derived(units=UNITS), "workers_driver", "driver") == []
