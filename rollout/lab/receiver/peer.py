"""What the lab does with its peer: start it, ask whether it is there, join it to rooms."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import requests

from rollout.lab.paths import SERVER_NAME, Lab
from rollout.model.errors import TransientDriverError

ANSWER_TIMEOUT_S = 2.0
# One join is two requests, the second of which waits until the homeserver has kept the event.
JOIN_TIMEOUT_S = 60.0


def command(lab: Lab) -> list[str]:
    """
    Return its command line, with the Python of the release that the lab has at this moment.

    The release itself is named, not the link to it: a rollout moves the link, and a process must not find other code where it began.
    """
    python = (lab.target / "current/main/venv").resolve() / "bin/python"
    # -P: what lies beside the file is none of its modules.
    script = Path(__file__).with_name("server.py")
    return [str(python), "-P", str(script), str(lab.receiver), lab.addresses.here, str(lab.ports.receiver), SERVER_NAME, lab.base_url]


def answers(lab: Lab) -> bool:
    """Tell whether it answers over HTTPS."""
    try:
        return _call(lab, "GET", "/_matrix/federation/v1/version", ANSWER_TIMEOUT_S).ok
    except OSError:
        return False


def join(lab: Lab, rooms: Iterable[str]) -> None:
    """Let it join *rooms*, those that it isn't in. Raises TransientDriverError when it can't."""
    for room in rooms:
        answer = _call(lab, "PUT", f"/join/{quote(room, safe='')}", JOIN_TIMEOUT_S)
        if not answer.ok:
            raise TransientDriverError(f"the peer could not join {room}", where="receiver", why=answer.text[:500])


def _call(lab: Lab, method: str, path: str, timeout_s: float) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        url = f"https://{lab.addresses.here}:{lab.ports.receiver}{path}"
        return session.request(method, url, verify=str(lab.receiver / "certificate.pem"), timeout=timeout_s)
