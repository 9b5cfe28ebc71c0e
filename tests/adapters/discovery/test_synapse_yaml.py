"""Synapse's configuration is read as Synapse reads it, and only as far as it is asked for."""

from pathlib import Path

import pytest

from rollout.adapters.discovery.synapse_yaml import read_synapse_yaml
from rollout.homeservers.synapse.deriving.sources import ParsedFile, Shared
from rollout.model.errors import InvalidFileError


def read(tmp_path: Path, text: str, name: str = "homeserver.yaml") -> ParsedFile:
    path = tmp_path / name
    path.write_text(text)
    return read_synapse_yaml(path)


def test_only_what_is_asked_for_is_there(tmp_path: Path) -> None:
    found = read(tmp_path, "server_name: a.org\nform_secret: x\nlisteners: [{port: 1, key: x}]\ndatabase: {args: {host: h, password: x}}\n")
    assert found.values == {"server_name": "a.org", "listeners": [{"port": 1}], "database": {"args": {"host": "h"}}}


def test_a_database_that_is_named_by_a_connection_string_is_not_repeated(tmp_path: Path) -> None:
    found = read(tmp_path, "database: {name: psycopg2, args: {dbname: 'user=a password=b'}}\n")
    assert found.values["database"] == {"name": "psycopg2", "args": {"dbname": "…"}}


def test_every_value_has_its_line(tmp_path: Path) -> None:
    found = read(tmp_path, "# a comment\nserver_name: a.org\nstream_writers:\n  events:\n    - one\n    - two\n")
    assert str(found.place("stream_writers", "events", 1)) == f"{tmp_path}/homeserver.yaml:6"
    assert found.place("stream_writers", "events").line == 4
    assert found.place("stream_writers", "typing").line == 3
    assert found.place("instance_map").line == 1


def test_yaml_is_read_as_synapse_reads_it(tmp_path: Path) -> None:
    """What our own files refuse: words for truth values, octal numbers, aliases, merged mappings, keys that appear twice."""
    text = (
        "enable_metrics: yes\nmetrics_port: 0o17\nx: &main {host: h, port: 010}\ninstance_map:\n  main: *main\n  w: {<<: *main, host: i}\n"
    )
    text += "y: &writers {events: [a], typing: a}\nstream_writers: {<<: [*writers], typing: b}\n"
    found = read(tmp_path, f"{text}worker_name: a\nworker_name: b\n").values
    assert found["stream_writers"] == {"events": ["a"], "typing": "b"}
    assert found["enable_metrics"] is True
    assert found["instance_map"] == {"main": {"host": "h", "port": 8}, "w": {"host": "i", "port": 8}}
    assert found["worker_name"] == "b"


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just text\n"])
def test_what_is_no_mapping_has_nothing(text: str, tmp_path: Path) -> None:
    """Synapse ignores such a file, too."""
    assert read(tmp_path, text).values == {}


def test_aliases_of_aliases_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(InvalidFileError, match="aliases make more of this"):
        read(tmp_path, "\n".join([*lines, "stream_writers: {events: *x8}"]))


def test_an_alias_of_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="aliases make more of this"):
        read(tmp_path, "stream_writers: &x {events: [*x]}\n")


def test_a_file_that_is_too_big_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="larger than"):
        read(tmp_path, "#" * 2_000_001)


def test_a_file_that_is_not_utf_8_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "h.yaml").write_bytes(b"a: b\nserver_name: \xff\n")
    with pytest.raises(InvalidFileError) as refused:
        read_synapse_yaml(tmp_path / "h.yaml")
    assert refused.value.where.endswith("h.yaml:2:14")


def test_a_later_file_replaces_whole_sections(tmp_path: Path) -> None:
    first = read(tmp_path, "server_name: a.org\nstream_writers: {events: [one], typing: two}\n")
    second = read(tmp_path, "# more\nstream_writers: {events: [three]}\n", "more.yaml")
    shared = Shared((first, second))
    assert shared.values == {"server_name": "a.org", "stream_writers": {"events": ["three"]}}
    assert str(shared.place("stream_writers", "events")) == f"{tmp_path}/more.yaml:2"
    assert shared.place("server_name").file.endswith("homeserver.yaml")
