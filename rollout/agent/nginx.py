"""
nginx's upstream servers, in an include file that only we change: `weight` and `down` of one `server` line, and nothing else.

Open-source nginx can't be told at run time; it reads its configuration again when it is reloaded. What the file says is true only once new
workers have begun and the old ones have stopped to accept. So three files stand beside it, hidden, or a pattern that includes the directory
would take them in: `pending` is what is being changed to and who accepted before, `loaded` what was confirmed last, `before` the text that
the last change replaced. Sources: nginx.org, ngx_http_upstream_module (`server`), "Controlling nginx" (changing configuration).
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

from rollout.agent import nginx_configuration as configuration
from rollout.agent.fault import PERMANENT, TRANSIENT, UNKNOWN, Fault
from rollout.agent.process_table import status

LOADED, BEFORE, PENDING = "loaded", "before", "pending"
WAIT_S = 0.05
# A worker that began so long after the file was written has read it; the two times come from different clocks.
SURELY_S = 1.0
# Fields of `status`: the parent's id first, and the start in ticks since the machine's.
_PARENT, _STARTED = 0, 18
_UPSTREAM = re.compile(r"\s*upstream\s+(\S+?)\s*\{\s*(?:#.*)?$")
_SERVER = re.compile(r"(?P<indent>\s*)server\s+(?P<address>[^\s;]+)(?P<rest>[^;#]*);[ \t]*(?:#[ \t]*(?P<name>\S+)[ \t]*)?$")
_CHANGED = re.compile(r"(?:weight=\d+|down)$")
_WORKER = b"nginx: worker process"


class Entry:
    """One `server`: where it is, its weight (None: not written, which is 1), and whether it is down."""

    def __init__(self, line: int, address: str, words: list[str]) -> None:
        self.line = line
        self.address = address
        self.down = "down" in words
        weights = [int(word.removeprefix("weight=")) for word in words if word.startswith("weight=")]
        self.weight = weights[-1] if weights else None


def servers(text: str, where: str) -> dict[tuple[str, str], Entry]:
    """Read the file: each upstream's servers by the name in the comment behind them, or by address. Raises Fault (PERMANENT)."""
    found: dict[tuple[str, str], Entry] = {}
    upstream: str | None = None
    for number, line in enumerate(text.splitlines()):
        if match := _UPSTREAM.match(line):
            upstream = match[1]
        elif line.strip() == "}":
            upstream = None
        elif re.match(r"\s*server\b", line):
            match = _SERVER.match(line)
            if match is None or upstream is None:
                remedy = "`server ADDRESS weight=100; # WORKER`, a line each, in `upstream NAME {`"
                raise Fault(PERMANENT, "this server can't be read", where=f"{where}, line {number + 1}", why=line.strip(), remedy=remedy)
            if any(word.startswith("weight=") and not word[7:].isdecimal() for word in match["rest"].split()):
                raise Fault(PERMANENT, "this weight is no number", where=f"{where}, line {number + 1}", why=line.strip())
            key = upstream, match["name"] or match["address"]
            if key in found:
                raise Fault(PERMANENT, f"upstream {upstream} has {key[1]} twice", where=f"{where}, line {number + 1}")
            found[key] = Entry(number, match["address"], match["rest"].split())
    return found


def with_server(text: str, where: str, upstream: str, name: str, weight: int | None) -> str:
    """Return the file with another weight of one server, or with the server down (None). Raises Fault (PERMANENT)."""
    entry = servers(text, where).get((upstream, name))
    if entry is None:
        raise Fault(PERMANENT, f"nginx's file has no server {name} in upstream {upstream}", where=where)
    lines = text.splitlines(keepends=True)
    match = _SERVER.match(lines[entry.line])
    if match is None:  # it was read just now
        raise AssertionError(lines[entry.line])
    words = [word for word in match["rest"].split() if not _CHANGED.match(word)]
    full = entry.weight if entry.weight is not None else 100
    words = [f"weight={full if weight is None else weight}", *words, *(["down"] if weight is None else [])]
    behind = lines[entry.line][match.end("rest") :]
    lines[entry.line] = f"{match['indent']}server {entry.address} {' '.join(words)}{behind}"
    return "".join(lines)


def tell(act: Mapping[str, Any]) -> None:
    """Change one server, and return once nginx has taken it over; what is so already is left alone. Raises Fault."""
    end_s = monotonic() + act["timeout_s"]
    file = Path(act["include"])
    configuration.refuse_what_sudo_forbids(act["nginx"], [["-T"], ["-s", "reload"]], end_s)
    with _turn(file, end_s):
        text = read(file)
        wanted = with_server(text, str(file), act["upstream"], act["server"], act["weight"])
        before = workers(act["pid_file"])
        if not before:
            raise Fault(TRANSIENT, "nginx doesn't run", where=act["pid_file"])
        refuse_while_upgraded(act["pid_file"])
        was_read, pending = is_read(file, text, before), beside(file, PENDING)
        if wanted == text and was_read:
            return
        if was_read:
            _settle(file, text)
        earlier = _text(pending)
        try:
            # From here on nothing else tells whether nginx has the file as it is.
            _write(pending, json.dumps({"text": wanted, "before": sorted(before)}))
            if wanted != text:
                _write(beside(file, BEFORE), text)
                _write(file, wanted)
            said = configuration.as_tested(act["nginx"], end_s, "nginx would not take its configuration, so nothing was reloaded")
            configuration.refuse_what_leads_nowhere(said, file, [act["upstream"]])
            configuration.reload(act["nginx"], end_s)
        except Fault as fault:
            if fault.kind != UNKNOWN:
                _put_back(file, text, earlier)
            raise
        _await(lambda: _has_new_workers(act["pid_file"], before), end_s)
        # If this fails, what is pending says the same.
        with suppress(Fault):
            _settle(file, wanted)


