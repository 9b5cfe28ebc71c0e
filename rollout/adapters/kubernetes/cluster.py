"""
One request to the API server, within a time.

The official client opens the door (kubeconfig, contexts, in-cluster, exec credentials, TLS); requests go over its connections as plain
JSON. Its generated types are left aside: they cost more than all the rest of a look at 500 pods.

What may be said of a request that failed depends on whether it was sent. A connection that was never made has done nothing. After that a
write without an answer is in doubt, and so is one that is answered 500, 502 or 504, which the server may say after it has stored it.
Source: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#http-status-codes
"""

import json
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from time import monotonic, sleep, time  # noqa: TID251  (how long the server takes, and how far its clock is from this machine's)
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError

from rollout.adapters.in_time import POOLS
from rollout.adapters.kubernetes.kinds import Kind
from rollout.adapters.wording import shortened
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration

# Who we are among those who change objects (server-side apply).
MANAGER = "rollout"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
# An answer longer than this is none that we asked for; a list of 5,000 pods has about 50 MB.
ANSWER_BYTES_MAX = 100_000_000
# Where 429 doesn't say when to come again.
RETRY_AFTER_S = 1.0
# The `Date` header has whole seconds. A clock that is off by less is taken to be right.
CLOCK_MARGIN_S = 2.0
# What is part of an effect, and may be done a minute later as well: an API server that is upgraded is away for so long.
PATIENCE_S = 75.0
AGAIN_AFTER_S = 0.5
OPEN_S = 20.0

Object = dict[str, Any]
_Value = TypeVar("_Value")


class ConflictError(TransientDriverError):
    """409: the object is not as it was when it was read, or there is one of that name already; nothing was done."""


class NotFoundError(PermanentDriverError):
    """404, and the API server itself names what it doesn't have; nothing was done."""


class ForbiddenError(PermanentDriverError):
    """403: we may not do that; nothing was done."""


class TooManyError(TransientDriverError):
    """429: not now; for an eviction, a budget forbids it. *retry_after_s*: how long to wait before asking again."""

    def __init__(self, what: str, *, where: str = "", why: str = "", remedy: str = "", retry_after_s: float = RETRY_AFTER_S) -> None:
        super().__init__(what, where=where, why=why, remedy=remedy)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Door:
    """How a cluster is reached. See access.ClusterSettings."""

    namespace: str
    kubeconfig: str | None = None
    context: str | None = None


