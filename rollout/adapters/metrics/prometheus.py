"""
Reading each worker's metrics page as a Prometheus has it.

For homeservers whose metrics pages can't be reached from where rollout runs. What comes is as old as the last scrape, so each sample says
when it was true, and whoever reads two of them learns nothing new until the next one. One query asks for a page, for the target's `up`, and
for the times of both: asked for one after the other, a scrape could come between them. Prometheus answers for five minutes with what a
target said last, and so the times are what tells that it has stopped scraping.
"""

import math
from collections.abc import Collection, Mapping, Sequence

from pydantic import Field

from rollout.adapters.prometheus import (
    DATED,
    MARK,
    SCRAPED,
    STARTED,
    Prometheus,
    PrometheusSettings,
    Series,
    name_of,
    open_prometheus,
    why_several,
)
from rollout.adapters.settings import check
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.sample import Page, Sample

WHERE = "metrics_driver"
# Of the time that there is, what asking for pages may take; the rest is for saying why there was none.
PAGES_SHARE = 0.75


class PrometheusMetricsSettings(PrometheusSettings):
    """*stale_s*: what was scraped longer ago is not believed."""

    stale_s: float = Field(default=60.0, gt=0)


def build(settings: Mapping[str, object], inventory: Inventory) -> "PrometheusMetrics":
    """Open the driver; nothing is connected yet. Raises InvalidFileError when a secret isn't there."""
    checked = check(PrometheusMetricsSettings, settings, WHERE)
    return PrometheusMetrics(open_prometheus(checked, inventory, WHERE), checked.stale_s)


class PrometheusMetrics:
    """See ports.metrics."""

    def __init__(self, prometheus: Prometheus, stale_s: float) -> None:
        self._prometheus = prometheus
        self._stale_s = stale_s

    def read(self, workers: Collection[WorkerId], prefixes: Collection[str], timeout_s: float) -> dict[WorkerId, Page | str]:
        """See ports.metrics."""
        wanted = tuple(prefixes)
        groups = self._prometheus.groups(worker for worker in workers if worker in self._prometheus.labels)
        read = self._prometheus.each(groups, lambda group: self._pages(group, wanted, PAGES_SHARE * timeout_s))
        pages = {worker: page for its in read.values() for worker, page in its.items()}
        absent = [worker for worker, page in pages.items() if page is None]
        whys = self._prometheus.why_none(absent, (1 - PAGES_SHARE) * timeout_s)
        found: dict[WorkerId, Page | str] = {}
        for worker in workers:
            page = pages.get(worker)
            found[worker] = page if page is not None else whys.get(worker, "the inventory has no metrics page for it")
        return found

    def intervals(self, workers: Collection[WorkerId], timeout_s: float) -> dict[WorkerId, float | str]:
        """See ports.metrics."""
        found = self._prometheus.intervals(timeout_s)
        if isinstance(found, str):
            return dict.fromkeys(workers, found)
        return {worker: found.get(worker, "Prometheus has no target for it") for worker in workers}

    def _pages(self, group: Sequence[WorkerId], wanted: tuple[str, ...], timeout_s: float) -> dict[WorkerId, Page | str | None]:
        """Read the pages of one group; None where there is no target."""
        targets = self._prometheus.selecting(group)
        # A time has no name, and would otherwise have the same labels as the other, and as `up`, which is enough for `or` to leave it out.
        query = f"{{{name_of(wanted, 'up')},{targets}}}" + "".join(
            f' or label_replace(timestamp({name}{{{targets}}}), "{MARK}", "{mark}", "", "")'
            for name, mark in (("up", SCRAPED), (STARTED, DATED))
        )
        found = self._prometheus.vector(query, timeout_s)
        if isinstance(found, str):
            return dict.fromkeys(group, found)
        its = self._prometheus.apart(group, found)
        return {worker: self._page(worker, its[worker], wanted) for worker in group}

    def _page(self, worker: WorkerId, found: Sequence[Series], wanted: tuple[str, ...]) -> Page | str | None:
        ups = [series for series in found if series.labels.get("__name__") == "up"]
        if len(ups) != 1:
            return why_several(worker, ups) if ups else None
        times = {series.labels[MARK]: series.last for series in found if series.labels.get(MARK) in {SCRAPED, DATED}}
        asked_at_s, up = ups[0].samples[-1]
        if SCRAPED not in times:
            return "Prometheus doesn't say when it has scraped it"
        # By its own clock, which may not be ours.
        if (age_s := asked_at_s - times[SCRAPED]) > self._stale_s:
            return f"Prometheus has last scraped it {age_s:.0f} s ago"
        if up != 1:
            return f"Prometheus could not scrape it {age_s:.0f} s ago: its `up` is {up:g}"
        at_s = min(times.values())
        if asked_at_s - at_s > self._stale_s:
            return f"its page says itself that it was {asked_at_s - at_s:.0f} s old when it was asked for"
        samples: list[Sample] = []
        for series in found:
            name = series.labels.get("__name__", "")
            if not name.startswith(wanted) or MARK in series.labels:
                continue
            if not math.isfinite(series.last):
                return f"{name} is {series.last}"
            samples.append(Sample(name, {label: value for label, value in series.labels.items() if label != "__name__"}, series.last, at_s))
        return Page(tuple(samples)) if samples else "Prometheus has none of the metrics that are looked for"
