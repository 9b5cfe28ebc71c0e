"""What the server answers: one function for each sort of request, between HTTP and the objects."""

import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from tests.kubernetes.server import deleting, eviction, patching
from tests.kubernetes.server.access import Access, Act, User
from tests.kubernetes.server.deleting import Options
from tests.kubernetes.server.kinds import BY_NAME
from tests.kubernetes.server.listing import listed, wanted
from tests.kubernetes.server.objects import Object, Value, at, copied
from tests.kubernetes.server.paths import Place
from tests.kubernetes.server.refusals import RefusedError, bad_request
from tests.kubernetes.server.resources import Resources, Writer

_KUBELET_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Request:
    """*agent*: the User-Agent, which is who writes unless the query says so."""

    method: str
    place: Place
    query: Mapping[str, str]
    body: Value
    how: str
    agent: str
    user: User
    warnings: list[str] = field(default_factory=list)

    @property
    def dry_run(self) -> bool:
        said = self.query.get("dryRun", "")
        if said not in {"", "All"}:
            why = f'dryRun: Unsupported value: "{said}": supported values: "All"'
            raise RefusedError(422, "Invalid", f'CreateOptions.meta.k8s.io "" is invalid: {why}')
        return said == "All"

    def writer(self) -> Writer:
        # Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#managers.
        default = "" if self.how == patching.APPLY else self.agent.partition("/")[0]
        force = self.query.get("force") in {"true", "1"}
        strict = self.query.get("fieldValidation") == "Strict"
        return Writer(self.query.get("fieldManager") or default, self.dry_run, self.place.subresource, force, strict, self.warnings)


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}


def act_of(request: Request) -> Act:
    """Return what a request wants to do, as roles name it."""
    where = request.place
    verb = _VERBS[request.method]
    if not where.name:
        if request.method == "GET":
            verb = "watch" if request.query.get("watch") in {"true", "1"} else "list"
        elif request.method == "DELETE":
            verb = "deletecollection"
    return Act(verb, where.kind.group, where.kind.plural, where.namespace, where.name, where.subresource)