class Cluster:
    """One namespace of one cluster. For use by several threads; nothing is connected before something is asked."""

    def __init__(self, door: Door) -> None:
        self.namespace = door.namespace
        self._door = door
        self._lock = threading.Lock()
        self._client: ApiClient | None = None
        self._off_s = 0.0
        # How many requests were sent, for whoever measures that.
        self.requests = 0
        self.writes = 0

    @property
    def where(self) -> str:
        """Say how errors call it."""
        place = f" of {self._door.context}" if self._door.context else ""
        return f"namespace {self.namespace}{place}"

    def now_s(self) -> float:
        """Tell the time by the API server's clock, as far as it has said it; seconds since the epoch."""
        return time() + self._off_s

    def all_of(self, kind: Kind, timeout_s: float, *, labels: str = "", fields: str = "") -> list[Object]:
        """Return all objects of a kind, in one request; each says its kind, which the API server leaves out. Raises DriverError."""
        query = {name: value for name, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
        answer = self._ask("GET", kind.path(self.namespace), timeout_s, query=query)
        if "items" not in answer:
            raise TransientDriverError("something else than the API server answered", where=self.where, why=f"no list of {kind.plural}")
        return [{"kind": kind.name, **one} for one in answer["items"] or ()]

    def get(self, kind: Kind, name: str, timeout_s: float) -> Object | None:
        """Return one object, None if there is none of that name. Raises DriverError."""
        try:
            return {"kind": kind.name, **self._ask("GET", kind.path(self.namespace, name), timeout_s)}
        except NotFoundError:
            return None

    def create(self, kind: Kind, body: Object, timeout_s: float, *, dry_run: bool = False) -> Object:
        """Create an object. ConflictError if there is one of that name."""
        whole = {"apiVersion": kind.group, "kind": kind.name, **body}
        return self._ask("POST", kind.path(self.namespace), timeout_s, query=_ours(dry_run), body=whole)

    def replace(self, kind: Kind, body: Object, timeout_s: float) -> Object:
        """Write a whole object over the one that was read (its resourceVersion says which). ConflictError if that has changed since."""
        whole = {"apiVersion": kind.group, "kind": kind.name, **body}
        path = kind.path(self.namespace, str(body["metadata"]["name"]))
        return self._ask("PUT", path, timeout_s, query=_ours(dry_run=False), body=whole)

    def patch(self, kind: Kind, name: str, body: Object, how: str, timeout_s: float, *, dry_run: bool = False) -> Object:
        """Change what *body* names, by MERGE or APPLY; a resourceVersion in it is a precondition. ConflictError where it doesn't hold."""
        query = {**_ours(dry_run), **({"force": "true"} if how == APPLY else {})}
        whole = {"apiVersion": kind.group, "kind": kind.name, **body} if how == APPLY else body
        return self._ask("PATCH", kind.path(self.namespace, name), timeout_s, query=query, body=whole, content=how)

    def delete(self, kind: Kind, name: str, timeout_s: float, *, uid: str = "") -> None:
        """Delete an object; one that is gone is no error. ConflictError if it has another uid."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self._ask("DELETE", kind.path(self.namespace, name), timeout_s, body=options)
        except NotFoundError:
            return

    def evict(self, pod: str, uid: str, timeout_s: float, *, dry_run: bool = False) -> None:
        """Ask for a pod's eviction. TooManyError while a budget forbids it, ConflictError if the pod has another uid."""
        kinds = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.namespace}}
        options: Object = {"preconditions": {"uid": uid}, **({"dryRun": ["All"]} if dry_run else {})}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        self._ask("POST", path, timeout_s, query={"dryRun": "All"} if dry_run else {}, body={**kinds, "deleteOptions": options})

    def log(self, pod: str, container: str, lines: int, timeout_s: float, *, previous: bool = False) -> tuple[str, ...]:
        """Return a container's last lines; of the one before it, with *previous*. Raises DriverError."""
        query = {"container": container, "tailLines": str(lines), **({"previous": "true"} if previous else {})}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        return tuple(self._send("GET", path, timeout_s, query, None, "").decode(errors="replace").splitlines()[-lines:])

    def review(self, attributes: Object, timeout_s: float) -> bool:
        """Ask whether we may do something (SelfSubjectAccessReview). Raises DriverError."""
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}
        said = self._ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", timeout_s, body=body)
        return bool((said.get("status") or {}).get("allowed"))

    def rules(self, namespace: str, timeout_s: float) -> tuple[list[Object], bool]:
        """
        Return what we may do in a namespace as far as the authorizers list it, and whether that is all (SelfSubjectRulesReview). Raises
        DriverError.
        """
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
        status = self._ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", timeout_s, body=body).get("status") or {}
        return status.get("resourceRules") or [], status.get("incomplete") is False

    def way_to(self, path: str, query: Mapping[str, str], timeout_s: float) -> "tuple[Configuration, str, dict[str, str]]":
        """
        Say how a connection is made that the client doesn't make: by which settings, to which address, and with which headers, that say who
        we are. Raises DriverError.
        """
        end_s = monotonic() + timeout_s
        client = self._opened(timeout_s)
        headers = {"User-Agent": MANAGER}
        self._authorize(client, headers, path, "GET", end_s)
        self.requests += 1
        return client.configuration, f"{client.configuration.host.rstrip('/')}{path}?{urlencode(query)}", headers

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.rest_client.pool_manager.clear()

    def _ask(
        self,
        method: str,
        path: str,
        timeout_s: float,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content: str = "application/json",
    ) -> Object:
        raw = self._send(method, path, timeout_s, query or {}, body, content)
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            return answer
        failed = OutcomeUnknownError if _changes(method, path, query or {}) else TransientDriverError
        raise failed("the API server's answer is no object", where=self.where, why=shortened(raw[:200].decode(errors="replace")))

    def _send(self, method: str, path: str, timeout_s: float, query: Mapping[str, str], body: Object | None, content: str) -> bytes:
        end_s = monotonic() + timeout_s
        client = self._opened(timeout_s)
        headers = {"Accept": "application/json, */*", "User-Agent": MANAGER}
        if body is not None:
            headers["Content-Type"] = content
        self._authorize(client, headers, path, method, end_s)
        url = f"{client.configuration.host.rstrip('/')}{path}{'?' + urlencode(query) if query else ''}"
        changes = _changes(method, path, query)
        self.requests += 1
        self.writes += changes
        sent = _Request(method, url, headers, None if body is None else json.dumps(body).encode())
        try:
            answer = _answered(client, sent, end_s, changes=changes)
        except (HTTPError, OSError) as error:
            raise self._lost(error, f"{method} {path}", changes=changes) from error
        finally:
            self.writes += changes
        self._hear_the_time(answer.headers.get("Date"))
        raw = bytes(answer.data)
        if len(raw) > ANSWER_BYTES_MAX or answer.status >= _NOT_OK:
            raise self.refusal(answer.status, raw, answer.headers.get("Retry-After"), f"{method} {path}", changes=changes)
        return raw

    def _lost(self, error: Exception, what: str, *, changes: bool) -> DriverError:
        """Say what a request without an answer means."""
        why = f"{what}: {_words(error)}"
        if _is_untrusted(error):
            # Before anything was sent.
            return self.untrusted(why)
        if changes and not isinstance(error, _NEVER_SENT):
            return OutcomeUnknownError("the API server did not say whether it did it", where=self.where, why=why)
        return TransientDriverError("the API server can't be reached", where=self.where, why=why)

    def untrusted(self, why: str) -> PermanentDriverError:
        said = "the API server's certificate is none that the kubeconfig trusts"
        return PermanentDriverError(said, where=self.where, why=why, remedy="certificate-authority-data in the kubeconfig")

    def refusal(self, status: int, raw: bytes, retry_after: str | None, what: str, *, changes: bool) -> DriverError:
        """Say what an answer that is no success means."""
        message = _message(raw)
        why = f"{what}: {status}{': ' + message if message else ''}"
        match status:
            case 401:
                said = "the API server doesn't know us"
                return PermanentDriverError(
                    said, where=self.where, why=why, remedy="kubectl auth whoami, with the same kubeconfig and context"
                )
            case 403:
                said = "the API server doesn't allow it"
                return ForbiddenError(said, where=self.where, why=why, remedy="kubectl apply what `rollout rbac` prints")
            case 404 if not _names_what_is_missing(raw):
                # A load balancer before it, or one whose kinds aren't served yet.
                return TransientDriverError("something else than the API server answered", where=self.where, why=why)
            case 404:
                return NotFoundError("there is no such object", where=self.where, why=why)
            case 409:
                return ConflictError("it was changed meanwhile", where=self.where, why=why)
            case 429:
                after_s = _seconds(retry_after)
                return TooManyError("the API server says: not now", where=self.where, why=message or why, retry_after_s=after_s)
            case 410 | 503:
                return TransientDriverError("the API server can't do it now", where=self.where, why=why)
            case _ if status >= _SERVER_ERROR:
                if changes:
                    return OutcomeUnknownError("the API server did not say whether it did it", where=self.where, why=why)
                return TransientDriverError("the API server can't be asked", where=self.where, why=why)
            case _:
                return PermanentDriverError("the API server refused it", where=self.where, why=why)

    def _opened(self, timeout_s: float) -> "ApiClient":
        with self._lock:
            if self._client is None:
                # The client's own import takes a while on a busy machine, and that is no fault of the cluster.
                self._client = self._within(max(timeout_s, OPEN_S), lambda: _open(self._door))
            return self._client

    def _authorize(self, client: "ApiClient", headers: dict[str, str], path: str, method: str, end_s: float) -> None:
        """Add what says who we are; a token that an exec plugin gives may have to be fetched anew."""
        settings = client.configuration.auth_settings()
        self._within(end_s - monotonic(), lambda: client.update_params_for_auth(headers, [], list(settings), path, method, None))

    def _within(self, timeout_s: float, do: Callable[[], _Value]) -> _Value:
        """Do what may run a program of the user's (exec credentials), and wait no longer than that. Raises DriverError."""
        done: list[_Value] = []
        failed: list[Exception] = []

        def body() -> None:
            try:
                done.append(do())
            except Exception as error:  # noqa: BLE001  (it is raised below, where somebody waits)
                failed.append(error)

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        thread.join(max(0.01, timeout_s))
        if failed:
            raise self._no_door(failed[0]) from failed[0]
        if not done:
            raise TransientDriverError(
                "the credentials for the cluster took too long", where=self.where, why=f"longer than {timeout_s:.0f} s"
            )
        return done[0]

    def _no_door(self, error: Exception) -> DriverError:
        where = self._door.kubeconfig or self.where
        remedy = "kubectl config get-contexts, with the same file; or kubeconfig and context in the workers_driver"
        return PermanentDriverError("the cluster can't be reached as the kubeconfig says", where=where, why=_words(error), remedy=remedy)

    def _hear_the_time(self, date: str | None) -> None:
        if date is None:
            return
        try:
            said_s = parsedate_to_datetime(date).timestamp()
        except (ValueError, TypeError):
            return
        # Whole seconds: the middle of that one.
        off_s = said_s + 0.5 - time()
        self._off_s = 0.0 if abs(off_s) <= CLOCK_MARGIN_S else off_s


