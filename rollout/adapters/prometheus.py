"""
Asking a Prometheus, for its metrics driver and its history driver: settings, the HTTP API, and which target is which worker.

A worker is found by labels, equal to what `match` says (its `instance` is the address of its metrics page, unless somebody has relabelled
it) or to what `workers` says of it. `up` is the one series that each target has, with the target's own labels and no others. So it tells
whether there is such a target, whether there is one only, and whether it could be scraped; without it nothing is believed.

Nothing here raises: what can't be had is a sentence. Prometheus answers with status 200 to half a result too (`warnings`), which is none.
"""

import difflib
import json
import math
import re
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from rollout.adapters.asking import FAILURES, Asker, UnusableError, body_of, why_not
from rollout.adapters.problem import Problem
from rollout.adapters.settings import InvalidSettingsError, SecretReference, Settings, refused, resolve_secret
from rollout.adapters.wording import nearest, shortened
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.listing import listed

NAME = "the answer"
# Beside `up` of a target, when it was scraped last; and when that of its process's start was true, which a page may say itself.
MARK = "rollout"
SCRAPED, DATED = "scraped", "dated"
STARTED = "process_start_time_seconds"
# A query that names them all stays below the 8 KB that proxies take of a URL.
WORKERS_PER_QUERY = 40
# Of labels that may have been meant.
TARGETS_SHOWN_MAX = 5
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$])")
_PLACE = re.compile(r"\{(.*?)\}")
_PORTS = {"http": 80, "https": 443}

Labels: TypeAlias = Mapping[str, str]


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise refused("url is no address of a Prometheus", "url: http://HOST:9090")
    if "@" in parts.netloc:
        raise refused("url holds a password, or a user", "user: NAME and password: file:PATH")
    if parts.query or parts.fragment:
        raise refused("url has more than a host and a path", "url: http://HOST:9090")
    return url.rstrip("/")


