"""
Holding requests in nginx, by a file beside the file of upstreams that hold.lua there reads, and its page that says what came of it.

Source: rollout/adapters/traffic/nginx_hold.lua.
"""

import http.client
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from rollout.agent.fault import PERMANENT, TRANSIENT, UNKNOWN, Fault

PAGE_BYTES_MAX = 1_000_000
WAIT_S = 0.05
REMEDY = "the lines that hold.lua begins with, in nginx.conf, and hold.lua itself beside the file of upstreams"


def see(url: str, include: str, timeout_s: float) -> dict[str, dict[str, Any]]:
    """Return what the page says of each upstream. Raises Fault: where it doesn't answer nobody knows what waits."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=max(0.05, timeout_s))
    try:
        connection.request("GET", address.path or "/")
        answer = connection.getresponse()
        text = answer.read(PAGE_BYTES_MAX)
        if answer.status != http.client.OK:
            raise Fault(TRANSIENT, f"the page of nginx's hold answers {answer.status}", where=url, remedy=REMEDY)
        found = json.loads(text)
        directory, rows = str(found["directory"]), dict(found["upstreams"])
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError) as error:
        why = f"{type(error).__name__}: {error}"
        raise Fault(TRANSIENT, "the page of nginx's hold doesn't answer", where=url, why=why, remedy=REMEDY) from error
    finally:
        connection.close()
    ours = os.path.realpath(Path(include).parent)
    if os.path.realpath(directory) != ours:
        why = f"it would look for what is to be held in {directory}"
        raise Fault(PERMANENT, "nginx's hold.lua isn't beside the file of upstreams", where=url, why=why, remedy=f"move it to {ours}")
    return rows


def tell(act: Mapping[str, Any]) -> None:
    """Hold an upstream's requests, or let them go (no *hold_s*); what is so already is left alone. Raises Fault."""
    end_s = monotonic() + act["timeout_s"]
    upstream, include, url = str(act["upstream"]), str(act["include"]), str(act["page"])
    file = Path(include).with_name(f".hold.{upstream}")
    if act["hold_s"] is None:
        _remove(file)
        return
    if upstream not in see(url, include, act["timeout_s"]):
        why = "they don't pass through hold.lua, or none has come since nginx was started"
        raise Fault(PERMANENT, f"nginx can't hold the requests of upstream {upstream}", where=url, why=why, remedy=REMEDY)
    since_s = time.time()
    if _ends_at_s(file) > since_s:
        return
    _write(file, f"{since_s:.3f} {since_s + act['hold_s']:.3f} {act['hold_max']}\n")
    while not _is_held(url, include, upstream, end_s):
        if monotonic() >= end_s:
            raise Fault(UNKNOWN, "nginx doesn't say that it holds", where=url, why=f"{file} tells it to", remedy="look into its error log")
        time.sleep(WAIT_S)


def _is_held(url: str, include: str, upstream: str, end_s: float) -> bool:
    """Tell whether nginx says that it holds. It has been told by now: that its page is away doesn't undo that."""
    try:
        row = see(url, include, end_s - monotonic()).get(upstream)
    except Fault:
        return False
    return row is not None and row["held_for_s"] is not None


def _ends_at_s(file: Path) -> float:
    """Tell until when a file says that something is held; long ago for what can't be read."""
    try:
        return float(file.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0


def _write(file: Path, text: str) -> None:
    half = file.with_name(f"{file.name}.{os.getpid()}.half")
    try:
        half.write_text(text)
        # nginx's workers read it, and are somebody else.
        half.chmod(0o644)
        half.rename(file)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise Fault(PERMANENT, "what is to be held can't be written down for nginx", where=str(file), why=str(error)) from error


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise Fault(PERMANENT, "what is held can't be let go: its file can't be removed", where=str(file), why=str(error)) from error
