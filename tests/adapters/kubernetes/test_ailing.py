"""What is wrong with a pod, by its status."""

from pathlib import Path
from typing import Any

import pytest

from rollout.adapters.kubernetes.ailing import ailment_of, quotes
from tests.adapters.kubernetes.canned import Answer, canned, listed


def pod(*containers: dict[str, Any], phase: str = "Running", **status: Any) -> dict[str, Any]:  # noqa: ANN401  (a pod's own JSON)
    return {"metadata": {"name": "sync-0"}, "spec": {}, "status": {"phase": phase, "containerStatuses": list(containers), **status}}


def container(state: str, **about: object) -> dict[str, Any]:
    return {"name": "synapse", "image": "example.org/synapse:v2", "restartCount": 0, "state": {state: about}}


def test_one_that_runs_has_nothing() -> None:
    assert ailment_of(pod(container("running", startedAt="2026-01-01T00:00:00Z"))) is None


def test_one_that_ended_is_final_and_says_with_which_status() -> None:
    found = ailment_of(pod(container("terminated", exitCode=3, reason="Error")))
    assert found is not None
    assert (found.what, found.final, found.crashed) == ("container synapse ended with status 3", True, "synapse")


def test_a_crash_loop_says_how_it_ended_and_how_often_it_was_started() -> None:
    again = {**container("waiting", reason="CrashLoopBackOff", message="back-off 10s"), "restartCount": 2}
    found = ailment_of(pod({**again, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}))
    assert found is not None
    assert found.what == "container synapse ended with status 137 (OOMKilled); it was started 3 times (CrashLoopBackOff)"
    assert found.final


@pytest.mark.parametrize(("reason", "final"), [("ErrImagePull", False), ("ImagePullBackOff", True), ("InvalidImageName", True)])
def test_an_image_that_cannot_be_pulled_is_final_from_the_second_time_on(reason: str, *, final: bool) -> None:
    found = ailment_of(pod(container("waiting", reason=reason, message="not found"), phase="Pending"))
    assert found is not None
    assert found.final is final
    assert reason in found.what
    assert "example.org/synapse:v2" in found.what
    assert found.what.endswith("not found")


def test_one_that_no_node_takes_has_the_schedulers_words_and_may_yet_be_taken() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient memory.",
    }
    found = ailment_of(pod(phase="Pending", conditions=[condition]))
    assert found is not None
    assert found.what == "no node takes it (Unschedulable): 0/3 nodes are available: 3 Insufficient memory."
    assert not found.final


def test_an_init_container_counts_like_the_worker() -> None:
    """What renders the configuration runs before it."""
    init = {**container("terminated", exitCode=1, reason="Error"), "name": "render-config"}
    found = ailment_of(pod(container("waiting", reason="PodInitializing"), phase="Pending", initContainerStatuses=[init]))
    assert found is not None
    assert found.crashed == "render-config"


def test_one_whose_node_has_thrown_it_out_says_so() -> None:
    found = ailment_of(pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."))
    assert found is not None
    assert found.what == "the pod has failed: Evicted: The node was low on resource: memory."


def test_the_init_container_that_runs_is_quoted_before_the_worker_has_begun(tmp_path: Path) -> None:
    """It may wait for ever for something, and that is what the worker's absence is about."""
    init = [
        {"name": "copy", "state": {"terminated": {"exitCode": 0}}},
        {"name": "render-config", "state": {"running": {}}},
    ]
    waits = pod(container("waiting", reason="PodInitializing"), phase="Pending", initContainerStatuses=init)

    def answer(_: str, path: str, __: object) -> Answer:
        return (200, path.partition("container=")[2].partition("&")[0]) if "/log?" in path else listed()

    with canned(tmp_path, answer) as server:
        assert quotes(server.cluster, waits, None, "synapse") == "render-config"
        runs = pod(container("running"), initContainerStatuses=init)
        assert quotes(server.cluster, runs, None, "synapse") == "synapse"
