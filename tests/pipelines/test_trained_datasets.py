"""Each data set of ours, made small: a training on its cache with its own defaults, its scores, and its predictions."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE, load_taxonomy
from labelgen.datasets import find_dataset
from pipelines.config import load_config
from tests.pipelines.in_process import build_cache
from tests.trainer.runs import history, run_cli

MAKERS = Path(__file__).parents[1] / "labelgen"
SMALL = ("networks.image=small", "networks.cloud=small", "networks.image_weights=null", "stream.workers=0")
SMALL += ("stream.batch_samples=2", "optimiser.epochs=2", "optimiser.lr=0.01", "schedule.stage2_epoch=1")
"""Settings of a training of two epochs of small networks; all others are the data set's."""

OPTIONS = [word for setting in SMALL for word in ("--set", setting)]


def make_data(folder: Path, dataset: str) -> Path:
    """Make a data set in its official layout."""
    runpy.run_path(str(MAKERS / f"make_{dataset}.py"))[f"make_{dataset}"](folder)
    return folder


def make_cache(url: Path, data: Path, dataset: str, split: str, size: tuple[int, int]) -> Cache:
    """Label a split of a data set with untrained teachers, at a `size` (H, W), with one sentence for each class."""
    names = load_taxonomy(find_dataset(dataset).adapter.taxonomy_name).names
    prompts = url.with_suffix(".yaml")
    prompts.write_text(json.dumps({"templates": ["a {}."], "classes": {name: [name] for name in names}}))
    sizes = [f"images.height={size[0]}", f"images.width={size[1]}", "sam.points_per_side=1", f"prompts={prompts}"]
    build_cache(load_config(dataset, teachers="untrained", split=split, overrides=sizes), data, str(url))
    return Cache(str(url))


def row_count(cache: Cache, group: str, name: str) -> int:
    """Return the number of rows of an array in all shards."""
    return sum(len(cache.read(GroupPath(key, group), name)[name]) for key in cache.shard_keys())


def fit_and_score(tmp_path: Path, trained: Cache, scored: Cache, *more: str) -> dict:
    """Train on a cache for two epochs, and return the scores on another one."""
    run_cli("fit", trained.url, "--out", tmp_path / "run", *OPTIONS, *more)
    samples = sum(len(record.samples) for record in trained.shard_records(trained.shard_keys()).values())
    losses = [row["loss"] for row in history(tmp_path / "run")]
    assert len(losses) == 2 * (samples // 2) and np.isfinite(losses).all()
    found = json.loads(run_cli("evaluate", tmp_path / "run", scored.url, "--json").stdout)
    assert found["scenes"] == "all"
    assert found["point"]["scored"] == known(scored, "point")
    pairs = [scored.read(GroupPath(key, "pairs")) for key in scored.shard_keys()]
    assert found["agreement"]["scored"] == sum(int(own.get("visible", np.ones_like(own["row"])).sum()) for own in pairs)
    return found


def known(cache: Cache, name: str) -> int:
    """Return the number of points or pixels with truth."""
    return sum(int((cache.read(GroupPath(key, "truth"), name)[name] < 255).sum()) for key in cache.shard_keys())


@pytest.mark.slow
def test_scannet_trains_on_some_frames_of_each_scan_and_is_scored_on_all(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", "scannet")
    train, val = (make_cache(tmp_path / split, data, "scannet", split, (96, 128)) for split in ("train", "val"))
    assert "intensity" not in train.shard_seals(train.shard_keys()[0])["points"].arrays
    assert row_count(val, "images", "rgb") == 3, "of one scan"
    found = fit_and_score(tmp_path, train, val, "--set", "stream.images=2")
    assert found["image"]["scored"] == known(val, "image")
    run_cli("predict", tmp_path / "run", val.url, "--out", tmp_path / "labels")
    (labels,) = (np.loadtxt(file, int) for file in (tmp_path / "labels").glob("*.txt"))
    assert len(labels) == row_count(val, "points", "xyz") and 1 <= labels.min() <= labels.max() <= 39


@pytest.mark.slow
def test_semantickitti_trains_on_one_sequence_and_is_scored_on_another(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", "semantickitti")
    train, valid = (make_cache(tmp_path / s, data, "semantickitti", s, (32, 112)) for s in ("train", "valid"))
    assert "image" not in fit_and_score(tmp_path, train, valid)
    run_cli("predict", tmp_path / "run", valid.url, "--out", tmp_path / "labels")
    files = (tmp_path / "labels/sequences/08/predictions").iterdir()
    labels = np.concatenate([np.fromfile(file, np.uint32) for file in files])
    assert len(labels) == row_count(valid, "points", "xyz") and 10 <= labels.min() <= labels.max() <= 81


@pytest.mark.slow
def test_nuscenes_trains_is_scored_and_predicts_in_the_format_of_its_challenge(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", "nuscenes")
    train, val = (make_cache(tmp_path / s, data, "nuscenes", s, (64, 112)) for s in ("mini_train", "mini_val"))
    fit_and_score(tmp_path, train, val)
    run_cli("predict", tmp_path / "run", val.url, "--out", tmp_path / "labels")
    files = (tmp_path / "labels/lidarseg/mini_val").iterdir()
    labels = np.concatenate([np.fromfile(file, np.uint8) for file in files])
    assert len(labels) == row_count(val, "points", "xyz") and 1 <= labels.min() <= labels.max() <= 16
    pictures_alone_are_scored_on_their_11_classes(tmp_path)


def pictures_alone_are_scored_on_their_11_classes(tmp_path: Path) -> None:
    data = make_data(tmp_path / "nuimages", "nuimages")
    pictures = make_cache(tmp_path / "pictures", data, "nuimages", "mini", (64, 112))
    found = json.loads(run_cli("evaluate", tmp_path / "run", pictures.url, "--shared-classes", "--json").stdout)
    occurring = {
        name
        for key in pictures.shard_keys()
        for name in np.unique(pictures.read(GroupPath(key, "truth"))["image"])
        if name != IGNORE
    }
    names = load_taxonomy("nuscenes16").names
    assert found["shared_classes"] == [names[number] for number in sorted(occurring)] and len(occurring) == 11
    assert found["image"]["scored"] == known(pictures, "image") and set(found["image"]["iou"]) == {
        *found["shared_classes"]
    }
    assert "point" not in found and "agreement" not in found and set(found["labels"]["raw"]) == {"image"}
    assert "Scored are the 11 classes" in " ".join(
        run_cli("evaluate", tmp_path / "run", pictures.url, "--shared-classes").stdout.split()
    )


def test_pictures_alone_are_refused_with_one_sentence(tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", make_data(tmp_path / "data", "nuimages"), "nuimages", "mini", (32, 112))
    done = run_cli("fit", cache.url, "--out", tmp_path / "run", exit_code=1)
    assert "holds pictures alone (data set nuimages)" in done.stderr and "a data set with points" in done.stderr
    assert not (tmp_path / "run").exists()
