"""The demo world through the real commands: made, labelled, and scored against its pixel truth."""

from pathlib import Path

import numpy as np
from PIL import Image

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from labelgen.datasets import ADAPTERS


def test_a_demo_world_is_made_labelled_and_scored(tmp_path: Path, labelgen) -> None:
    world, cache = tmp_path / "world", tmp_path / "cache.zarr"
    done = labelgen("demo", "make", "--out", str(world), "--scenes", "1", "--keyframes", "1", "--seed", "5")
    assert done.returncode == 0, done.stderr
    done = labelgen("run", "--dataset", "demo", "--data", str(world), "--cache", str(cache))
    assert done.returncode == 0, done.stderr
    assert list(validate(*Cache.open(str(cache)))) == []

    found = labelgen.inspect(cache)
    assert found["dataset"] == "demo"
    assert found["teachers"]["preset"] == "demo" and not found["teachers"]["untrained"]
    assert set(found["truth"]["image"]["refined"]["iou"]) == set(found["labels"]["image"]["raw"]) - {"ignore"}
    # Chance is 1 / 16 of the pixels; docs/results/demo.md has the figures of whole worlds.
    masks = found["truth"]["masks"]
    assert masks["segments"] > 10
    assert masks["mean_best_iou"] > 0.15
    assert sum(part["segments"] for part in masks["by_share"]) == masks["segments"]
    assert masks["by_share"][0]["mean_best_iou"] > 2 * masks["by_share"][-1]["mean_best_iou"]
    for target in ("image", "point"):
        raw, voted = (found["truth"][target][kind] for kind in ("raw", "refined"))
        assert raw["accuracy"] > 0.35
        assert voted["miou"] > raw["miou"] > 0.12
        assert np.trace(raw["confusion"]) == round(raw["accuracy"] * raw["scored"])

    (sample,) = ADAPTERS["demo"](world).scenes("all", None)[0].samples
    truth = Cache(str(cache)).read(GroupPath(f"{sample.scene}-000", "truth"))
    native = np.asarray(Image.open(world / sample.cameras[0].truth_path))
    height, width = truth["image"].shape[1:]
    rows = ((np.arange(height) + 0.5) * native.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * native.shape[1] / width).astype(int)
    assert np.array_equal(truth["image"][0], native[np.ix_(rows, columns)])


def test_a_second_world_in_one_folder_is_refused(tmp_path: Path, labelgen) -> None:
    (tmp_path / "v1.0-mini").mkdir()
    done = labelgen("demo", "make", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "holds a world already" in done.stderr


def test_a_missing_world_says_how_to_make_one(tmp_path: Path, labelgen) -> None:
    world = tmp_path / "nowhere"
    done = labelgen("run", "--dataset", "demo", "--data", str(world), "--cache", str(tmp_path / "cache.zarr"))
    assert done.returncode != 0
    assert f"{world}: no such folder; make a world with `labelgen demo make --out {world}`" in done.stderr


def test_scenes_are_split_by_their_place(monkeypatch, tmp_path: Path) -> None:
    from labelgen.datasets.nuscenes import NuScenes
    from labelgen.samples import Scene

    names = [f"scene-{number}" for number in range(9000, 9010)]
    monkeypatch.setattr(NuScenes, "scenes", lambda *_: [Scene(name, ()) for name in names])
    demo = ADAPTERS["demo"](tmp_path)
    assert [scene.name for scene in demo.scenes("val", None)] == [names[4], names[9]]
    assert [scene.name for scene in demo.scenes("train", None)] == names[:4] + names[5:9]
    assert len(demo.scenes("all", None)) == 10