class Answers:
    """Each returns a status of HTTP and what is said."""

    def __init__(self, resources: Resources, access: Access) -> None:
        self.resources = resources
        self.access = access

    def to(self, request: Request) -> tuple[int, Object | str]:
        self.access.require(request.user, act_of(request))
        if request.place.subresource not in {"", "status"}:
            return self._subresource(request)
        match request.method:
            case "GET":
                return 200, self._read(request)
            case "POST":
                return self._create(request)
            case "PUT":
                where = request.place
                obj, new = self.resources.replace(where.kind, where.namespace, where.name, request.body, request.writer())
                return 201 if new else 200, obj
            case "PATCH":
                return self._patch(request)
            case _:
                return 200, self._delete(request)

    def _read(self, request: Request) -> Object:
        where = request.place
        if where.name:
            return self.resources.get(where.kind, where.namespace, where.name)
        return listed(self.resources.store, wanted(where.kind, where.namespace, request.query), request.query)

    def _create(self, request: Request) -> tuple[int, Object]:
        where = request.place
        if where.name or where.subresource or not isinstance(request.body, dict):
            raise RefusedError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        if request.how not in {"", "application/json", "application/yaml"}:
            why = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml"
            raise RefusedError(415, "UnsupportedMediaType", why)
        namespace = where.namespace or ("" if not where.kind.namespaced else at(request.body, "metadata", "namespace") or "")
        return 201, self.resources.create(where.kind, namespace, request.body, request.writer())

    def _patch(self, request: Request) -> tuple[int, Object]:
        where = request.place
        known = {patching.JSON, patching.MERGE, patching.STRATEGIC, patching.APPLY}
        if request.how not in known:
            why = f"the body of the request was in an unknown format - accepted media types include: {', '.join(sorted(known))}"
            raise RefusedError(415, "UnsupportedMediaType", why)
        if request.how == patching.APPLY and self.resources.store.get(where.kind, where.namespace, where.name) is None:
            self.access.require(request.user, Act("create", where.kind.group, where.kind.plural, where.namespace, where.name))
        obj, new = self.resources.patch(where.kind, where.namespace, where.name, request.how, request.body, request.writer())
        return 201 if new else 200, obj

    def _delete(self, request: Request) -> Object:
        where, options = request.place, options_of(request.body, request.query)
        if not where.name:
            which = wanted(where.kind, where.namespace, request.query)
            found = [obj for obj in self.resources.store.all(where.kind, where.namespace) if which.has(obj)]
            for obj in found:
                metadata = obj["metadata"]
                deleting.delete(self.resources, where.kind, metadata.get("namespace", ""), metadata["name"], options)
            revision = str(self.resources.store.revision)
            return {
                "kind": f"{where.kind.name}List",
                "apiVersion": where.kind.api_version,
                "metadata": {"resourceVersion": revision},
                "items": found,
            }
        obj, gone = deleting.delete(self.resources, where.kind, where.namespace, where.name, options)
        if not gone or where.kind.returns_deleted:
            return obj
        group = {"group": where.kind.group} if where.kind.group else {}
        details = {"name": where.name} | group | {"kind": where.kind.plural, "uid": obj["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _subresource(self, request: Request) -> tuple[int, Object | str]:
        where = request.place
        match where.subresource:
            case "eviction" if request.method == "POST":
                options = options_of(at(request.body, "deleteOptions"), request.query)
                eviction.evict(self.resources, where.namespace, where.name, request.body, options)
                return 201, _success(201)
            case "binding" if request.method == "POST":
                node = at(request.body, "target", "name")
                if not node:
                    raise bad_request("target.name: Required value")
                self.resources.bind(where.namespace, where.name, node, request.writer())
                return 201, _success(201)
            case "log" if request.method == "GET":
                return 200, self._log(request)
            case "token" if request.method == "POST":
                return 201, self._token(request)
            case "scale":
                return 200, self._scale(request)
        raise RefusedError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _log(self, request: Request) -> str:
        """Ask the node's kubelet, as the server does: pkg/registry/core/pod/strategy.go (LogLocation), pkg/kubelet/server/server.go."""
        where, query = request.place, dict(request.query)
        pod = self.resources.get(where.kind, where.namespace, where.name)
        names = [one["name"] for key in ("containers", "initContainers") for one in pod["spec"].get(key) or []]
        container = query.pop("container", "") or (names[0] if len(pod["spec"]["containers"]) == 1 else "")
        if not container:
            said = " ".join(one["name"] for one in pod["spec"]["containers"])
            raise bad_request(f"a container name must be specified for pod {where.name}, choose one of: [{said}]")
        if container not in names:
            raise bad_request(f"container {container} is not valid for pod {where.name}")
        node = kubelet_of(self.resources, pod)
        if node is None:
            return ""
        address, port = node
        url = f"https://{address}:{port}/containerLogs/{where.namespace}/{where.name}/{container}?{urlencode(query)}"
        # Nothing of a kubelet's certificate is checked unless --kubelet-certificate-authority names an authority.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(url, timeout=_KUBELET_TIMEOUT_S, context=context) as answer:
                return str(answer.read().decode(errors="replace"))
        except urllib.error.HTTPError as error:
            with error:
                raise RefusedError(error.code, "BadRequest" if error.code == 400 else "InternalError", error.read().decode()) from None
        except OSError as error:
            raise RefusedError(500, "InternalError", f'Get "{url}": {error}') from None

    def _token(self, request: Request) -> Object:
        where = request.place
        self.resources.get(where.kind, where.namespace, where.name)
        seconds = int(at(request.body, "spec", "expirationSeconds") or 3600)
        until = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = {"token": self.access.token(where.namespace, where.name), "expirationTimestamp": until}
        metadata = {"name": where.name, "namespace": where.namespace}
        told: Object = copied(request.body)
        return told | {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": metadata, "status": status}

    def _scale(self, request: Request) -> Object:
        where = request.place
        obj = self.resources.get(where.kind, where.namespace, where.name)
        if request.method in {"PUT", "PATCH"}:
            version = at(request.body, "metadata", "resourceVersion")
            replicas = at(request.body, "spec", "replicas")
            patch: Object = {"metadata": {"resourceVersion": version} if version else {}, "spec": {"replicas": replicas or 0}}
            obj, _ = self.resources.patch(where.kind, where.namespace, where.name, patching.MERGE, patch, request.writer())
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        selector = at(obj, "spec", "selector", "matchLabels") or {}
        status = {
            "replicas": at(obj, "status", "replicas") or 0,
            "selector": ",".join(f"{key}={one}" for key, one in sorted(selector.items())),
        }
        metadata = {key: obj["metadata"][key] for key in kept}
        spec = {"replicas": obj["spec"]["replicas"]} if obj["spec"]["replicas"] else {}
        return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def kubelet_of(resources: Resources, pod: Object) -> tuple[str, int] | None:
    """Return where the kubelet of a pod's node listens; None if the pod is nowhere."""
    node = resources.store.get(BY_NAME["Node"], "", pod["spec"].get("nodeName", ""))
    if node is None:
        return None
    address = next(one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP")
    return str(address), int(at(node, "status", "daemonEndpoints", "kubeletEndpoint", "Port"))


def _success(code: int) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}


def options_of(body: Value, query: Mapping[str, str]) -> Options:
    """Return DeleteOptions: of the body, else of the query."""
    said = body if isinstance(body, dict) else {}
    grace = said.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    return Options(
        grace_s=int(grace) if grace is not None else None,
        uid=at(said, "preconditions", "uid"),
        version=at(said, "preconditions", "resourceVersion"),
        propagation=said.get("propagationPolicy") or query.get("propagationPolicy"),
        dry_run="All" in (said.get("dryRun") or []) or query.get("dryRun") == "All",
    )
