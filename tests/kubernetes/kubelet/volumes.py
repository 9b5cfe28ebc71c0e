"""
Volumes and environment of a container, and who tells it names.

Source: https://kubernetes.io/docs/concepts/storage/volumes/;
https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/;
https://kubernetes.io/docs/concepts/workloads/pods/downward-api/. ConfigMaps and Secrets are written once, when the pod begins.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kubernetes.client import ApiException

from tests.kubernetes.kubelet.api import Object, Server

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_REFERENCE = re.compile(r"\$\$|\$\(([\w.-]+)\)")


class ConfigError(Exception):
    """A container can't be made as it is described: CreateContainerConfigError."""


@dataclass(frozen=True, slots=True)
class Mount:
    source: Path
    target: str
    read_only: bool


class Sources:
    """Where a pod's values come from."""

    def __init__(self, server: Server, pod: Object, address: str, host: str) -> None:
        self._server = server
        self._pod = pod
        self._namespace = pod["metadata"]["namespace"]
        self._address = address
        self._host = host

    def values(self, sort: str, name: str, *, optional: bool) -> dict[str, bytes]:
        """Return what is in a ConfigMap ("configmaps") or Secret ("secrets")."""
        try:
            found = self._server.ask("GET", f"/api/v1/namespaces/{self._namespace}/{sort}/{name}")
        except ApiException as error:
            if error.status != 404:
                raise
            if optional:
                return {}
            raise ConfigError(f'{sort.removesuffix("s")} "{name}" not found') from None
        if sort == "secrets":
            return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        plain = {key: value.encode() for key, value in (found.get("data") or {}).items()}
        return plain | {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}

    def resolver(self) -> str:
        """
        Return the resolv.conf that the pod wants: its own nameservers, where its dnsPolicy is None; else "", and it has this machine's.

        Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-dns-config.
        """
        spec = self._pod["spec"]
        if spec.get("dnsPolicy") != "None":
            return ""
        said = spec.get("dnsConfig") or {}
        options = [f"{one['name']}:{one['value']}" if one.get("value") else one["name"] for one in said.get("options") or []]
        lines = [f"nameserver {one}" for one in said.get("nameservers") or []]
        for word, values in (("search", said.get("searches") or []), ("options", options)):
            lines += [" ".join((word, *values))] if values else []
        return "\n".join([*lines, ""])

    def field(self, path: str) -> str:
        metadata, spec = self._pod["metadata"], self._pod["spec"]
        if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
            return str((metadata.get(found[1]) or {}).get(found[2], ""))
        if path in {"metadata.labels", "metadata.annotations"}:
            return "\n".join(f'{key}="{value}"' for key, value in sorted((metadata.get(path.partition(".")[2]) or {}).items()))
        if path in {"status.podIP", "status.podIPs"}:
            return self._address
        if path in {"status.hostIP", "status.hostIPs"}:
            return self._host
        outer, _, inner = path.partition(".")
        return str({"metadata": metadata, "spec": spec}[outer].get(inner, ""))


def environment(sources: Sources, container: Object, base: dict[str, str]) -> dict[str, str]:
    """Return a container's environment: the image's, then envFrom, then env, each later one before the earlier."""
    env = dict(base)
    for one in container.get("envFrom") or []:
        for key, sort in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
            if key in one:
                found = sources.values(sort, one[key]["name"], optional=bool(one[key].get("optional")))
                env |= {f"{one.get('prefix', '')}{name}": value.decode() for name, value in found.items()}
    for one in container.get("env") or []:
        value = _value(sources, one)
        if value is not None:
            env[one["name"]] = expanded(value, env)
    return env


def _value(sources: Sources, one: Object) -> str | None:
    source = one.get("valueFrom")
    if not source:
        return str(one.get("value") or "")
    if "fieldRef" in source:
        return sources.field(source["fieldRef"]["fieldPath"])
    for key, sort in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
        if key in source:
            reference = source[key]
            optional = bool(reference.get("optional"))
            found = sources.values(sort, reference["name"], optional=optional).get(reference["key"])
            if found is None and not optional:
                raise ConfigError(f"couldn't find key {reference['key']} in {key.removesuffix('KeyRef')} {reference['name']}")
            return found.decode() if found is not None else None
    return "0"


def expanded(text: str, env: dict[str, str]) -> str:
    """Put in values for $(NAME); one that isn't there is left as it stands, and $$ is a $."""

    def put(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else env.get(found[1], found[0])

    return _REFERENCE.sub(put, text)


def mounts(sources: Sources, said: list[Object], container: Object, place: Path, claims: Path) -> list[Mount]:
    """Make a container's volumes, and say where they belong."""
    volumes = {one["name"]: one for one in said}
    wanted = []
    for one in container.get("volumeMounts") or []:
        if one["mountPath"].rstrip("/") == _ACCOUNT:
            continue
        source = _made(sources, volumes[one["name"]], place / "volumes" / one["name"], claims)
        if below := one.get("subPath"):
            source /= below
            if not source.exists():
                source.mkdir(parents=True)
        wanted.append(Mount(source, one["mountPath"], bool(one.get("readOnly"))))
    if resolver := sources.resolver():
        written = place / "resolv.conf"
        written.write_text(resolver)
        wanted.append(Mount(written, "/etc/resolv.conf", read_only=True))
    return sorted(wanted, key=lambda mount: mount.target)


def _made(sources: Sources, volume: Object, place: Path, claims: Path) -> Path:
    if "hostPath" in volume:
        return Path(volume["hostPath"]["path"])
    if "persistentVolumeClaim" in volume:
        place = claims / volume["persistentVolumeClaim"]["claimName"]
    if place.exists():
        return place
    # What isn't there yet is waited for, so nothing is begun before all of it is.
    files = list(_files(sources, volume))
    place.mkdir(parents=True)
    for name, value, mode in files:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
        path.chmod(mode)
    return place


def _files(sources: Sources, volume: Object) -> Iterator[tuple[str, bytes, int]]:
    for part in (volume.get("projected") or {}).get("sources") or []:
        yield from _files(sources, part)
    for key, sort in (("configMap", "configmaps"), ("secret", "secrets")):
        if key in volume:
            said = volume[key]
            name = said.get("name") or said["secretName"]
            found = sources.values(sort, name, optional=bool(said.get("optional")))
            mode = int(said.get("defaultMode") or 0o644)
            items = said.get("items") or [{"key": one, "path": one} for one in found]
            for one in items:
                if one["key"] not in found:
                    raise ConfigError(f"references non-existent {key} key: {one['key']}")
                yield one["path"], found[one["key"]], int(one.get("mode") or mode)
    for one in (volume.get("downwardAPI") or {}).get("items") or []:
        yield one["path"], sources.field(one["fieldRef"]["fieldPath"]).encode(), 0o644
