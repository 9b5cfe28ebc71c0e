"""What the API server is asked about what we may do."""

from pathlib import Path
from typing import Any

from rollout.adapters.kubernetes.grants import not_granted
from rollout.ports.privileges import Grant
from tests.adapters.kubernetes.canned import NAMESPACE, Answer, canned


def test_every_name_is_asked_for(tmp_path: Path) -> None:
    """A role that was made for fewer workers has some of them."""

    def answer(_: str, __: str, body: dict[str, Any]) -> Answer:
        asked = body["spec"]["resourceAttributes"]
        return 200, {"status": {"allowed": asked["verb"] == "list" or asked.get("name") == "sync-0"}}

    pods = ("sync-0", "sync-1", "sync-2")
    grants = (
        Grant(NAMESPACE, "", "pods", ("list",)),
        Grant(NAMESPACE, "", "pods", ("patch",), pods),
        Grant(NAMESPACE, "", "events", ("watch",)),
    )
    with canned(tmp_path, answer) as server:
        assert not_granted(server.cluster, grants, 5.0) == (
            "namespace matrix: we may not patch pods sync-1, sync-2",
            "namespace matrix: we may not watch events",
        )
