"""The comparison of two caches: `--against`."""

import json
from pathlib import Path

import pytest


def test_a_cache_compared_with_itself_has_not_changed(ten_shards: str, report) -> None:
    against = report(ten_shards, "--against", ten_shards)["against"]
    assert against["settings"] == {}
    assert against["moved"]["image"] == {"share": 0, "moves": []}
    assert {entry["image"] for entry in against["by_shard"]} == {0}


def test_a_changed_preset_is_a_changed_setting(tmp_path: Path, make_cache, sample, report) -> None:
    paper, better = (make_cache(tmp_path / name, {"s": [sample()]}) for name in ("paper.zarr", "better.zarr"))
    read_better = {"clip": {"size": [8, 12], "window": 224}, "images": {"height": 4, "width": 6}}
    for cache, config in ((paper, {"clip": {}}), (better, {**read_better, "labels": {"vote": "mean"}})):
        document = json.loads(Path(cache, "zarr.json").read_text())
        document["attributes"]["config"] = config
        Path(cache, "zarr.json").write_text(json.dumps(document))
    assert report(better, "--against", paper)["against"]["settings"] == {"preset": {"here": "better", "there": "paper"}}


def test_changes_are_given_by_class_and_by_shard(ten_shards: str, tmp_path: Path, make_cache, sample, report) -> None:
    shards = {"s0": [sample()], "s9": [sample()], "new": [sample()], "s1": [sample(), sample()]}
    better = make_cache(tmp_path / "better.zarr", shards)
    against = report(better, "--against", ten_shards)["against"]
    assert against["moved"]["image"]["moves"] == [{"from": "tree", "to": "car", "count": 24}]
    assert against["moved"]["image"]["share"] == pytest.approx(24 / 96)
    assert against["by_shard"][0] == {"shard": "s9-000", "image": 0.5, "point": 0.5, "reason": None}
    other_samples = {"shard": "s1-000", "image": None, "point": None, "reason": "holds other samples there"}
    assert other_samples in against["by_shard"]
    assert against["only_here"] == ["new-000"]
    assert len(against["only_there"]) == 7
    assert against["classes"]["car"]["image"]["iou"] == {"here": 1, "there": pytest.approx(0.9)}


def test_caches_without_shared_shards_have_no_moves(ten_shards: str, empty: str, report) -> None:
    against = report(ten_shards, "--against", empty)["against"]
    assert against["moved"] == {"image": None, "point": None}
    assert against["scores"] == {"image": None, "point": None}
    assert against["classes"]["car"]["image"]["share"] == {"here": 0.45, "there": None}


def test_caches_of_other_classes_are_not_compared(ten_shards: str, tmp_path: Path, make_cache, sample, inspect) -> None:
    other = make_cache(tmp_path / "other.zarr", {"s": [sample()]}, ("car", "road", "sky"))
    done = inspect(ten_shards, "--against", other)
    assert done.exit_code == 1
    assert "compare caches of one taxonomy" in done.stderr
