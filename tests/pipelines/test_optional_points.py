"""Points without intensity, with colour and poses, and a sample without a cloud among samples that have one."""

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen import datasets
from labelgen.inspection.counting.samples import read_samples
from labelgen.inspection.declarations import smallest_seen_share, top_view_reach_m
from pipelines.config import load_config
from tests.pipelines import picture_dataset
from tests.pipelines.caches import problems
from tests.pipelines.in_process import build_cache

POINTS = np.array([[0, 0, 5, 10, 20, 30], [1, 0, 5, 40, 50, 60], [0, 0, -5, 70, 80, 90]], float)
POINTS_PATH = GroupPath("scene-000", "points")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("clouds", f"{picture_dataset.__name__}:WITH_CLOUDS", datasets.EXTENSIONS)
    monkeypatch.setitem(datasets.OWN, "clouds", entry)


def make(tmp_path: Path, clouds: tuple[bool, ...]) -> Path:
    """Build a cache of one scene; `clouds` says which of its samples have a cloud."""
    for number, has_cloud in enumerate(clouds):
        picture_dataset.write_pictures(tmp_path / "data", [(48, 96)], sample=f"sample-{number}")
        if has_cloud:
            np.save(tmp_path / "data" / "scene" / f"sample-{number}" / "cloud.npy", POINTS)
    overrides = [*picture_dataset.SETTINGS, "prompts=nuscenes-paper"]
    cache = tmp_path / "cache.zarr"
    build_cache(load_config("clouds", teachers="untrained", overrides=overrides), tmp_path / "data", str(cache))
    assert problems(cache) == []
    return cache


def test_a_sample_without_a_cloud_has_no_points(tmp_path: Path, labelgen_here) -> None:
    url = make(tmp_path, (True, False, True))
    cache, manifest = Cache.open(str(url))
    assert manifest.modalities == ("image", "point")
    points = cache.read(POINTS_PATH)
    assert sorted(points) == ["colour", "offsets", "xyz"], "not every sample has a pose, and none has intensity"
    np.testing.assert_array_equal(points["offsets"], [0, 3, 3, 6])
    np.testing.assert_array_equal(points["colour"], np.tile(POINTS[:, 3:], (2, 1)))
    pairs = cache.read(GroupPath("scene-000", "pairs"))
    np.testing.assert_array_equal(pairs["offsets"], [0, 2, 2, 4])
    np.testing.assert_array_equal(pairs["image"], [0, 0, 2, 2])
    np.testing.assert_array_equal(cache.read(GroupPath("scene-000", "truth"))["point"], [3] * 6)
    done = labelgen_here("inspect", str(url), "--pictures", str(tmp_path / "p"), "--html", str(tmp_path / "a.html"))
    assert done.returncode == 0, done.stderr


def test_poses_are_there_if_every_sample_has_one(tmp_path: Path) -> None:
    cache = Cache(str(make(tmp_path, (True, True))))
    np.testing.assert_array_equal(cache.read(POINTS_PATH)["world_from_cloud"], np.tile(np.eye(4), (2, 1, 1)))
    samples = read_samples(cache, "scene-000", ["sample-0", "sample-1"], {"points": ()})
    assert [len(sample["points"]["world_from_cloud"]) for sample in samples] == [1, 1]


def test_the_audit_takes_thresholds_from_the_data_set_and_defaults_if_it_is_not_installed() -> None:
    assert (top_view_reach_m("clouds"), top_view_reach_m("gone")) == (6, 50)
    assert (smallest_seen_share("clouds"), smallest_seen_share("gone")) == (0.05, 0.05)
