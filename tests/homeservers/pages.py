"""Real metrics pages, saved from a cluster, as the samples that the driver makes of them."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from rollout.homeservers.synapse.metrics import PREFIXES, Counters, read_counters
from rollout.model.sample import Sample

HERE = Path(__file__).parents[1] / "data/metrics"


def samples(page: str) -> tuple[Sample, ...]:
    """Read the lines that are asked for."""
    families = text_string_to_metric_families((HERE / f"{page}.txt").read_text())
    every = (Sample(line.name, line.labels, line.value) for family in families for line in family.samples)
    return tuple(sample for sample in every if sample.name.startswith(PREFIXES))


def counters(page: str) -> Counters:
    """Read a page that can be believed."""
    read = read_counters(samples(page))
    assert isinstance(read, Counters), read
    return read
