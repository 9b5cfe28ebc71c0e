"""
Kubernetes' probes: a worker that answers is well.

Follows kubernetes/kubernetes: pkg/kubelet/prober/worker.go (periodSeconds 10, failureThreshold 3, successThreshold 1). A worker that
answers slowly, or with errors to its users, answers its probe; so none of these traces makes one fail. minReadySeconds is taken to be 30 s:
its default of 0 would be no gate at all.
"""

from dataclasses import dataclass

from rollout.model.gate import Ruling
from tests.benchmarks.gates.judging import Judge
from tests.benchmarks.gates.traces import Restart, Scrape

READY_S = 30.0


class ProbesJudge:
    def see(self, scrape: Scrape) -> Ruling:
        return Ruling.PASS if scrape.at_s >= READY_S else Ruling.PENDING


@dataclass(frozen=True, slots=True)
class Probes:
    name: str = "probes"

    def judge(self, restart: Restart, level: float) -> Judge:  # noqa: ARG002  (they look at neither)
        return ProbesJudge()


DEFAULT = Probes()