# A TLS error isn't among them: one may come after a request, instead of its answer.
_NEVER_SENT = (NewConnectionError, ConnectTimeoutError)
_NOT_OK = 300
_SERVER_ERROR = 500
_UNAVAILABLE = 503
_MESSAGE_MAX = 400


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None


def _answered(client: "ApiClient", request: _Request, end_s: float, *, changes: bool) -> urllib3.BaseHTTPResponse:
    """
    Send a request, and again as long as there is time, where that does nothing twice: one that was never sent, and a read in any case. A
    server that is restarted is soon there again, and so is one that a load balancer has lost.
    """
    while True:
        try:
            answer = client.rest_client.pool_manager.request(
                request.method,
                request.url,
                body=request.body,
                headers=request.headers,
                timeout=urllib3.Timeout(total=max(0.01, end_s - monotonic())),
                retries=False,
                redirect=False,
            )
        except (HTTPError, OSError) as error:
            if monotonic() + AGAIN_AFTER_S >= end_s or not (isinstance(error, _NEVER_SENT) or (not changes and not _is_untrusted(error))):
                raise
        else:
            if monotonic() + AGAIN_AFTER_S >= end_s or answer.status < _SERVER_ERROR or (changes and answer.status != _UNAVAILABLE):
                return answer
        sleep(AGAIN_AFTER_S)


