"""Each data set of ours, made small in its official layout: from its files to a sound cache of its labels."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.taxonomy import load_taxonomy
from cache_schemas.validate import validate
from labelgen.datasets import find_dataset
from labelgen.file_warnings import describe
from labelgen.samples import file_sizes
from labelgen.stages.truth import TRUTH
from pipelines.config import RunConfig, load_config
from pipelines.resolve import open_dataset, read_scenes
from tests.pipelines.in_process import build_cache

MAKERS = Path(__file__).parents[1] / "labelgen"
KITTI = runpy.run_path(str(MAKERS / "make_semantickitti.py"))
NUIMAGES = runpy.run_path(str(MAKERS / "make_nuimages.py"))


def small_settings(tmp_path: Path, dataset: str) -> list[str]:
    """Return overrides for a small run of one sentence a class."""
    names = load_taxonomy(find_dataset(dataset).adapter.taxonomy_name).names
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text(json.dumps({"templates": ["a {}."], "classes": {name: [name] for name in names}}))
    return ["images.height=32", "images.width=112", "sam.points_per_side=1", f"prompts={prompts}"]


def small(tmp_path: Path, dataset: str, split: str) -> RunConfig:
    """Return the settings of a small run."""
    return load_config(dataset, teachers="untrained", split=split, overrides=small_settings(tmp_path, dataset))


def test_semantickitti_becomes_a_cache_with_points_and_their_truth(tmp_path: Path) -> None:
    data, url = KITTI["make_semantickitti"](tmp_path / "data"), str(tmp_path / "cache")
    build_cache(small(tmp_path, "semantickitti", "valid"), data, url)
    cache, manifest = Cache.open(url)
    assert [str(problem) for problem in validate(cache, manifest)] == []
    assert manifest.modalities == ("image", "point")
    record = cache.shard_records(["08-000"])["08-000"]
    assert record.samples == ("08-000000", "08-000001", "08-000002")
    assert {(p.camera, p.width_px, p.height_px) for p in record.pictures} == {("image_2", 306, 92)}
    assert np.diff(cache.read(GroupPath("08-000", "pairs"))["offsets"]).tolist() == [len(KITTI["RAW_IDS"])] * 3
    assert cache.read(GroupPath("08-000", "points"))["world_from_cloud"].shape == (3, 4, 4)
    assert set(np.unique(cache.read(GroupPath("08-000", "truth"))["point"]).tolist()) == {*range(19), 255}


@pytest.mark.ray
def test_a_run_tells_unknown_label_ids_and_loads_no_teacher_for_truth(tmp_path: Path, labelgen) -> None:
    data, url = KITTI["make_semantickitti"](tmp_path / "data"), str(tmp_path / "cache")
    build_cache(small(tmp_path, "semantickitti", "valid"), data, url)
    for frame in ("000000", "000001"):
        file = data / "sequences" / "08" / "labels" / f"{frame}.label"
        labels = np.fromfile(file, "<u4")
        labels[:2] = 260, 200
        labels.tofile(file)
    where = ["--dataset", "semantickitti", "--data", str(data), "--cache", url, "--split", "valid"]
    settings = [word for setting in small_settings(tmp_path, "semantickitti") for word in ("--set", setting)]
    done = labelgen("run", *where, "--teachers", "untrained", *settings)
    assert done.returncode == 0, done.stderr
    first = data / "sequences" / "08" / "labels" / "000000.label"
    warning = f"warning: unknown raw ids 200, 260; their points get no class ({first} and 1 other file)"
    assert warning in done.stdout.splitlines()
    assert "loading the teachers" not in done.stderr


def test_warnings_are_told_once_a_text_and_few_in_all() -> None:
    files = {f"unknown raw ids {number}": {"a.label"} for number in range(10, 18)}
    lines = describe({"unknown raw ids 9": {"b.label", "a.label", "c.label"}, **files})
    assert lines[0] == "unknown raw ids 9 (a.label and 2 other files)"
    assert lines[1:] == [f"unknown raw ids {number} (a.label)" for number in range(10, 14)] + ["4 more warnings"]


def test_nuimages_becomes_a_cache_of_pictures_with_the_truth_of_its_masks(tmp_path: Path) -> None:
    data, url = NUIMAGES["make_nuimages"](tmp_path / "data"), str(tmp_path / "cache")
    build_cache(small(tmp_path, "nuimages", "mini"), data, url)
    cache, manifest = Cache.open(url)
    assert [str(problem) for problem in validate(cache, manifest)] == []
    assert manifest.modalities == ("image",)
    key = "n009-2018-05-08-15-52-41-0400-000"
    assert set(cache.shard_seals(key)) == {"images", "clip", "sam", "labels", "truth"}
    many, bare = cache.read(GroupPath(key, "truth"))["image"]
    assert set(np.unique(many).tolist()) == {*range(10), 255}
    assert (bare == 255).all()


def test_a_mask_in_a_table_is_in_the_fingerprint_of_the_truth(tmp_path: Path) -> None:
    data = NUIMAGES["make_nuimages"](tmp_path / "data")

    def raw_inputs(**changes: object) -> str:
        scene = read_scenes(small(tmp_path, "nuimages", "mini"), open_dataset("nuimages", data))[0]
        samples = [replace(s, cameras=tuple(replace(c, **changes) for c in s.cameras)) for s in scene.samples]
        return json.dumps(TRUTH.raw_inputs(samples, lambda paths: file_sizes(data, paths)))

    before = raw_inputs()
    assert raw_inputs() == before
    table = data / "v1.0-mini" / "object_ann.json"
    rows = json.loads(table.read_text())
    (row,) = (row for row in rows if row["token"] == "b1")
    row["mask"]["counts"] = NUIMAGES["in_base64"](NUIMAGES["compressed"]([100, 10, 64 * 112 - 110]))
    table.write_text(json.dumps(rows))
    assert raw_inputs() != before
    assert raw_inputs(truth_masks=()) == "null"
