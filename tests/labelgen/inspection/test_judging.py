"""Judgements of the audit: outliers, diagnoses of classes, the worst samples, the verdict."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from demo.teacher_weights import CLIP_WEIGHTS, SAM_WEIGHTS

CAR, ROAD = 0, 1


def test_outliers_are_named_with_value_and_median(ten_shards: str, report) -> None:
    found = report(ten_shards)
    assert {entry["shard"] for entry in found["outliers"]} == {"s9-000"}
    values = {entry["measure"]: (entry["value"], entry["usual"]) for entry in found["outliers"]}
    assert values["masked"] == (0, 1)
    assert values["changed"] == (0.75, 0.25)
    assert found["verdict"]["plausible"] == ["shards that are outliers: 1, see below"]


def test_usual_variation_makes_no_outlier(tmp_path: Path, make_cache, sample, report) -> None:
    rng = np.random.default_rng(0)
    shards = {f"s{i}": [sample(voted=np.where(rng.random((2, 4, 6)) < 0.5, CAR, ROAD))] for i in range(12)}
    found = report(make_cache(tmp_path / "c.zarr", shards))
    assert [e for e in found["outliers"] if e["measure"] in ("changed", "main_class", "class_mix")] == []


def test_few_shards_have_no_outliers(tmp_path: Path, make_cache, sample, report) -> None:
    shards = {f"s{i}": [sample(masks=0) if i == 6 else sample()] for i in range(7)}
    assert report(make_cache(tmp_path / "c.zarr", shards))["outliers"] == []


def test_classes_come_lowest_iou_first_with_errors_and_reason(ten_shards: str, report) -> None:
    worst, *others = report(ten_shards)["classes"]
    assert worst["name"] == "tree"
    assert worst["voted_iou"] == 0
    assert worst["takes"] == [["car", 1.0]], "all that is labelled tree is car"
    assert worst["shards"] == [["s9-000", None, 1.0, "car labelled tree"]], "truth has no tree in s9"
    assert worst["reason"] == "precision 0%, confused with car (100%)"
    car = next(entry for entry in others if entry["name"] == "car")
    assert car["taken_for"] == [["tree", pytest.approx(0.1)]]
    assert car["voted_iou"] == pytest.approx(0.9)
    assert "recall 90%, labelled as tree (10%)" in car["reason"]
    assert "the vote lowers its IoU by 10.0 points" in car["reason"]


def test_with_truth_the_least_accurate_sample_comes_first(ten_shards: str, report) -> None:
    assert report(ten_shards)["worst_samples"][0]["sample"] == "s9-0"


def test_without_truth_the_furthest_outlier_comes_first(without_truth: str, report) -> None:
    found = report(without_truth)
    assert found["worst_samples"][0]["shard"] == "s4-000"
    assert found["classes"] == []
    assert found["truth"] == {"masks": None, "image": None, "point": None}


def test_a_cache_without_labels_is_neither_complete_nor_plausible(empty: str, report) -> None:
    found = report(empty)
    assert found["verdict"] == {
        "complete": ["nothing is labelled yet; run `labelgen run`"],
        "whole": [],
        "plausible": ["there are no labels to judge"],
    }
    assert not {"labels", "scores", "points", "masks", "truth", "against"} & set(found)


def test_unlikely_labels_are_named(tmp_path: Path, make_cache, sample, report) -> None:
    shards = {"s": [sample(voted=np.full((4, 6), CAR), masks=0)]}
    plausible = report(make_cache(tmp_path / "c.zarr", shards))["verdict"]["plausible"]
    assert plausible == [
        "100.0% of all pixels have the label car",
        "no pixel has the label road, tree",
        "masks cover only 0.0% of the pixels",
        "the vote in masks lowers the accuracy of the labels",
        "labels of pixels are no better than chance: 50.0% are right, and 50.0% would be if all were called car; "
        "mIoU 25.0% is not above 1 / 3",
        "labels of points are no better than chance: 66.7% are right, and 66.7% would be if all were called car; "
        "mIoU 33.3% is not above 1 / 3",
    ]


def test_labels_that_are_better_than_chance_by_one_score_only_are_named_by_the_other(
    tmp_path: Path, make_cache, sample, report
) -> None:
    # 18 of 24 pixels are road. 5 roads are labelled car and 1 car road, so as many are right as if all were road.
    truth = np.where(np.arange(24) < 6, CAR, ROAD).reshape(4, 6)
    voted = np.where(np.arange(24) < 11, CAR, ROAD).reshape(4, 6)
    voted[0, 0] = ROAD
    found = report(make_cache(tmp_path / "c.zarr", {"s": [sample(voted=voted, truth=truth)]}))
    chance = [reason for reason in found["verdict"]["plausible"] if "pixels are no better" in reason]
    assert chance == [
        "labels of pixels are no better than chance: 75.0% are right, and 75.0% would be if all were called road"
    ]


def test_teachers_that_are_for_other_data_sets_are_named(tmp_path: Path, make_cache, sample, report) -> None:
    cache = make_cache(tmp_path / "c.zarr", {"s": [sample()]})
    document = Path(cache) / "zarr.json"
    content = json.loads(document.read_text())
    for teacher, weights in (("clip", CLIP_WEIGHTS), ("sam", SAM_WEIGHTS)):
        content["attributes"]["teachers"][teacher] |= {"weights": f"demo-{teacher}", "sha256": weights.sha256}
    document.write_text(json.dumps(content))
    assert report(cache)["verdict"]["plausible"] == [
        f"{teacher} has the weights demo-{teacher}, which are for demo only and not for toy: its labels can be wrong "
        "with high confidence"
        for teacher in ("clip", "sam")
    ] + ["no pixel has the label tree"]
    content["attributes"]["sources"][0]["dataset"] = "demo"
    document.write_text(json.dumps(content))
    (record,) = Path(cache).glob("shards/*/zarr.json")
    record.write_text(record.read_text().replace('"dataset": "toy"', '"dataset": "demo"'))
    assert report(cache)["verdict"]["plausible"] == ["no pixel has the label tree"]


def test_a_damaged_shard_is_named_and_the_rest_is_counted(ten_shards: str, tmp_path: Path, inspect) -> None:
    cache = str(shutil.copytree(ten_shards, tmp_path / "c.zarr"))
    (chunk,) = Path(cache, "shards/s3-000/sam/mask_ids/c").rglob("0/0/0")
    chunk.write_bytes(chunk.read_bytes()[:-9])
    done = inspect(cache, "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert [entry["shard"] for entry in found["damaged"]] == ["s3-000"]
    assert "s3-000/sam" in found["verdict"]["whole"][0]
    assert len(found["by_shard"]) == 9


def test_an_absent_group_leaves_its_shard_unfinished(ten_shards: str, tmp_path: Path, report) -> None:
    cache = str(shutil.copytree(ten_shards, tmp_path / "c.zarr"))
    shutil.rmtree(Path(cache, "shards/s3-000/labels"))
    found = report(cache)
    assert found["shards"] == {"sealed": 9, "stale": 0, "quarantined": 0, "unfinished": 1}
    assert found["verdict"]["complete"] == ["unfinished shards: 1; rerun `labelgen run`"]
    assert found["groups_sealed"]["labels"] == 9
    assert found["groups_sealed"]["images"] == 10
