"""
supervisord's configuration, as far as it says where its socket is and what it starts.

Commands are looked at for two things only: which program they begin with, and HAProxy's master socket. What else is in them, and in the
environment that they get, stays here: it may be a secret.

Source: supervisord's documentation of its configuration file, [unix_http_server], [program:x] and [include].
"""

import fnmatch
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rollout.adapters.discovery.places import named_by
from rollout.homeservers.synapse.deriving.sources import Gap, Place, Program, Supervisor

_SECTION = re.compile(r"\[([^\]:]+)(?::([^\]]+))?\]")
_SETTING = re.compile(r"([\w.]+)\s*[=:]\s*(.*)\Z")
_MASTER_SOCKET = re.compile(r"(?<!\S)-S\s+(/[^\s,]+)")


@dataclass(frozen=True, slots=True)
class _Line:
    section: str
    name: str
    key: str
    value: str
    place: Place


def parse_supervisord(files: Mapping[str, str]) -> Supervisor:
    """Read supervisord's files, text by name. Never raises."""
    lines = [line for name, text in files.items() for line in _lines(name, text)]
    programs: list[Program] = []
    gaps: list[Gap] = []
    socket = master = None
    for line in lines:
        match line.section, line.key:
            case "unix_http_server", "file":
                socket = line.value.replace("%(here)s", line.place.file.rpartition("/")[0] or ".")
            case "program", "command":
                words = _words(line.value)
                programs.append(Program(line.name, words[0] if words else "", line.place))
                if words and words[0].endswith("haproxy") and (found := _MASTER_SOCKET.search(line.value)):
                    master = found[1]
            case "include", "files":
                gaps += [
                    Gap(
                        f"supervisord includes {pattern}, which was not read",
                        f"--supervisord {named_by(pattern)}, if it is there",
                        line.place,
                    )
                    for pattern in line.value.split()
                    if not any(fnmatch.fnmatchcase(f"/{file}", f"*/{pattern.lstrip('/')}") for file in files)
                ]
    return Supervisor(tuple(files), None if socket is None or "%(" in socket else socket, tuple(programs), master, tuple(gaps))


def _lines(name: str, text: str) -> Iterator[_Line]:
    section, of = "", ""
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if match := _SECTION.match(stripped):
            section, of = match[1].strip(), (match[2] or "").strip()
        elif not stripped.startswith((";", "#")) and (match := _SETTING.match(stripped)):
            # A comment begins with a semicolon after a space.
            yield _Line(section, of, match[1], re.split(r"\s;", match[2])[0].strip(), Place(name, number))


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()
