"""Names in the cluster, as those pods see them that are told to ask there."""

from contextlib import closing
from pathlib import Path

from kubernetes import client

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import containers, eventually, hand, pod, stateful_set
from tests.kubernetes.kubelet.node import Kubelet
from tests.kubernetes.names import ZONE, Names

_ASK = 'for name in "$@"; do echo "$name: $(getent ahostsv4 "$name" | sed -n "s/ *STREAM.*//p" | sort | tr "\\n" " ")"; done'


def test_pods_find_one_another_and_everybody_behind_a_service(control_plane: ControlPlane, kubelet: Kubelet, tmp_path: Path) -> None:
    """By the names that a headless Service gives them; one that isn't there has none, and somebody else's names aren't asked for."""
    it = hand(control_plane)
    kubelet.image("example.org/a:1", tmp_path)
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": containers(command=["sleep", "600"])}}
    it.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"clusterIP": "None", "selector": {"app": "a"}}})
    it.create(stateful_set("a", 2, template=template))
    with closing(Names(control_plane, kubelet)) as names:
        eventually(lambda: len(names.addresses(f"a.{it.namespace}.{ZONE}")) == 2, "both have names")
        ips = [it.get("Pod", name)["status"]["podIP"] for name in ("a-0", "a-1")]
        asking = {"nameservers": [names.address], "searches": [f"{it.namespace}.{ZONE}"], "options": [{"name": "ndots", "value": "5"}]}
        command = ["sh", "-c", _ASK, "sh", "a-0.a", "a-1.a", "a", "a-2.a", f"a-0.a.elsewhere.{ZONE}"]
        it.create(pod("asks", containers=containers(command=command), restartPolicy="Never", dnsPolicy="None", dnsConfig=asking))
        eventually(lambda: it.get("Pod", "asks")["status"].get("phase") == "Succeeded", "it has asked")
        with control_plane.api() as api:
            said = str(client.CoreV1Api(api).read_namespaced_pod_log("asks", it.namespace))
    assert [line.split() for line in said.splitlines()] == [
        ["a-0.a:", ips[0]],
        ["a-1.a:", ips[1]],
        ["a:", *sorted(ips)],
        ["a-2.a:"],
        [f"a-0.a.elsewhere.{ZONE}:"],
    ]
