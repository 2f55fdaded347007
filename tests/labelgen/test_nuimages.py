"""The nuImages adapter: splits, key frames, masks against pycocotools, drawing order, and every kind of damage."""

import json
import runpy
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from cache_schemas.errors import ConfigError
from cache_schemas.taxonomy import load_taxonomy
from labelgen.completeness import missing_files
from labelgen.datasets import find_dataset
from labelgen.datasets.nuimages.adapter import NuImages
from labelgen.datasets.nuimages.run_lengths import covered_pixels, run_lengths
from labelgen.errors import DatasetError, SampleError
from labelgen.pictures import read_image
from labelgen.samples import Sample, file_sizes
from pipelines.config import load_config
from pipelines.resolve import read_scenes

Refused = Callable[..., AbstractContextManager[None]]
Row = dict[str, Any]

MAKER = runpy.run_path(str(Path(__file__).with_name("make_nuimages.py")))
token = MAKER["token"]
HEIGHT_PX, WIDTH_PX = 64, 112

OFFICIAL_CLASSES = {
    **{"human.pedestrian.adult": "pedestrian", "human.pedestrian.child": "pedestrian"},
    **{"human.pedestrian.construction_worker": "pedestrian", "human.pedestrian.police_officer": "pedestrian"},
    **{"movable_object.barrier": "barrier", "movable_object.trafficcone": "traffic_cone"},
    **{"vehicle.bicycle": "bicycle", "vehicle.bus.bendy": "bus", "vehicle.bus.rigid": "bus", "vehicle.car": "car"},
    **{"vehicle.construction": "construction_vehicle", "vehicle.motorcycle": "motorcycle"},
    **{"vehicle.trailer": "trailer", "vehicle.truck": "truck", "flat.driveable_surface": "driveable_surface"},
}
"""The categories that have one of the 11 shared classes."""


@pytest.fixture(scope="session")
def nuimages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fake data set to be read only."""
    folder: Path = MAKER["make_nuimages"](tmp_path_factory.mktemp("nuimages"))
    return folder


@pytest.fixture
def damaged(nuimages: Path, tmp_path: Path) -> Path:
    """A copy of the fake data set that is this test's own to damage."""
    return Path(shutil.copytree(nuimages, tmp_path / "nuimages"))


def samples_of(folder: Path) -> dict[str, Sample]:
    """Return the samples of a fake data set by their names in the maker."""
    names = {token("sample", name): name for name in MAKER["SAMPLES"]}
    return {names[sample.token]: sample for scene in NuImages(folder).scenes("mini", None) for sample in scene.samples}


def table(folder: Path, name: str) -> list[Row]:
    rows: list[Row] = json.loads((folder / "v1.0-mini" / f"{name}.json").read_text())
    return rows


def change(folder: Path, name: str, row_token: str, **changes: object) -> Path:
    rows = [row | changes if row["token"] == row_token else row for row in table(folder, name)]
    assert rows != table(folder, name)
    file = folder / "v1.0-mini" / f"{name}.json"
    file.write_text(json.dumps(rows))
    return file


# Splits and samples


def test_the_adapter_shares_taxonomy_and_prompts_with_nuscenes() -> None:
    assert find_dataset("nuimages").adapter is NuImages
    assert NuImages.taxonomy_name == "nuscenes16"
    assert load_config("nuimages").prompts == "nuscenes-improved"


