"""The demo world through the real commands: made, labelled, and scored against its pixel truth."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from labelgen.datasets import find_dataset

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.ray
@pytest.mark.slow
def test_a_demo_world_is_made_labelled_and_scored(tmp_path: Path, labelgen: Command) -> None:
    world, cache = tmp_path / "world", tmp_path / "cache.zarr"
    done = labelgen("demo", "make", "--out", world, "--scenes", "1", "--keyframes", "1", "--seed", "5")
    assert done.returncode == 0, done.stderr
    done = labelgen("run", "--dataset", "demo", "--data", world, "--cache", str(cache))
    assert done.returncode == 0, done.stderr
    assert list(validate(*Cache.open(str(cache)))) == []

    done = labelgen("inspect", cache, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["dataset"] == "demo"
    assert found["preset"] == "better"
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

    (sample,) = find_dataset("demo").adapter(world).scenes("all", None)[0].samples
    truth = Cache(str(cache)).read(GroupPath(f"{sample.scene}-000", "truth"))
    native = np.asarray(Image.open(world / sample.cameras[0].truth_path))
    height, width = truth["image"].shape[1:]
    rows = ((np.arange(height) + 0.5) * native.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * native.shape[1] / width).astype(int)
    assert np.array_equal(truth["image"][0], native[np.ix_(rows, columns)])


def test_a_second_world_in_one_folder_is_refused(tmp_path: Path, labelgen: Command) -> None:
    (tmp_path / "v1.0-mini").mkdir()
    done = labelgen("demo", "make", "--out", tmp_path)
    assert done.returncode == 1
    assert "already holds a world" in done.stderr


def test_a_missing_world_says_how_to_make_one(tmp_path: Path, labelgen: Command) -> None:
    world = tmp_path / "nowhere"
    done = labelgen("run", "--dataset", "demo", "--data", world, "--cache", str(tmp_path / "cache.zarr"))
    assert done.returncode != 0
    assert f"{world}: no such folder; make a world with `labelgen demo make --out {world}`" in done.stderr