class PrometheusSettings(Settings):
    """
    *url*: where its own pages are, without /api. *match*: the labels of a worker's target, in which {address} (host:port of its `metrics`
    in the inventory), {host}, {port} and {worker} are filled in; *workers*: the labels of those for whom that isn't true. *token*, or
    *user* and *password*: what it wants to be shown. *answer_bytes_max*: a longer answer is not read; a worker's page takes some 300 KB.
    """

    url: Annotated[str, AfterValidator(_address)]
    match: dict[str, str] = Field(default={"instance": "{address}"}, min_length=1)
    workers: dict[str, Annotated[dict[str, str], Field(min_length=1)]] = Field(default={})
    token: SecretReference | None = None
    user: str | None = None
    password: SecretReference | None = None
    answer_bytes_max: int = Field(default=64_000_000, gt=0)


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer: its samples as (when it was true, in seconds since the epoch by Prometheus's clock; value), oldest first."""

    labels: Labels
    samples: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.samples[-1][1]


class _Said(BaseModel):
    status: Literal["success", "error"]
    data: object = None
    error: str = ""
    # Anybody's kind, but those that stand for half a result.
    errorType: str = ""  # noqa: N815  (as the API has it)
    warnings: tuple[str, ...] = ()


class _At(BaseModel):
    metric: dict[str, str]
    value: tuple[float, str]


class _Over(BaseModel):
    metric: dict[str, str]
    values: Annotated[list[tuple[float, str]], Field(min_length=1)]


class _Vector(BaseModel):
    resultType: Literal["vector"]  # noqa: N815  (as above)
    result: list[_At]


class _Matrix(BaseModel):
    resultType: Literal["matrix"]  # noqa: N815  (as above)
    result: list[_Over]


class _Target(BaseModel):
    labels: dict[str, str]
    scrapeInterval: str  # noqa: N815  (as above)


class _Targets(BaseModel):
    activeTargets: list[_Target]  # noqa: N815  (as above)


_KINDS: dict[str, TypeAdapter[_Vector] | TypeAdapter[_Matrix]] = {"vector": TypeAdapter(_Vector), "matrix": TypeAdapter(_Matrix)}
_Whom = TypeVar("_Whom")
_Answer = TypeVar("_Answer")


def open_prometheus(checked: PrometheusSettings, inventory: Inventory, where: str) -> "Prometheus":
    """Open it; nothing is connected yet. Raises InvalidSettingsError with all that is wrong, below *where* in the inventory."""
    labels = {worker: _labels_of(checked, worker, entry.metrics) for worker, entry in inventory.workers.items()}
    if problems := (*_wrong_credentials(checked), *_wrong_labels(checked, inventory), *_shared(labels)):
        raise InvalidSettingsError(where, problems)
    return Prometheus(checked.url, labels, _authorization(checked), checked.answer_bytes_max)


def _wrong_credentials(checked: PrometheusSettings) -> Iterator[Problem]:
    if (checked.user is None) is not (checked.password is None):
        yield Problem(
            ("user" if checked.password is None else "password",), "user and password go together", "user: NAME and password: file:PATH"
        )
    elif checked.token is not None and checked.user is not None:
        yield Problem(("token",), "it is shown a token, or a user and password, and not both", "no token")


def _wrong_labels(checked: PrometheusSettings, inventory: Inventory) -> Iterator[Problem]:
    of_workers = ((("workers", worker), labels) for worker, labels in checked.workers.items())
    for path, labels in ((("match",), checked.match), *of_workers):
        for name in labels:
            if not _LABEL.match(name):
                yield Problem((*path, name), f'"{shortened(name)}" can be no label of Prometheus', "instance", at_key=True)
    for name, value in checked.match.items():
        for place in _PLACE.findall(value):
            if place not in _places("", "http://h"):
                known = ", ".join(f"{{{one}}}" for one in _places("", "http://h"))
                yield Problem(("match", name), f"nothing is known to fill in for {{{shortened(place)}}}", f"one of {known}")
    for worker in checked.workers:
        if worker not in inventory.workers:
            yield Problem(("workers", worker), f'there is no worker "{shortened(worker)}"', nearest(worker, inventory.workers), at_key=True)


def _shared(labels: Mapping[WorkerId, Labels]) -> Iterator[Problem]:
    first: dict[tuple[tuple[str, str], ...], WorkerId] = {}
    for worker, its in labels.items():
        other = first.setdefault(tuple(sorted(its.items())), worker)
        if other != worker:
            what = f"{other} and {worker} would be one target: {selector(its)}"
            yield Problem(("match",), what, "labels that tell workers apart, in match or in workers")
            return


def _labels_of(checked: PrometheusSettings, worker: WorkerId, page: str) -> Labels:
    if worker in checked.workers:
        return checked.workers[worker]
    places = _places(worker, page)
    return {name: _PLACE.sub(lambda found: places.get(found[1], found[0]), value) for name, value in checked.match.items()}


def _places(worker: str, page: str) -> dict[str, str]:
    parts = urlsplit(page)
    host = parts.hostname or ""
    try:
        port = str(parts.port or _PORTS.get(parts.scheme, 80))
    except ValueError:
        port = ""
    # As it stands in a target's address.
    host = f"[{host}]" if ":" in host else host
    return {"address": f"{host}:{port}", "host": host, "port": port, "worker": worker}


def _authorization(checked: PrometheusSettings) -> bytes | None:
    if checked.token is not None:
        return f"Bearer {resolve_secret(checked.token)}".encode()
    if checked.user is not None and checked.password is not None:
        return b"Basic " + b64encode(f"{checked.user}:{resolve_secret(checked.password)}".encode())
    return None


def selector(labels: Labels) -> str:
    """Write the labels of one target."""
    return "{" + ", ".join(f"{name}={_quoted(value)}" for name, value in labels.items()) + "}"


def name_of(prefixes: Collection[str], *others: str) -> str:
    """Write the matcher for names that begin with one of *prefixes*, or are one of *others*."""
    begins = [f"{_literally(prefix)}.*" for prefix in prefixes]
    return f"__name__=~{_quoted('|'.join([*begins, *map(_literally, others)]))}"


def _quoted(text: str) -> str:
    # A string of JSON is one of PromQL.
    return json.dumps(text, ensure_ascii=False)


def _literally(text: str) -> str:
    # Not re.escape: it escapes more than Prometheus's regular expressions take.
    return _SPECIAL.sub(r"\\\1", text)


class Prometheus:
    """One Prometheus. *labels* are those of each worker's target, *authorization* is the value of that header."""

    def __init__(self, url: str, labels: Mapping[WorkerId, Labels], authorization: bytes | None, bytes_max: int) -> None:
        self._url = f"{url}/api/v1/query"
        self._targets_url = f"{url}/api/v1/targets"
        self._headers: dict[str, bytes] = {} if authorization is None else {"Authorization": authorization}
        self._bytes_max = bytes_max
        self._asker = Asker({"Accept-Encoding": "identity"}, 1)
        self.labels = labels

    def each(self, whom: Collection[_Whom], ask: Callable[[_Whom], _Answer]) -> dict[_Whom, _Answer]:
        """Ask for all of them at once."""
        return self._asker.each(whom, ask)

    def vector(self, query: str, timeout_s: float, at_s: float | None = None) -> tuple[Series, ...] | str:
        """Ask for the last value of each series, *at_s* or now. What comes says when it was asked for, not when it was true."""
        return self._ask("vector", query, timeout_s, at_s)

    def matrix(self, query: str, timeout_s: float, at_s: float) -> tuple[Series, ...] | str:
        """Ask for samples as they were kept, each with its own time."""
        return self._ask("matrix", query, timeout_s, at_s)

    def _ask(self, kind: str, query: str, timeout_s: float, at_s: float | None) -> tuple[Series, ...] | str:
        parameters = {"query": query, "timeout": f"{math.ceil(1000 * timeout_s)}ms"} | ({} if at_s is None else {"time": f"{at_s:.3f}"})
        try:
            with self._asker.get_once(self._url, timeout_s, self._headers, parameters) as answer:
                body = body_of(answer, self._bytes_max, NAME)
                status = answer.status_code
        except FAILURES as error:
            return f"Prometheus can't be asked: {why_not(error, NAME)}"
        try:
            return _read(kind, status, body)
        except UnusableError as error:
            return f"Prometheus can't be asked: {error}" if status != _OK else f"what Prometheus answers can't be used: {error}"

    def intervals(self, timeout_s: float) -> dict[WorkerId, float] | str:
        """Say how many seconds lie between two scrapes of each worker's target, where there is one; a sentence when it can't be asked."""
        try:
            with self._asker.get_once(self._targets_url, timeout_s, self._headers, {"state": "active"}) as answer:
                said = _said(answer.status_code, body_of(answer, self._bytes_max, NAME))
        except FAILURES as error:
            return f"Prometheus can't be asked for its targets: {why_not(error, NAME)}"
        try:
            targets = _Targets.model_validate(said.data).activeTargets
        except ValidationError:
            return "what Prometheus says of its targets can't be used"
        found: dict[WorkerId, float] = {}
        for worker, labels in self.labels.items():
            its = [every for one in targets if labels.items() <= one.labels.items() and (every := _seconds(one.scrapeInterval)) is not None]
            if its:
                found[worker] = max(its)
        return found

    def groups(self, workers: Iterable[WorkerId]) -> list[tuple[WorkerId, ...]]:
        """Divide workers into those that one query can ask for: their targets have values of the same labels."""
        same: dict[tuple[str, ...], list[WorkerId]] = {}
        for worker in workers:
            same.setdefault(tuple(sorted(self.labels[worker])), []).append(worker)
        return [
            tuple(members[first : first + WORKERS_PER_QUERY])
            for members in same.values()
            for first in range(0, len(members), WORKERS_PER_QUERY)
        ]

    def selecting(self, group: Sequence[WorkerId]) -> str:
        """Write the matchers for the targets of a group. Labels that are combined otherwise may match too; `apart` leaves them out."""
        names = sorted(self.labels[group[0]])
        values = {name: dict.fromkeys(_literally(self.labels[worker][name]) for worker in group) for name in names}
        return ",".join(f"{name}=~{_quoted('|'.join(values[name]))}" for name in names)

    def apart(self, group: Sequence[WorkerId], found: Iterable[Series]) -> dict[WorkerId, list[Series]]:
        """Give each worker of a group what is its own."""
        names = sorted(self.labels[group[0]])
        whose = {tuple(self.labels[worker][name] for name in names): worker for worker in group}
        its: dict[WorkerId, list[Series]] = {worker: [] for worker in group}
        for series in found:
            worker = whose.get(tuple(series.labels.get(name, "") for name in names))
            if worker is not None:
                its[worker].append(series)
        return its

    def why_none(self, workers: Collection[WorkerId], timeout_s: float) -> dict[WorkerId, str]:
        """Say of workers of whom nothing was found what targets there are now, and what to write."""
        found = self.vector("up", timeout_s) if workers else ()
        if isinstance(found, str):
            return {worker: f"Prometheus has no target {selector(self.labels[worker])}" for worker in workers}
        return {worker: self._none(worker, found) for worker in workers}

    def _none(self, worker: WorkerId, targets: Sequence[Series]) -> str:
        labels = self.labels[worker]
        sentence = f"Prometheus has no target {selector(labels)}"
        if not targets:
            return f"{sentence}; it has none at all"
        if any(labels.items() <= series.labels.items() for series in targets):
            return f"Prometheus has the target {selector(labels)}, and nothing of it in that time"
        # Of what others are called the likeliest first: with the same port, or the worker's name somewhere in it.
        wanted = " ".join((*labels.values(), worker))
        known = sorted({selector(_without_name(series.labels)) for series in targets}, key=lambda one: (-_likeness(one, wanted), one))
        return f"{sentence}; it has {listed(known, TARGETS_SHOWN_MAX)}; try workers: {{{worker}: {{LABEL: VALUE}}}} with one of them"


def why_several(worker: WorkerId, targets: Sequence[Series]) -> str:
    """Say that several targets are one worker, and by which labels they could be told apart."""
    names = sorted({name for series in targets for name in series.labels if len({other.labels.get(name) for other in targets}) > 1})
    apart = " and ".join(selector({name: series.labels.get(name, "") for name in names}) for series in targets[:TARGETS_SHOWN_MAX])
    return f"Prometheus has {len(targets)} targets for it: {apart}; try match, or workers: {{{worker}: …}}, with that label"


def _without_name(labels: Labels) -> Labels:
    return {name: value for name, value in labels.items() if name != "__name__"}


def _likeness(one: str, wanted: str) -> float:
    return difflib.SequenceMatcher(None, one, wanted, autojunk=False).ratio()


_OK = 200


_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_536_000.0}
_DURATION = re.compile(r"(\d+)(ms|[smhdwy])")


