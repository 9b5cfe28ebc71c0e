"""
Warming through an application service: each request is made as one of its users, straight to the worker's port.

The proof is in the answers themselves: the last few users are asked once more, and how long that takes is told beside how long the first
answers took. The last of the time is kept for it, so that it is there also where the time, or the worker's CPU, ended the rest. The hit
ratios of all caches, from the worker's own metrics page, are told too, where it has one.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from statistics import median
from time import monotonic, sleep  # noqa: TID251  (a budget of seconds, and how long answers take, are what this is about)

import requests
from urllib3.exceptions import HTTPError

from rollout.adapters.in_time import POOLS
from rollout.adapters.settings import SecretReference, Settings, check, resolve_secret
from rollout.homeservers.synapse.warm_up import warm_up_path
from rollout.model.errors import TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.warming import WarmBudget, Warmed

REQUEST_TIMEOUT_S = 10.0
# Of its answer nothing is used; one that is larger than a big account's initial sync is not read to its end.
BODY_BYTES_MAX = 16_000_000
WHOAMI_TIMEOUT_S = 3.0
LOOK_EVERY_S = 1.0
PAUSE_S = 0.2
# Asked once more at the end, for the proof.
AGAIN_MAX = 5
# What is kept of the budget's seconds for that: this share, but enough for an answer, and never more than the half.
PROOF_SHARE = 0.1
PROOF_MIN_S = 0.5
_FIGURES = re.compile(rb"^(process_cpu_seconds_total|synapse_util_caches_cache(?:_hits)?)(?:\{[^}\n]*\})? ([0-9.eE+]+)$", re.MULTILINE)


class ApplicationServiceSettings(Settings):
    """*as_token*: a reference to the token of an application service whose namespace holds the users; it must not be exclusive."""

    as_token: SecretReference


def build(settings: Mapping[str, object], inventory: Inventory) -> "ApplicationServiceWarming":
    """Open the driver. Raises InvalidFileError when the secret isn't there."""
    token = resolve_secret(check(ApplicationServiceSettings, settings, "warming_driver").as_token)
    places = {worker: (entry.url.rstrip("/"), entry.metrics) for worker, entry in inventory.workers.items()}
    return ApplicationServiceWarming(places, token)


@dataclass(frozen=True, slots=True)
class _Figures:
    """What a metrics page says: CPU seconds of the process, and hits and look-ups of all caches together."""

    at_s: float
    cpu_s: float
    hits: float
    look_ups: float