def beside(file: Path, name: str) -> Path:
    """Name one of the files that stand beside the file of upstreams."""
    return file.with_name(f".{file.name}.{name}")


def is_read(file: Path, text: str, now: Mapping[tuple[int, int], float]) -> bool:
    """
    Tell whether the workers *now* have the file as it is, which is *text*. Raises Fault.

    What we have changed is read once nobody accepts who did before. For what somebody else has changed there is nothing but ages.
    """
    if not now:
        return False
    if (said := _text(beside(file, PENDING))) is not None:
        pending = _as_pending(said)
        if pending is not None and pending[0] == text:
            return not now.keys() & pending[1]
    elif _text(beside(file, LOADED)) == text:
        return True
    try:
        stat = file.stat()
    except OSError as error:
        raise Fault(TRANSIENT, "nginx's file of upstreams can't be seen", where=str(file), why=str(error)) from error
    return max(now.values()) < time.time() - max(stat.st_mtime, stat.st_ctime) - SURELY_S


def _as_pending(said: str) -> tuple[str, set[tuple[int, int]]] | None:
    try:
        found = json.loads(said)
        return str(found["text"]), {(int(pid), int(started)) for pid, started in found["before"]}
    except (ValueError, TypeError, KeyError):
        return None


def _settle(file: Path, text: str) -> None:
    """Write down that nginx has the file as it is, and nothing is pending."""
    _write(beside(file, LOADED), text)
    _remove(beside(file, PENDING))


def _put_back(file: Path, text: str, earlier: str | None) -> None:
    """Have everything as it was before. Raises Fault (UNKNOWN): a change that stays is taken over whenever somebody reloads."""
    try:
        if read(file) != text:
            _write(file, text)
        if earlier is None:
            _remove(beside(file, PENDING))
        else:
            _write(beside(file, PENDING), earlier)
    except Fault as fault:
        raise Fault(UNKNOWN, "nginx did not take the change, and it can't be taken back", where=str(file), why=str(fault)) from fault


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise Fault(PERMANENT, "this file can't be removed", where=str(file), why=str(error)) from error


def read(file: Path) -> str:
    """Read the include file. Raises Fault."""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Fault(PERMANENT, "nginx's file of upstreams can't be read", where=str(file), why=str(error)) from error


def _text(file: Path) -> str | None:
    try:
        return file.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Fault(TRANSIENT, "what nginx has read can't be known", where=str(file), why=str(error)) from error


def workers(pid_file: str) -> dict[tuple[int, int], float]:
    """
    Name the processes that accept, by number and start (ticks), with how many seconds ago that was; none when nginx doesn't run.

    Raises Fault (TRANSIENT) where that can't be seen.
    """
    try:
        master = int(Path(pid_file).read_text())
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        up_s = float(Path("/proc/uptime").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return {}
    except (OSError, ValueError) as error:
        raise Fault(TRANSIENT, "whether nginx runs can't be seen", where=pid_file, why=str(error)) from error
    found = {}
    for pid in map(int, children):
        fields = status(pid)
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ")
        except OSError:  # it has just ended
            continue
        if fields is not None and int(fields[_PARENT]) == master and name == _WORKER:
            found[pid, int(fields[_STARTED])] = up_s - int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
    return found


def refuse_while_upgraded(pid_file: str) -> None:
    """Raise Fault (TRANSIENT) while nginx's program is being replaced: the old master's workers accept too, and are told nothing."""
    old = f"{pid_file}.oldbin"
    if accepting := workers(old):
        why = f"the master before this one has {len(accepting)} workers that still accept, and no reload reaches them"
        remedy = f"end the old one with `kill -QUIT $(cat {old})`, or the new one"
        raise Fault(TRANSIENT, "nginx's program is being upgraded", where=old, why=why, remedy=remedy)


def _has_new_workers(pid_file: str, before: Mapping[tuple[int, int], float]) -> bool:
    try:
        now = workers(pid_file)
    except Fault:
        # By now it may have happened: that it can't be seen is no reason to say that it has not.
        return False
    return bool(now) and not now.keys() & before.keys()


def _await(holds: Callable[[], bool], end_s: float) -> None:
    while not holds():
        if monotonic() >= end_s:
            why = "no new workers have begun, or old ones go on"
            raise Fault(UNKNOWN, "nginx did not say whether it has taken the change over", why=why, remedy="look into its error log")
        time.sleep(WAIT_S)


@contextmanager
def _turn(file: Path, end_s: float) -> Iterator[None]:
    """Change the file one after the other: two workers' acts would undo one another."""
    try:
        lock = file.with_name(f".{file.name}.lock").open("a")
    except OSError as error:
        raise Fault(PERMANENT, "nginx's file of upstreams can't be changed", where=str(file), why=str(error)) from error
    with lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if monotonic() >= end_s:
                    raise Fault(TRANSIENT, "somebody else is changing nginx's upstreams", where=str(file)) from error
                time.sleep(WAIT_S)
        yield


def _write(file: Path, text: str) -> None:
    half = file.with_name(f".{file.name}.{os.getpid()}.half")
    try:
        with half.open("w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        if file.exists():
            half.chmod(file.stat().st_mode & 0o777)
        half.rename(file)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise Fault(PERMANENT, "nginx's file of upstreams can't be written", where=str(file), why=str(error)) from error
