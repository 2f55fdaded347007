"""Metrics of a run: what is given to Ray, that an error there is none of the run, and the dashboard that shows them."""

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import metrics
from pipelines.execute import Tally
from pipelines.metrics import METRICS, MetricsPublisher
from pipelines.progress import Progress
from pipelines.tasks import Report

REPOSITORY = Path(__file__).parents[2]
Values = dict[tuple[str, str], float]


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Values:
    """Return what Ray would export, by metric and label: counters add up, and gauges have their last value."""
    values: Values = {}

    class Exported:
        def __init__(self, name: str) -> None:
            self.name = name

        def inc(self, value: float, tags: dict[str, str]) -> None:
            assert value > 0, "Ray refuses others"
            self.set(values.get((self.name, self._label(tags)), 0) + value, tags)

        def set(self, value: float, tags: dict[str, str]) -> None:
            values[self.name, self._label(tags)] = value

        def _label(self, tags: dict[str, str]) -> str:
            label = METRICS[self.name].label
            assert tags.keys() == {"dataset", label} - {None}
            assert tags["dataset"] == "toy"
            return tags.get(label or "", "")

    monkeypatch.setattr(metrics, "_ray_metrics", lambda: {name: Exported(name) for name in METRICS})
    return values


def test_counts_of_a_run_are_published_once(exported: Values) -> None:
    tally, progress = Tally(), Progress(3, {"sam": 10, "labels": 10}, io.StringIO())
    publisher = MetricsPublisher("toy", tally, progress)
    publisher.publish()
    assert exported == {
        ("labelgen_samples_due", "sam"): 10,
        ("labelgen_samples_due", "labels"): 10,
        ("labelgen_shards_due", ""): 3,
    }
    tally.add(Report(seconds={"sam": 1.5}, peak_mib={"sam": 9.0}, sealed=["sam"]))
    tally.setbacks.retries["teacher_failures"] += 2
    tally.setbacks.node_losses += 1
    progress.add("sam", 4)
    publisher.publish()
    publisher.publish()
    tally.add(Report(seconds={"sam": 0.5}, peak_mib={"sam": 9.0}, sealed=["sam", "text"]))
    progress.add("sam", 4)
    progress.shard_done()
    publisher.publish()
    assert exported == {
        ("labelgen_samples_total", "sam"): 8,
        ("labelgen_samples_due", "sam"): 2,
        ("labelgen_samples_due", "labels"): 10,
        ("labelgen_shards_total", "sam"): 2,
        ("labelgen_shards_due", ""): 2,
        ("labelgen_work_seconds_total", "sam"): 2.0,
        ("labelgen_retries_total", "teacher_failures"): 2,
        ("labelgen_node_losses_total", ""): 1,
    }


def test_an_error_of_the_metrics_is_none_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> dict[str, Any]:
        raise RuntimeError("no metrics in this Ray")

    monkeypatch.setattr(metrics, "_ray_metrics", fail)
    MetricsPublisher("toy", Tally(), Progress(1, {"sam": 1}, io.StringIO())).publish()


def test_ray_has_the_metrics_as_they_are_declared() -> None:
    made = metrics._ray_metrics()
    for name, metric in METRICS.items():
        assert made[name].info["tag_keys"] == ("dataset", *([metric.label] if metric.label else []))
        assert name.endswith("_total") == (metric.kind == "counter"), "the convention of Prometheus"


def _expressions(node: Any) -> Iterator[str]:
    """Yield the expressions of a dashboard, those of its variables included."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key in ("expr", "query") and isinstance(value, str):
            yield value
        yield from _expressions(value)


def _exported_names(text: str, wanted: Callable[[str], object] = bool) -> set[str]:
    return {name for name in re.findall(r"\b\w*labelgen_\w+", text) if wanted(name)}


def test_the_dashboard_shows_all_metrics_and_no_others() -> None:
    dashboard = json.loads((REPOSITORY / "deploy/grafana-dashboard.json").read_text())
    exported = {f"ray_{name}" for name in METRICS}
    expressions = list(_expressions(dashboard))
    assert set().union(*map(_exported_names, expressions)) == exported
    labels = {label for text in expressions for label in re.findall(r"by \((\w+)\)", text)}
    assert labels == {metric.label for metric in METRICS.values() if metric.label}
    for text in expressions:
        assert text.count("(") == text.count(")")
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identifiers)) == len(identifiers)


def test_the_guide_lists_all_metrics() -> None:
    guide = (REPOSITORY / "docs/guides/cluster.md").read_text()
    rows = dict(re.findall(r"^\| `(labelgen_\w+)` \| (\w+) \|", guide, re.MULTILINE))
    assert rows == {name: metric.kind for name, metric in METRICS.items()}
