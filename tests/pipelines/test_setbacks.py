"""What goes wrong without stopping a run is counted, and nothing that fails after the last seal makes it fail."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cache_schemas.cache_files import LocalFiles
from cache_schemas.group_path import GroupPath
from cache_schemas.location import StoreError
from cache_schemas.store import Cache
from pipelines import execute as execution
from pipelines import run
from pipelines.cluster import Cluster
from pipelines.config import load_config
from pipelines.run import RunRequest, generate_labels
from pipelines.setbacks import Setbacks
from pipelines.store_retries import count_retries, take_retries
from pipelines.summary import RunSummary
from tests.pipelines.conftest import small_settings


def test_nothing_after_the_last_seal_fails_a_run(made: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store and the cluster go away at the moment when the last group is sealed."""
    store = Cache(str(cache), "a")
    key = store.shard_keys()[0]
    store.remove_group(GroupPath(key, "labels"))

    def fail(*_: Any) -> Any:
        raise StoreError("the store fails")

    def execute(plan: Any, *_: Any) -> execution.Tally:
        for name in ("put", "texts", "refuse_links", "folder_names"):
            monkeypatch.setattr(LocalFiles, name, fail)
        return execution.Tally(seconds={"labels": 1.0}, peak_mib={"labels": 9.0}, records={key: plan[0].record})

    @contextmanager
    def cluster(_: str | None) -> Iterator[Cluster]:
        yield Cluster(joined=False)
        raise RuntimeError("the head node is gone")

    monkeypatch.setattr(Cluster, "resources", lambda _: {"GPU": 2.0})
    monkeypatch.setattr(run, "cluster", cluster)
    monkeypatch.setattr(execution, "execute", execute)
    config = load_config("nuscenes", teachers="untrained", overrides=small_settings(made))
    summary = generate_labels(RunRequest(config, made / "nuscenes", str(cache)), say=lambda _: None)
    assert (summary.shards_done, summary.shards_kept) == (1, 2)
    assert (summary.samples_labelled, summary.samples_quarantined, summary.gpus) == (5, 0, 2.0)
    assert summary.warnings == [
        "the cluster failed after the work was done (the head node is gone)",
        "summary.json cannot be written (the store fails)",
    ]


def test_only_setbacks_that_happened_are_told() -> None:
    summary = RunSummary("toy", "toy")
    summary.count_setbacks(Setbacks(Counter(store_requests=0)))
    assert "setbacks" not in summary.render(100)
    summary.count_setbacks(Setbacks(Counter(teacher_failures=3, store_requests=1200, bad_samples=0), 2, 1))
    assert summary.to_dict()["retries"] == {"teacher_failures": 3, "store_requests": 1200}
    said = "setbacks: tried again: teacher failures 3, store requests 1,200; lost with nodes: 2; actors restarted: 1"
    assert said in summary.render(100).splitlines()


def test_retries_of_a_store_are_counted_once_and_shown_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    count_retries()
    take_retries()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("botocore.retryhandler").debug("Retry needed, action of: %s", 0.1)
        logging.getLogger("botocore.retryhandler").debug("No retry needed.")
        logging.getLogger("s3fs").debug("Retryable error: %s", "broken pipe")
        logging.getLogger("s3fs").error("shown")
    assert [record.message for record in caplog.records] == ["shown"]
    assert (take_retries(), take_retries()) == (2, 0)
