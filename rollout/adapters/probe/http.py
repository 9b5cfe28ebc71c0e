"""
Requests of our own, straight to a worker's port.

Canaries are asked as a user of an application service that is registered with the homeserver, so that no user's token is needed. The
token goes into a header, which no error and no log ever holds.
"""

from collections.abc import Callable, Collection, Mapping
from time import monotonic  # noqa: TID251  (how long an answer takes is what this measures)

import requests
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as ReadTimeoutError

from rollout.adapters.asking import Asker
from rollout.adapters.settings import SecretReference, Settings, check, resolve_secret
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.ports.probe import Answer

BODY_BYTES_MAX = 4_000_000
_WHOAMI = "/_matrix/client/v3/account/whoami"
_WHOAMI_TIMEOUT_S = 3.0
_UNKNOWN = frozenset({"answered 401", "answered 403"})


class ProbeSettings(Settings):
    """
    *as_token*: a reference to an application service's token, *user* the full user id that it asks as; without them there are no
    canaries.
    """

    as_token: SecretReference | None = None
    user: str | None = None


def build(settings: Mapping[str, object], inventory: Inventory) -> "HttpProbe":
    """Open the driver. Raises InvalidFileError when the secret isn't there."""
    checked = check(ProbeSettings, settings, "probe_driver")
    token = None if checked.as_token is None or checked.user is None else resolve_secret(checked.as_token)
    return HttpProbe({worker: entry.url.rstrip("/") for worker, entry in inventory.workers.items()}, token, checked.user)


class HttpProbe:
    """See ports.probe."""

    def __init__(self, urls: Mapping[WorkerId, str], token: str | None, user: str | None) -> None:
        self._urls = urls
        self._token = token
        self._user = user
        # A restarted worker has closed its connections; one that was kept would fail once, for no fault of the worker.
        self._asker = Asker({"Connection": "close"}, len(urls))

    def health(self, workers: Collection[WorkerId], timeout_s: float) -> dict[WorkerId, Answer]:
        """See ports.probe."""
        return self._asker.each(workers, lambda worker: self._get(worker, lambda url: self._asker.get(f"{url}/health", timeout_s)))

    def health_address(self, worker: WorkerId) -> str | None:
        """See ports.acts."""
        return f"{self._urls[worker]}/health" if worker in self._urls else None

    def unavailable(self, timeout_s: float) -> str:
        """See ports.probe: asked of the first worker that says anything."""
        if self._token is None or self._user is None:
            return "probe_driver in the inventory has no as_token and user: those of an application service that is registered"
        end_s = monotonic() + timeout_s
        why = "no worker said whether the homeserver knows the application service"
        for worker in self._urls:
            answer = self.canary({worker: _WHOAMI}, max(0.1, min(_WHOAMI_TIMEOUT_S, end_s - monotonic())))[worker]
            if answer.ok:
                return ""
            if answer.why in _UNKNOWN:
                return f"the homeserver doesn't know the application service, or {self._user} ({answer.why}): register it, and restart"
        return why

    def canary(self, paths: Mapping[WorkerId, str], timeout_s: float) -> dict[WorkerId, Answer]:
        """See ports.probe."""
        if self._token is None or self._user is None:
            return {}
        # As bytes: a token with a character that a header can't hold would otherwise raise an error that repeats it.
        headers = {"Authorization": f"Bearer {self._token}".encode()}
        parameters = {"user_id": self._user}

        def ask(worker: WorkerId) -> Answer:
            return self._get(worker, lambda url: self._asker.get_once(url + paths[worker], timeout_s, headers, parameters))

        return self._asker.each(paths, ask)

    def _get(self, worker: WorkerId, get: Callable[[str], requests.Response]) -> Answer:
        if worker not in self._urls:
            return Answer(ok=False, seconds=0.0, why="the inventory has no address for it")
        began_s = monotonic()
        try:
            with get(self._urls[worker]) as answer:
                read = 0
                while chunk := answer.raw.read1(65_536):
                    read += len(chunk)
                    if read > BODY_BYTES_MAX:
                        return Answer(ok=False, seconds=monotonic() - began_s, why="the answer does not end")
                why = "" if answer.status_code == requests.codes.ok else f"answered {answer.status_code}"
                if not why and not read:
                    # What is asked has an answer with a body; a worker that dies inside its header sends none, and the header seems whole.
                    why = "the answer is empty"
                return Answer(ok=not why, seconds=monotonic() - began_s, why=why)
        except (requests.RequestException, HTTPError) as error:
            why = "no answer in time" if isinstance(error, requests.Timeout | ReadTimeoutError) else type(error).__name__
            return Answer(ok=False, seconds=monotonic() - began_s, why=why)