def _is_untrusted(error: Exception) -> bool:
    return isinstance(error, SSLError) and bool(error.args) and isinstance(error.args[0], ssl.SSLCertVerificationError)


def _changes(method: str, path: str, query: Mapping[str, str]) -> bool:
    """Tell whether a request is a write. What is asked by a POST of its own kind changes nothing, and no more does what is only tried."""
    return method != "GET" and "/selfsubject" not in path and query.get("dryRun") != "All"


def _names_what_is_missing(raw: bytes) -> bool:
    """Tell whether a 404 is the API server's word that one object isn't there: a Status with its name."""
    try:
        said = json.loads(raw)
        return bool(said["reason"] == "NotFound" and said["details"]["name"])
    except (ValueError, TypeError, KeyError):
        return False


def _ours(dry_run: bool) -> dict[str, str]:  # noqa: FBT001  (as the query has it)
    return {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}


def _open(door: Door) -> "ApiClient":
    """Read the kubeconfig, or what a pod's own service account says. Raises what the client raises."""
    from kubernetes import client, config  # noqa: PLC0415  (half a second, for those who ask a cluster)

    configuration: Configuration = client.Configuration()
    if door.kubeconfig is None and door.context is None and _in_cluster():
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        load = partial(config.load_kube_config, client_configuration=configuration, persist_config=False)
        load(config_file=door.kubeconfig, context=door.context)
    configuration.retries = False
    opened = client.ApiClient(configuration)
    opened.rest_client.pool_manager.pool_classes_by_scheme = POOLS
    return opened


def _in_cluster() -> bool:
    import os  # noqa: PLC0415  (as the client asks it)

    return "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ


def _message(raw: bytes) -> str:
    """Return what a Status says."""
    try:
        said = json.loads(raw)
    except ValueError:
        return shortened(raw[:200].decode(errors="replace"))
    if not isinstance(said, dict):
        return ""
    message = str(said.get("message") or said.get("reason") or "")
    causes = [str(one.get("message")) for one in (said.get("details") or {}).get("causes") or [] if one.get("message")]
    missing = [cause for cause in causes if cause not in message]
    return "; ".join([message, *missing])[:_MESSAGE_MAX]


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.1, float(retry_after or RETRY_AFTER_S))
    except ValueError:
        return RETRY_AFTER_S


def _words(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text[:_MESSAGE_MAX]}" if text else type(error).__name__