def _seconds(duration: str) -> float | None:
    """Read a time as Prometheus writes it, such as 1m30s; None where it is none."""
    parts = _DURATION.findall(duration)
    if not parts or "".join(many + unit for many, unit in parts) != duration:
        return None
    return sum(float(many) * _UNITS_S[unit] for many, unit in parts)


def _said(status: int, body: bytes) -> _Said:
    """Read what every answer has. Raises UnusableError."""
    try:
        said = _Said.model_validate(json.loads(body))
    except (ValueError, RecursionError):
        if status != _OK:
            raise UnusableError(f"it was answered {status}") from None
        what = "a page of HTML" if body.lstrip().startswith(b"<") else "no JSON of its API, or not all of it"
        raise UnusableError(f"it is {what}") from None
    if said.status == "error" or status != _OK:
        told = ": ".join(part for part in (said.errorType, said.error) if part)
        raise UnusableError(f"it was answered {status}" + (f" ({_told(told)})" if told else ""))
    return said


def _read(kind: str, status: int, body: bytes) -> tuple[Series, ...]:
    """Read the answer to a query. Raises UnusableError."""
    said = _said(status, body)
    if said.warnings:
        raise UnusableError(f"it warns that this isn't all: {_told(said.warnings[0])}")
    try:
        data = _KINDS[kind].validate_python(said.data)
    except ValidationError:
        raise UnusableError(f"it is no {kind} of samples") from None
    try:
        return tuple(map(_series, data.result))
    except ValueError:
        raise UnusableError("a value in it is no number") from None


def _series(one: _At | _Over) -> Series:
    samples = [one.value] if isinstance(one, _At) else one.values
    return Series(one.metric, tuple((at_s, float(value)) for at_s, value in samples))


def _told(text: str) -> str:
    # What Prometheus says of a query repeats it, which is long.
    return shortened(text)
