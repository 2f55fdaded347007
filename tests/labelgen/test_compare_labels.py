"""`labelgen compare-labels` on small caches whose scores are computed here from the arrays."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray
from cache_schemas.store import Cache
from labelgen.cli import main
from labelgen.comparison.calibration import Calibration
from tests.made_labels import write_label_cache


def compare(*caches: Path, fails: bool = False) -> str:
    result = CliRunner().invoke(main, ["compare-labels", *map(str, caches)], catch_exceptions=False)
    assert bool(result.exit_code) == fails, result.output
    return result.output


def compare_json(*caches: Path) -> dict:
    result = CliRunner().invoke(main, ["compare-labels", *map(str, caches), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict = json.loads(result.output)
    return found


def rewrite_labels(place: Path, key: str, **arrays: AnyArray) -> None:
    """Replace arrays of the labels of a shard, and add some."""
    cache, path = Cache(str(place), "a"), GroupPath(key, "labels")
    seal = cache.seals([path])[path]
    provenance = Provenance("f-other", upstream=seal.upstream, samples=seal.samples)
    cache.write_group(path, {**cache.read(path), **arrays}, provenance)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return Path(write_label_cache(str(tmp_path / "first.zarr"), "scannet20", points=60))


@pytest.fixture
def second(first: Path, tmp_path: Path) -> Path:
    """The same data; the first shard has labels that are all right where the first 40 of 60 points have one."""
    place = Path(shutil.copytree(first, tmp_path / "second.zarr"))
    key = Cache(str(place)).shard_keys()[0]
    truth = Cache(str(place)).read(GroupPath(key, "truth"), "point")["point"]
    confidence = np.full(60, 204, np.uint8)
    images = Cache(str(place)).read(GroupPath(key, "labels"), "image")["image"]
    rewrite_labels(
        place,
        key,
        point=np.where(np.arange(60) < 40, truth, 255).astype(np.uint8),
        point_confidence=confidence,
        image_confidence=np.zeros_like(images),
    )
    return place


def test_scores_are_those_of_all_labels_and_of_the_points_labelled_in_both(first: Path, second: Path) -> None:
    found = compare_json(first, second)
    keys = Cache(str(first)).shard_keys()
    read = {
        place: [
            [Cache(str(place)).read(GroupPath(key, group), "point")["point"] for key in keys]
            for group in ("labels", "truth")
        ]
        for place in (first, second)
    }
    ids = {place: np.concatenate(labels) for place, (labels, _) in read.items()}
    truth = np.concatenate(read[first][1])
    everywhere = (ids[first] != 255) & (ids[second] != 255) & (truth != 255)
    for entry, place in zip(found["caches"], (first, second), strict=True):
        own = (ids[place] != 255) & (truth != 255)
        assert entry["cache"] == str(place)
        assert entry["point"]["coverage"] == pytest.approx((ids[place] != 255).mean())
        assert entry["point"]["own"]["accuracy"] == pytest.approx((ids[place] == truth)[own].mean())
        assert entry["point"]["own"]["scored"] == own.sum()
        assert entry["point"]["common"]["accuracy"] == pytest.approx((ids[place] == truth)[everywhere].mean())
        assert entry["point"]["common"]["scored"] == everywhere.sum()
    assert found["samples"] == 2 and found["shards_left_out"] == 0
    # Where it is stored: labels with a confidence of 0.8 that are all right.
    assert found["caches"][0]["point"]["calibration"] is None
    assert found["caches"][1]["point"]["calibration"]["error"] == pytest.approx(0.2)


def test_the_table_has_a_row_for_each_cache_and_says_which_shards_are_compared(
    first: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(first.parent)
    Cache(str(second), "a").remove_group(GroupPath(Cache(str(second)).shard_keys()[1], "labels"))
    text = compare(Path("first.zarr"), Path("second.zarr"))
    assert "1 sample in all 2 caches; 1 shard not in all caches left out" in text
    assert text.count("first.zarr") == text.count("second.zarr") == 2  # pixels and points
    assert "100.0%" in text and "20.0%" in text


def test_work_is_that_of_the_stages_behind_labels_if_the_last_run_did_them_all(first: Path, second: Path) -> None:
    """Labels follow from all groups but the truth, whose work is among that of points."""
    seconds = {"images": 1.0, "clip": 2.0, "sam": 40.0, "points": 4.0, "labels": 8.0, "decode": 99.0, "write sam": 99.0}
    samples = dict.fromkeys(("images", "clip", "sam", "points", "pairs", "labels", "truth"), 2)
    run = {"finished": "", "gpus": 0, "teacher_recipes": {}, "stage_pictures": {}, "wall_over_teachers": None}
    for place, done in ((first, samples), (second, {"labels": 4})):
        (place / "summary.json").write_text(json.dumps({**run, "stage_seconds": seconds, "stage_samples": done}))
    whole, part = compare_json(first, second)["caches"]
    by_task = {"images": 0.5, "clip": 1.0, "sam": 20.0, "points": 2.0, "labels": 4.0}
    behind = whole["stage_seconds_per_sample"]
    assert behind == {task: by_task[task] for task in behind} and behind.keys() >= {"clip", "sam", "labels"}
    assert whole["seconds_per_sample"] == sum(behind.values())
    assert part["seconds_per_sample"] is None
    assert part["stage_seconds_per_sample"] == {**dict.fromkeys(behind), "labels": 2.0}
    assert f"{sum(behind.values()):.2f} s" in compare(first, second)


def test_each_cache_has_the_preset_that_its_settings_are(first: Path, second: Path) -> None:
    images = {"height": 64, "width": 112}
    better = {"size": [128, 224], "window": 224}
    configs = [{"images": images, "clip": better, "labels": {"vote": vote}} for vote in ("mean", "counts")]
    for place, config in zip((first, second), configs, strict=True):
        content = json.loads((place / "zarr.json").read_text())
        content["attributes"]["config"] = config
        (place / "zarr.json").write_text(json.dumps(content))
    assert [entry["preset"] for entry in compare_json(first, second)["caches"]] == ["better", "custom"]


def test_caches_of_other_classes_are_refused(first: Path, tmp_path: Path) -> None:
    other = Path(write_label_cache(str(tmp_path / "other.zarr"), "semantickitti19", points=20))
    assert f"{other}: its taxonomy semantickitti19 has other classes" in compare(first, other, fails=True)


def test_the_calibration_error_by_hand() -> None:
    # 0.2: one of two right; 0.8: two of two. (2 * |0.5 - 0.2| + 2 * |1 - 0.8|) / 4
    confidence = np.array([51, 51, 204, 204], np.uint8)
    halves = [Calibration.of(confidence[n::2], np.array([True, False, True, True])[n::2]) for n in (0, 1)]
    assert (halves[0] + halves[1]).error == pytest.approx(0.25)
    assert Calibration.of(np.array([255], np.uint8), np.array([True])).error == 0
