"""Prometheus metrics of a run, through Ray: its nodes export them where `ray[default]` is installed (extra `metrics`).

Ray puts `ray_` before each name. Without the extra, Ray takes the values and exports nothing.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cache_schemas.layout import SHARD_GROUPS

if TYPE_CHECKING:
    from pipelines.execute import Tally
    from pipelines.progress import Progress

PUBLISH_SECONDS = 5.0
"""Ray's nodes pass values on every ten seconds, so more often would show nothing."""


@dataclass(frozen=True)
class Metric:
    """A metric: its kind, what it counts, and the name of its label besides `dataset`, if it has one."""

    kind: Literal["counter", "gauge"]
    meaning: str
    label: str | None = None


METRICS = {
    "labelgen_samples_total": Metric("counter", "samples that a stage has worked on", "stage"),
    "labelgen_shards_total": Metric("counter", "shards whose group of a stage was sealed", "stage"),
    "labelgen_work_seconds_total": Metric("counter", "seconds of work, summed over workers, by kind of work", "work"),
    "labelgen_retries_total": Metric("counter", "tries that failed, by reason", "reason"),
    "labelgen_node_losses_total": Metric("counter", "calls and answers that were lost with a node"),
    "labelgen_actor_restarts_total": Metric("counter", "actors of teachers that replaced dead ones"),
    "labelgen_quarantined_samples_total": Metric("counter", "samples that turned out to be bad"),
    "labelgen_samples_due": Metric("gauge", "samples that a stage has still to work on", "stage"),
    "labelgen_shards_due": Metric("gauge", "shards that are not finished"),
}
"""All metrics of a run, by name."""

Values = Mapping[str, Mapping[str, float]]
"""Values by metric, then by the value of its label; "" for a metric without a label."""


def values_of(tally: "Tally", progress: "Progress") -> Values:
    """Return the present values of all metrics."""
    setbacks = tally.setbacks
    return {
        "labelgen_samples_total": progress.samples_done,
        "labelgen_shards_total": {name: count for name, count in tally.sealed.items() if name in SHARD_GROUPS},
        "labelgen_work_seconds_total": tally.seconds,
        "labelgen_retries_total": setbacks.retries,
        "labelgen_node_losses_total": {"": setbacks.node_losses},
        "labelgen_actor_restarts_total": {"": setbacks.actor_restarts},
        "labelgen_quarantined_samples_total": {"": progress.quarantined},
        "labelgen_samples_due": progress.samples_due,
        "labelgen_shards_due": {"": progress.shards_due},
    }


class MetricsPublisher:
    """Gives Ray the counts of a run from time to time. An error here ends the publishing, and the run goes on."""

    def __init__(self, dataset: str, tally: "Tally", progress: "Progress") -> None:
        """Publish what `tally` and `progress` hold."""
        self._dataset, self._tally, self._progress = dataset, tally, progress
        self._published: dict[tuple[str, str], float] = {}
        self._ray: dict[str, Any] = {}
        self._broken = False

    async def keep_publishing(self) -> None:
        """Publish until cancelled."""
        while not self._broken:
            self.publish()
            await asyncio.sleep(PUBLISH_SECONDS)

    def publish(self) -> None:
        """Give Ray what has changed since the last time."""
        if self._broken:
            return
        self._broken = True
        with suppress(Exception):
            self._ray = self._ray or _ray_metrics()
            for name, by_label in values_of(self._tally, self._progress).items():
                for label, value in by_label.items():
                    self._publish_value(name, label, value)
            self._broken = False

    def _publish_value(self, name: str, label: str, value: float) -> None:
        before = self._published.get((name, label), 0.0)
        tags = {"dataset": self._dataset} | ({str(METRICS[name].label): label} if METRICS[name].label else {})
        if METRICS[name].kind == "gauge":
            self._ray[name].set(value, tags)
        elif value > before:
            self._ray[name].inc(value - before, tags)
        self._published[name, label] = value


def _ray_metrics() -> dict[str, Any]:
    """Return Ray's metric objects by name."""
    from ray.util.metrics import Counter, Gauge

    kinds = {"counter": Counter, "gauge": Gauge}
    return {
        name: kinds[metric.kind](name, metric.meaning, ("dataset", *([metric.label] if metric.label else [])))
        for name, metric in METRICS.items()
    }