class ApplicationServiceWarming:
    """See ports.warming. *places*: each worker's own address, and that of its metrics page."""

    def __init__(self, places: Mapping[WorkerId, tuple[str, str]], token: str) -> None:
        self._places = places
        # As bytes: a token with a character that a header can't hold would otherwise raise an error that repeats it.
        self._headers = {"Authorization": f"Bearer {token}".encode()}
        self._numbers = itertools.count(1)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Connection"] = "close"
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=32)
        adapter.poolmanager.pool_classes_by_scheme = POOLS
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def unavailable(self, timeout_s: float) -> str:
        """See ports.warming: whether the homeserver knows the application service, asked of the first worker that answers."""
        end_s = monotonic() + timeout_s
        for url, _ in self._places.values():
            status, _ = self._get(f"{url}/_matrix/client/v3/account/whoami", None, max(0.1, min(WHOAMI_TIMEOUT_S, end_s - monotonic())))
            if status == requests.codes.ok:
                return ""
            if status in {requests.codes.unauthorized, requests.codes.forbidden}:
                return f"the homeserver doesn't know the application service ({status}): register it, and restart the workers"
        return "no worker said whether the homeserver knows the application service"

    def warm(self, worker: WorkerId, users: Sequence[str], budget: WarmBudget) -> Warmed:
        """See ports.warming."""
        began_s = monotonic()
        end_s = began_s + budget.seconds
        proof_s = min(max(PROOF_SHARE * budget.seconds, PROOF_MIN_S), budget.seconds / 2)
        first = self._figures(worker)
        chosen = users[: budget.users_max]
        cold = self._ask_all(worker, chosen, budget, end_s - proof_s)
        middle = self._figures(worker)
        answered = [(user, seconds) for user, seconds in cold if seconds is not None]
        if cold and not answered:
            raise TransientDriverError("it answered none of the users that it should be warmed with", where=worker)
        again = self._ask_all(worker, [user for user, _ in answered[-AGAIN_MAX:]], budget, end_s)
        last = self._figures(worker)
        warm = [seconds for _, seconds in again if seconds is not None]
        return Warmed(
            users=len(answered),
            failures=len(cold) - len(answered),
            seconds=monotonic() - began_s,
            cold_s=median(seconds for _, seconds in answered) if answered else None,
            warm_s=median(warm) if warm else None,
            hit_ratio_before=_ratio(first, middle),
            hit_ratio_after=_ratio(middle, last),
            stopped="" if len(cold) == len(chosen) else "cpu" if _busy(first, middle, budget) else "time",
        )

    def _ask_all(self, worker: WorkerId, users: Sequence[str], budget: WarmBudget, end_s: float) -> list[tuple[str, float | None]]:
        """Ask as each user, no more at a time than the budget has, and none while the worker is too busy; None for no good answer."""
        asked: list[tuple[str, float | None]] = []
        under_way: dict[Future[float | None], str] = {}
        waiting = iter(users)
        before, may_ask = self._figures(worker), True
        looked_s = monotonic()
        with ThreadPoolExecutor(budget.concurrency) as pool:
            while monotonic() < end_s:
                if monotonic() - looked_s >= LOOK_EVERY_S:
                    now = self._figures(worker)
                    may_ask = not _busy(before, now, budget)
                    before, looked_s = now, monotonic()
                if may_ask:
                    for user in itertools.islice(waiting, budget.concurrency - len(under_way)):
                        under_way[pool.submit(self._ask, worker, user, end_s)] = user
                    if not under_way:
                        break
                pause_s = min(PAUSE_S, max(0.0, end_s - monotonic()))
                if not under_way:
                    # It is left alone, and waiting for nothing would return at once.
                    sleep(pause_s)
                    continue
                done, _ = wait(under_way, timeout=pause_s, return_when=FIRST_COMPLETED)
                asked += [(under_way.pop(one), one.result()) for one in done]
        return [*asked, *((user, one.result()) for one, user in under_way.items())]

    def _ask(self, worker: WorkerId, user: str, end_s: float) -> float | None:
        began_s = monotonic()
        timeout_s = max(0.1, min(REQUEST_TIMEOUT_S, end_s - began_s + 1.0))
        status, _ = self._get(self._places[worker][0] + warm_up_path(next(self._numbers)), user, timeout_s)
        return monotonic() - began_s if status == requests.codes.ok else None

    def _figures(self, worker: WorkerId) -> _Figures | None:
        status, body = self._get(self._places[worker][1], None, LOOK_EVERY_S, credentials=False)
        if status != requests.codes.ok:
            return None
        found = _Figures(monotonic(), 0.0, 0.0, 0.0)
        for name, value in _values(body):
            match name:
                case b"process_cpu_seconds_total":
                    found = replace(found, cpu_s=value)
                case b"synapse_util_caches_cache_hits":
                    found = replace(found, hits=found.hits + value)
                case _:
                    found = replace(found, look_ups=found.look_ups + value)
        return found

    def _get(self, url: str, user: str | None, timeout_s: float, *, credentials: bool = True) -> tuple[int, bytes]:
        """Return the status and the body; 0 where there was no whole answer in time."""
        try:
            with self._session.get(
                url,
                params={} if user is None else {"user_id": user},
                headers=self._headers if credentials else {},
                timeout=timeout_s,
                stream=True,
                allow_redirects=False,
            ) as answer:
                body = bytearray()
                while chunk := answer.raw.read1(65_536):
                    body += chunk
                    if len(body) > BODY_BYTES_MAX:
                        return 0, b""
                return answer.status_code, bytes(body)
        except (requests.RequestException, HTTPError):
            return 0, b""


def _values(page: bytes) -> Iterator[tuple[bytes, float]]:
    for name, text in _FIGURES.findall(page):
        try:
            yield name, float(text)
        except ValueError:
            continue


def _busy(before: _Figures | None, now: _Figures | None, budget: WarmBudget) -> bool:
    """Tell whether the worker uses more than it may; where that can't be seen it counts as busy: unknown is never well."""
    if before is None or now is None:
        return True
    return now.cpu_s - before.cpu_s > budget.cpu_max * (now.at_s - before.at_s)


def _ratio(earlier: _Figures | None, later: _Figures | None) -> float | None:
    if earlier is None or later is None or later.look_ups <= earlier.look_ups:
        return None
    return (later.hits - earlier.hits) / (later.look_ups - earlier.look_ups)
