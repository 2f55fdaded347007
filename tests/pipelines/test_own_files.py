"""A data set of one's own, mixed in every way, from its list to the audit of its cache."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from labelgen.datasets.files.adapter import Files
from pipelines.config import RunConfig, load_config
from pipelines.plan import Planner
from pipelines.resolve import resolve, with_modalities_of
from tests.labelgen.make_files import INTRINSICS, Line, make_files, write_list
from tests.pipelines.in_process import build_cache

LENS = [0.02, -0.01, 0.003, 0.0]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Line]]:
    """One scene: a fisheye camera, a larger picture, a cloud without intensity, and a sample without a cloud."""
    folder = tmp_path_factory.mktemp("mine")
    lines = make_files(folder, 3)
    for line in lines:
        line["scene"] = "street"
    lines[0]["images"][0]["distortion"] = {"model": "fisheye", "coefficients": LENS}
    for part in ("pictures", "truth"):
        file = folder / part / "1-front.png"
        Image.open(file).resize((160, 90), Image.Resampling.NEAREST).save(file)
    lines[1]["images"][0] |= {"width": 160, "height": 90}
    lines[1]["cloud"] = {"path": "clouds/1.bin", "columns": ["x", "y", "z", "reflection"]}
    del lines[2]["cloud"], lines[2]["point_truth"]
    write_list(folder, lines)
    return folder, lines


def config(*more: str) -> RunConfig:
    return load_config("files", teachers="untrained", overrides=["images={height: 64, width: 112}", *more])


@pytest.fixture(scope="module")
def url(mine: tuple[Path, list[Line]], tmp_path_factory: pytest.TempPathFactory) -> str:
    cache = str(tmp_path_factory.mktemp("cache") / "cache.zarr")
    build_cache(config(), mine[0], cache)
    return cache


def test_the_cache_is_sound_and_has_the_classes_and_words_of_the_list(url: str) -> None:
    cache, manifest = Cache.open(url)
    assert [str(problem) for problem in validate(cache, manifest)] == []
    assert manifest.taxonomy.names == ("road", "wall", "car")
    assert manifest.prompts.class_names["car"] == ("car",)
    assert manifest.modalities == ("image", "point")


def test_points_have_truth_and_poses_and_no_intensity_unless_all_clouds_have_it(url: str) -> None:
    cache = Cache(url)
    points, truth = (cache.read(GroupPath("street-000", group)) for group in ("points", "truth"))
    assert points["offsets"].tolist() == [0, 600, 1200, 1200]
    assert "intensity" not in points
    assert points["world_from_cloud"][:, 0, 3].tolist() == [0, 2, 4]
    assert np.bincount(truth["point"]).tolist() == [600, 400, 200]


def test_pairs_of_the_fisheye_camera_are_those_of_opencv(url: str, mine: tuple[Path, list[Line]]) -> None:
    folder, lines = mine
    pairs = Cache(url).read(GroupPath("street-000", "pairs"))
    cam_from_cloud = np.array(lines[0]["images"][0]["cam_from_cloud"])
    xyz = np.fromfile(folder / "clouds/0.bin", "<f4").reshape(-1, 4)[:, :3].astype(np.float64)
    in_camera = xyz @ cam_from_cloud[:3, :3].T + cam_from_cloud[:3, 3]
    still = np.zeros(3)
    found, _ = cv2.fisheye.projectPoints(in_camera[:, None], still, still, np.array(INTRINSICS), np.array(LENS))
    u, v = found[:, 0].T
    inside = (in_camera[:, 2] > 0.5) & (u > 1) & (u < 111) & (v > 1) & (v < 63)
    mine_pairs = pairs["image"] == 0
    assert pairs["point"][mine_pairs].tolist() == np.flatnonzero(inside).tolist()
    np.testing.assert_allclose(pairs["col"][mine_pairs], u[inside], atol=0.5 + 1e-6)
    np.testing.assert_allclose(pairs["row"][mine_pairs], v[inside], atol=0.5 + 1e-6)


def test_a_changed_reading_of_clouds_redoes_points_and_never_masks(
    url: str, mine: tuple[Path, list[Line]], tmp_path: Path
) -> None:
    folder, lines = mine

    def due(data: Path) -> set[str]:
        adapter = Files(data)
        scenes = adapter.scenes("all", None)
        resolved = with_modalities_of(scenes, resolve(config(), adapter))
        (shard,) = Planner(adapter.data, Cache(url), resolved).plan(scenes)
        return set(shard.todo)

    assert due(folder) == due(folder / "samples.jsonl") == set()
    changed = lines[0] | {"cloud": lines[0]["cloud"] | {"intensity_max": 256}}
    assert due(write_list(folder, [changed, *lines[1:]], "changed.jsonl")) == {"points", "pairs", "labels", "truth"}