def test_the_split_is_the_folder(tmp_path: Path, refused: Refused) -> None:
    MAKER["make_nuimages"](tmp_path, "val")
    assert len(NuImages(tmp_path).scenes("val", None)) == len(NuImages(tmp_path).scenes("val", "v1.0-val")) == 2
    with refused(DatasetError, tmp_path, "v1.0-train", "it holds v1.0-val"):
        NuImages(tmp_path).scenes("train", None)
    with refused(DatasetError, "'all'", "train, val, test, mini"):
        NuImages(tmp_path).scenes("all", None)
    with refused(DatasetError, "'v1.0-mini'", "leave `version` out"):
        NuImages(tmp_path).scenes("val", "v1.0-mini")
    with refused(DatasetError, f"--data {tmp_path}"):
        NuImages(tmp_path / "v1.0-val").scenes("val", None)
    with refused(DatasetError, tmp_path.parent, "one folder deeper", tmp_path / "v1.0-val"):
        NuImages(tmp_path.parent).scenes("val", None)


def test_scenes_are_logs_and_samples_come_in_time_order(nuimages: Path) -> None:
    scenes = NuImages(nuimages).scenes("mini", None)
    assert {scene.name: [sample.token for sample in scene.samples] for scene in scenes} == {
        "n003-2018-01-02-11-48-43+0800": [token("sample", "overlaps"), token("sample", "edges")],
        "n009-2018-05-08-15-52-41-0400": [token("sample", "many"), token("sample", "bare")],
    }


def test_a_sample_is_its_key_frame_without_a_cloud(nuimages: Path) -> None:
    for name, sample in samples_of(nuimages).items():
        (camera,) = sample.cameras
        assert sample.cloud_path is None and sample.world_from_cloud is None and sample.defect is None
        assert camera.channel == MAKER["SAMPLES"][name].channel
        assert camera.image_path.startswith(f"samples/{camera.channel}/")
        assert read_image(NuImages(nuimages), camera).shape == (HEIGHT_PX, WIDTH_PX, 3)
        assert camera.intrinsics.tolist() == [[88, 0, 56.5], [0, 88, 32.5], [0, 0, 1]]
        # The camera looks along x of the car, from 1.7 m ahead of its axle and 1.5 m above the ground.
        np.testing.assert_allclose(camera.cam_from_cloud @ [11.7, 2, 1.5, 1], [-2, 0, 10, 1], atol=1e-12)


def test_distortion_is_kept_with_five_numbers_or_six_at_the_back(nuimages: Path) -> None:
    found = {name: sample.cameras[0].distortion for name, sample in samples_of(nuimages).items()}
    assert found["overlaps"].coefficients == tuple(MAKER["DISTORTION"])
    assert found["edges"].coefficients == (*MAKER["DISTORTION"], 0.004)


def test_the_setting_for_cameras_leaves_out_pictures_of_others(nuimages: Path) -> None:
    config = load_config("nuimages", split="mini", overrides=["cameras=[CAM_BACK]"])
    ((sample,),) = (scene.samples for scene in read_scenes(config, NuImages(nuimages)))
    assert sample.token == token("sample", "edges")
    with pytest.raises(ConfigError, match=r"no camera 'image_2'.*CAM_BACK, CAM_FRONT"):
        read_scenes(load_config("nuimages", split="mini", overrides=["cameras=[image_2]"]), NuImages(nuimages))


# Run lengths, against pycocotools


def random_masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    blobs = [rng.random((64, 112)) < share for share in (0.001, 0.02, 0.5, 0.98)]
    boxes = [np.zeros((900, 1600), bool) for _ in range(8)]
    for box in boxes:
        top, left = rng.integers(0, (850, 1550))
        box[top : top + rng.integers(1, 400), left : left + rng.integers(1, 900)] = True
    edges = [np.zeros((7, 5), bool), np.ones((7, 5), bool), np.eye(7, 5, dtype=bool), np.ones((1, 1), bool)]
    return [*blobs, *boxes, *edges]


@pytest.mark.parametrize("mask", random_masks(), ids=lambda mask: f"{mask.shape[0]}x{mask.shape[1]}")
def test_run_lengths_are_read_as_pycocotools_writes_them(mask: np.ndarray) -> None:
    text = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    np.testing.assert_array_equal(covered_pixels(text, mask.size), mask.T.ravel())
    assert MAKER["run_lengths"](mask) == text


