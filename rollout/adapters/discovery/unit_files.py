"""
systemd's unit files, as far as they say what starts which process of Synapse, and what goes down along with what.

Only what is in files: what runs is not asked. Which instances of a template there are is told by the links that `systemctl enable` makes
(`NAME.wants/worker@sync1.service`). Environment files are not opened: they are where people keep secrets.

Source: systemd.unit(5) and systemd.service(5); the units of Synapse's docs/systemd-with-workers, of its Debian package and of
matrix-docker-ansible-deploy.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rollout.homeservers.synapse.deriving.sources import Place, Tie, Unit

_SETTING = re.compile(r"\s*(\w+)\s*=\s*(.*)\Z", re.DOTALL)
_CONFIG = re.compile(r"(?:--config-path|(?<!\S)-c)[=\s]+[\"']?([^\s\"']+\.yaml)")
_WORKER_APP = re.compile(r"synapse\.app\.(?!homeserver\b)\w+|\bsynapse_worker\b")
_MAIN_APP = re.compile(r"synapse\.app\.homeserver\b|\bsynapse_homeserver\b")
_CONTAINER = re.compile(r"(?:^|/)(?:docker|podman)\b|\b(?:docker|podman)\s+(?:create|run|start)\b")
_CONTAINER_NAME = re.compile(r"--name[=\s]+[\"']?([\w.-]+)")
_ENABLED = re.compile(r".*\.(?:wants|requires)/([^/]+@)([^/]+)(\.service)\Z")
_MASTER_SOCKET = re.compile(r"(?<!\S)[\"']?(?:EXTRAOPTS=[\"']?)?-S\s+(/[^\s\"',]+)")
_TIES = ("Requires", "BindsTo", "PartOf")


@dataclass(frozen=True, slots=True)
class _Line:
    key: str
    value: str
    place: Place


def parse_units(files: Mapping[str, str], links: Sequence[str]) -> tuple[Unit, ...]:
    """
    Read units, text by path, and say which of them start a part of Synapse, or HAProxy. Never raises.

    *links* are the paths of what is enabled. A unit that is there twice counts as it comes first; a drop-in (`NAME.d/….conf`) follows it.
    """
    texts: dict[str, list[_Line]] = {}
    first: dict[str, Place] = {}
    for path, text in files.items():
        folder, _, file = path.rpartition("/")
        if file.endswith(".service") and file not in first:
            first[file] = Place(path, 1)
            texts[file] = [*_lines(path, text), *texts.get(file, ())]
        elif folder.endswith(".service.d") and file.endswith(".conf"):
            texts.setdefault(folder.rpartition("/")[2].removesuffix(".d"), []).extend(_lines(path, text))
    found = [_unit(name, first[name], lines, links) for name, lines in texts.items() if name in first]
    return tuple(unit for unit in found if unit.main or unit.configs or unit.master_socket)


def _lines(path: str, text: str) -> Iterator[_Line]:
    """Take a text apart into its settings; a line that ends in a backslash goes on."""
    begun, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith(("#", ";")):
            continue
        begun = begun if parts else number
        parts.append(line.removesuffix("\\"))
        if line.endswith("\\"):
            continue
        if match := _SETTING.match(" ".join(parts)):
            yield _Line(match[1], match[2].strip(), Place(path, begun))
        parts = []


def _unit(name: str, place: Place, lines: Sequence[_Line], links: Sequence[str]) -> Unit:
    commands = [line for line in lines if line.key in {"ExecStart", "ExecStartPre"}]
    starts = [line for line in lines if line.key == "ExecStart" and line.value]
    # A container is made beforehand, by a command that names what it will run.
    said = " ".join(line.value for line in commands)
    worker = _WORKER_APP.search(said) is not None
    synapse = worker or _MAIN_APP.search(said) is not None
    # The first file is the shared one; a directory of more has no `.yaml`.
    configs = tuple(dict.fromkeys(_CONFIG.findall(said)))[1:] if worker else ()
    contained = any(_CONTAINER.search(line.value) for line in commands)
    names = _CONTAINER_NAME.findall(said)
    return Unit(
        name,
        starts[-1].place if starts else place,
        configs=configs,
        instances=tuple(sorted({match[2] for link in links if (match := _ENABLED.match(link)) and match[1] + match[3] == name})),
        program=starts[-1].value.split()[0].lstrip("-@:+!") if starts and synapse and not contained else "",
        main=synapse and not worker,
        container=(names[0] if names else name.removesuffix(".service")) if synapse and contained else "",
        ties=tuple(Tie(line.key, other, line.place) for line in lines if line.key in _TIES for other in line.value.split())
        if synapse
        else (),
        master_socket=_master_socket(lines) if name == "haproxy.service" else None,
    )


def _master_socket(lines: Sequence[_Line]) -> str | None:
    found = [
        match[1] for line in lines if line.key in {"ExecStart", "Environment"} for match in [_MASTER_SOCKET.search(line.value)] if match
    ]
    return found[-1] if found else None
