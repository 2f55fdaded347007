"""The audit of a selection: samples by id, samples with a class, the worst samples."""

from pathlib import Path

import numpy as np
import pytest

CAR, ROAD = 0, 1
LEFT_HALF = np.arange(6) < 3


def test_all_counts_are_of_the_worst_samples(ten_shards: str, report) -> None:
    found = report(ten_shards, "--worst", "2")
    assert found["selection"] == {"samples": [], "class": None, "worst": 2}
    assert [entry["sample"] for entry in found["worst_samples"]] == ["s9-0", "s0-0"]
    assert found["labels"]["image"]["refined"] == {"car": 24, "road": 48, "tree": 24, "ignore": 0}


def test_a_class_selects_the_samples_where_it_occurs(tmp_path: Path, make_cache, sample, report, inspect) -> None:
    without_tree = sample(raw=np.where(LEFT_HALF, CAR, ROAD))
    cache = make_cache(tmp_path / "c.zarr", {"a": [without_tree, sample()], "b": [without_tree]})
    assert [entry["sample"] for entry in report(cache, "--class", "tree")["worst_samples"]] == ["a-1"]
    first_words = [line.split(" ")[0] for line in inspect(cache, "--class", "tree").stdout.splitlines()]
    assert "tree" in first_words and "car" not in first_words, "the tables show this class alone"


def test_samples_are_selected_by_id(ten_shards: str, report) -> None:
    found = report(ten_shards, "--sample", "s3-0", "--sample", "s5-0")
    assert {entry["sample"] for entry in found["worst_samples"]} == {"s3-0", "s5-0"}
    assert found["ranked"] == 2


@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [("--class", "lorry", "it has car, road, tree"), ("--sample", "unknown", "lists ids of samples")],
)
def test_what_is_not_in_the_cache_is_one_error(ten_shards: str, option: str, value: str, fix: str, inspect) -> None:
    done = inspect(ten_shards, option, value)
    assert done.exit_code == 1
    assert repr(value) in done.stderr
    assert fix in done.stderr