@pytest.mark.parametrize("text, said", [("0a", "cut short"), ("P", "cut short"), ("0~", "not one"), ("é", "not one")])
def test_text_that_is_no_run_lengths_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run_lengths(text)


@pytest.mark.parametrize("runs, said", [([3, 4, 2], "9 pixels, the picture has 10"), ([5, -1, 6], "a run has -1")])
def test_runs_that_are_not_those_of_the_picture_are_refused(runs: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        covered_pixels(MAKER["compressed"](runs), 10)


# Truth


@pytest.mark.parametrize("name", MAKER["SAMPLES"])
def test_truth_is_surfaces_in_table_order_under_objects_in_token_order(nuimages: Path, name: str) -> None:
    made = MAKER["SAMPLES"][name]
    ids = {label: number for number, label in enumerate(load_taxonomy("nuscenes16").names)}
    expected = np.full((HEIGHT_PX, WIDTH_PX), 255)
    for annotation in (*made.surfaces, *sorted(made.objects, key=lambda entry: entry.token)):
        expected[annotation.mask] = ids.get(OFFICIAL_CLASSES.get(annotation.category, ""), 255)
    truth = NuImages(nuimages).read_image_truth(samples_of(nuimages)[name].cameras[0])
    np.testing.assert_array_equal(truth, expected)
    assert truth.dtype == np.uint8


def test_known_pixels_have_known_classes(nuimages: Path) -> None:
    names = (*load_taxonomy("nuscenes16").names, *["no class"] * 240)
    truth = NuImages(nuimages).read_image_truth(samples_of(nuimages)["overlaps"].cameras[0])
    found = {at: names[truth[at]] for at in [(5, 5), (35, 5), (60, 50), (30, 45), (30, 55), (42, 75), (42, 85)]}
    assert found == {
        (5, 5): "no class",  # not annotated
        (35, 5): "driveable_surface",
        (60, 50): "no class",  # the own car, over the road
        (30, 45): "car",
        (30, 55): "truck",  # over the car, for its token is later
        (42, 75): "no class",  # the animal, over the truck
        (42, 85): "no class",
    }


def test_truth_has_the_eleven_shared_classes(nuimages: Path) -> None:
    samples = samples_of(nuimages).values()
    found = {int(i) for s in samples for i in np.unique(NuImages(nuimages).read_image_truth(s.cameras[0]))}
    assert found == {*range(11), 255}


def test_a_picture_without_annotations_has_truth_without_classes(nuimages: Path) -> None:
    camera = samples_of(nuimages)["bare"].cameras[0]
    assert camera.truth_masks == ()
    assert (NuImages(nuimages).read_image_truth(camera) == 255).all()


# Damage to one sample


def assert_only_defect(folder: Path, name: str, *parts: object) -> None:
    defects = {found: sample.defect for found, sample in samples_of(folder).items() if sample.defect}
    assert list(defects) == [name]
    assert [part for part in parts if str(part) not in str(defects[name])] == [], defects
    assert samples_of(folder)[name].cloud_path is None


def test_a_mask_of_another_size_than_the_picture_is_a_defect(damaged: Path) -> None:
    change(damaged, "object_ann", "d0", mask={"size": [112, 64], "counts": ""})
    assert_only_defect(damaged, "edges", "d0", "[112, 64]", "[64, 112]", "extract the tables again")


@pytest.mark.parametrize("counts", ["no base64!", "abc", "é"])
def test_a_mask_that_is_no_base64_is_a_defect(damaged: Path, counts: str) -> None:
    change(damaged, "surface_ann", "c0", mask={"size": [64, 112], "counts": counts})
    assert_only_defect(damaged, "edges", "c0", "not base64", "extract the tables again")


def test_an_unknown_category_is_a_defect(damaged: Path) -> None:
    change(damaged, "object_ann", "b1", category_token="nobody")
    assert_only_defect(damaged, "overlaps", "category.json", "'nobody'")


def test_a_key_picture_that_no_row_has_is_a_defect(damaged: Path) -> None:
    change(damaged, "sample", token("sample", "many"), key_camera_token="nobody")
    assert_only_defect(damaged, "many", "sample_data.json", "'nobody'")


@pytest.mark.parametrize(
    "table_name, kind, changes, said",
    [
        ("sample_data", "key", {"calibrated_sensor_token": "nobody"}, "calibrated_sensor.json"),
        ("sample_data", "key", {"filename": "../secret.jpg"}, "not a file inside"),
        ("sample_data", "key", {"width": 0}, "0x64 pixels"),
        ("calibrated_sensor", "calibrated", {"sensor_token": "nobody"}, "sensor.json"),
        ("calibrated_sensor", "calibrated", {"camera_intrinsic": []}, "camera_intrinsic"),
        ("calibrated_sensor", "calibrated", {"rotation": [2, 0, 0, 0]}, "unit quaternion"),
        ("calibrated_sensor", "calibrated", {"rotation": [1, 0, 0]}, "4 and 3 numbers"),
    ],
)
def test_a_broken_row_is_a_defect_of_its_sample(
    damaged: Path, table_name: str, kind: str, changes: Row, said: str
) -> None:
    change(damaged, table_name, token(kind, "bare"), **changes)
    assert_only_defect(damaged, "bare", said)


def test_runs_of_too_few_pixels_are_refused_when_the_truth_is_read(damaged: Path, refused: Refused) -> None:
    short = MAKER["in_base64"](MAKER["compressed"]([100, 50, 18]))
    change(damaged, "object_ann", "d1", mask={"size": [64, 112], "counts": short})
    camera = samples_of(damaged)["edges"].cameras[0]
    with refused(SampleError, damaged / camera.image_path, "annotation 2", "168 pixels, the picture has 7168"):
        NuImages(damaged).read_image_truth(camera)


def test_a_missing_picture_is_found_by_the_plan_and_belongs_to_one_sample(damaged: Path) -> None:
    file = samples_of(damaged)["many"].cameras[0].image_path
    (damaged / file).unlink()
    lacking = {
        name: missing_files(sample, ("images",), lambda paths: file_sizes(damaged, paths))
        for name, sample in samples_of(damaged).items()
    }
    assert {name: files for name, files in lacking.items() if files} == {"many": (file,)}
    assert "nuimages-v1.0-all-samples.tgz" in NuImages(damaged).remedy_for_missing(["samples/CAM_FRONT_LEFT"])


# Damage to the whole


@pytest.mark.parametrize("name", ["sample", "sample_data", "object_ann", "surface_ann", "category", "log", "sensor"])
def test_a_table_that_is_missing_or_cut_short_is_named(damaged: Path, name: str, refused: Refused) -> None:
    file = damaged / "v1.0-mini" / f"{name}.json"
    file.write_bytes(file.read_bytes()[:-20])
    with refused(DatasetError, file, "extract it again"):
        NuImages(damaged).scenes("mini", None)
    file.unlink()
    with refused(DatasetError, file, "the table is missing"):
        NuImages(damaged).scenes("mini", None)


def test_a_sample_of_an_unknown_log_is_refused(damaged: Path, refused: Refused) -> None:
    change(damaged, "sample", token("sample", "many"), log_token="nobody")
    with refused(DatasetError, "log.json", "'nobody'"):
        NuImages(damaged).scenes("mini", None)


def test_a_data_set_of_defects_only_is_refused(damaged: Path, refused: Refused) -> None:
    for name in MAKER["SAMPLES"]:
        change(damaged, "sample_data", token("key", name), width=0)
    with refused(DatasetError, damaged / "v1.0-mini", "none of the 4 samples", "0x64"):
        NuImages(damaged).scenes("mini", None)
