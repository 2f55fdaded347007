"""The nuScenes adapter: versions, splits, keyframes, calibration chain, lidarseg, and every damage to a dataset."""

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelgen.datasets import find_dataset
from labelgen.datasets.nuscenes.adapter import NuScenes
from labelgen.datasets.nuscenes.splits import split_names, split_scenes
from labelgen.errors import DatasetError, SampleError, SourceError
from labelgen.geometry import pair_points
from labelgen.samples import Sample

Row = dict[str, Any]
Make = Callable[..., Path]
Refused = Callable[..., AbstractContextManager[None]]
Vector = tuple[float, float, float]

CAMERAS = ["CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT"]
VERSION = "v1.0-mini"
REAL = Path(__file__).parents[2] / "../shared/data/nuscenes-keyframe"
needs_real_keyframe = pytest.mark.skipif(
    not REAL.is_dir(), reason="the real nuScenes keyframe (non-commercial licence) is not beside the repository"
)
KEYFRAMES = {"scene-0061": 3, "scene-0103": 2}

OFFICIAL_LIDARSEG_MAP = [
    *(0, 0, 7, 7, 7, 0, 7, 0, 0, 1, 0, 0, 8, 0, 2, 3),
    *(3, 4, 5, 0, 0, 6, 9, 10, 11, 12, 13, 14, 15, 0, 16, 0),
]
"""What the official 32 lidarseg indices become in the challenge's numbering, where 0 is "ignore"."""


def table(folder: Path, name: str, version: str = VERSION) -> list[Row]:
    rows: list[Row] = json.loads((folder / version / f"{name}.json").read_text())
    return rows


def rewrite(folder: Path, name: str, rows: list[Row]) -> Path:
    file = folder / VERSION / f"{name}.json"
    file.write_text(json.dumps(rows))
    return file


def all_samples(folder: Path) -> list[Sample]:
    return [sample for scene in NuScenes(folder).scenes("all", None) for sample in scene.samples]


def keyframe_reading(folder: Path, sample: str, channel: str) -> Row:
    (row,) = (
        row
        for row in table(folder, "sample_data")
        if row["sample_token"] == sample and row["is_key_frame"] and f"/{channel}/" in row["filename"]
    )
    return row


def change_reading(folder: Path, sample: str, channel: str, **changes: object) -> Path:
    token = keyframe_reading(folder, sample, channel)["token"]
    rows = table(folder, "sample_data")
    return rewrite(folder, "sample_data", [row | changes if row["token"] == token else row for row in rows])


def change_row(folder: Path, name: str, token: str, **changes: object) -> Path:
    return rewrite(folder, name, [row | changes if row["token"] == token else row for row in table(folder, name)])


def assert_only_defect(folder: Path, sample: Sample, *parts: object) -> None:
    """Assert that `sample` is defective for a reason that holds all `parts`, and that no other sample is."""
    found = all_samples(folder)
    assert [entry.token for entry in found if entry.defect] == [sample.token]
    assert all(len(entry.cameras) == 6 for entry in found if entry.token != sample.token)
    (defect,) = (entry.defect for entry in found if entry.defect)
    assert [part for part in parts if str(part) not in str(defect)] == [], defect


@pytest.fixture
def victim(damaged_folder: Path) -> Sample:
    """The second sample of the first scene, the one that a test damages."""
    return all_samples(damaged_folder)[1]


# Versions


def test_the_adapter_is_registered_by_name() -> None:
    assert find_dataset("nuscenes").adapter is NuScenes
    assert NuScenes.taxonomy_name == "nuscenes16"


def test_a_single_version_is_found_without_being_named(nuscenes_folder: Path) -> None:
    for version in (None, VERSION):
        scenes = NuScenes(nuscenes_folder).scenes("all", version)
        assert {scene.name: len(scene.samples) for scene in scenes} == KEYFRAMES


def test_of_several_versions_the_named_one_is_read(tmp_path: Path, make_nuscenes: Make) -> None:
    make_nuscenes(tmp_path, {"scene-0061": 1})
    make_nuscenes(tmp_path, {"scene-0001": 1, "scene-0003": 1}, version="v1.0-trainval")
    adapter = NuScenes(tmp_path)
    assert [scene.name for scene in adapter.scenes("all", "v1.0-mini")] == ["scene-0061"]
    assert [scene.name for scene in adapter.scenes("all", "v1.0-trainval")] == ["scene-0001", "scene-0003"]


def test_several_versions_and_none_named_asks_which(tmp_path: Path, make_nuscenes: Make, refused: Refused) -> None:
    make_nuscenes(tmp_path, {"scene-0061": 1})
    make_nuscenes(tmp_path, {"scene-0001": 1}, version="v1.0-trainval")
    with refused(DatasetError, tmp_path, "v1.0-mini, v1.0-trainval", "--set version="):
        NuScenes(tmp_path).scenes("all", None)


def test_an_absent_version_names_it_and_those_that_are_there(nuscenes_folder: Path, refused: Refused) -> None:
    with refused(DatasetError, nuscenes_folder, "'v1.0-test'", "it holds v1.0-mini"):
        NuScenes(nuscenes_folder).scenes("all", "v1.0-test")


@pytest.mark.parametrize("version", [None, "v1.0-mini"])
def test_a_folder_without_any_version_says_which_folder_to_give(
    tmp_path: Path, version: str | None, refused: Refused
) -> None:
    (tmp_path / "samples").mkdir()
    with refused(DatasetError, tmp_path, "holds no v1.0-* folder"):
        NuScenes(tmp_path).scenes("all", version)


def test_a_missing_folder_is_refused_when_the_adapter_is_made(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere: no such folder; give the nuScenes folder that holds samples/"):
        NuScenes(tmp_path / "nowhere")


# Splits


@pytest.mark.parametrize(
    "split, scenes",
    [
        *(("train", 700), ("val", 150), ("test", 150), ("mini_train", 8), ("mini_val", 2)),
        *(("parametrize", 600), ("verify", 100)),
    ],
)
def test_splits_have_the_official_number_of_scenes(split: str, scenes: int) -> None:
    assert len(split_scenes(split)) == scenes


def test_train_val_and_test_share_no_scene() -> None:
    assert len(split_scenes("train") | split_scenes("val") | split_scenes("test")) == 1000


def test_parametrize_and_verify_part_train() -> None:
    assert split_scenes("parametrize") | split_scenes("verify") == split_scenes("train")
    assert not split_scenes("parametrize") & split_scenes("verify")


def test_mini_splits_are_scenes_of_train_and_val() -> None:
    assert split_scenes("mini_val") == {"scene-0103", "scene-0916"}
    assert split_scenes("mini_train") == {
        *("scene-0061", "scene-0553", "scene-0655", "scene-0757"),
        *("scene-0796", "scene-1077", "scene-1094", "scene-1100"),
    }
    assert split_scenes("mini_val") <= split_scenes("val")


def test_scenes_of_a_split_are_those_of_it_that_the_version_holds(nuscenes_folder: Path) -> None:
    adapter = NuScenes(nuscenes_folder)
    assert [scene.name for scene in adapter.scenes("mini_train", None)] == ["scene-0061"]
    assert [scene.name for scene in adapter.scenes("val", None)] == ["scene-0103"]
    assert [scene.name for scene in adapter.scenes("all", None)] == ["scene-0061", "scene-0103"]


def test_an_unknown_split_lists_the_known_ones(nuscenes_folder: Path, refused: Refused) -> None:
    with refused(DatasetError, "'validation'", "all", *split_names()):
        NuScenes(nuscenes_folder).scenes("validation", None)


def test_a_split_without_scenes_in_this_version_is_refused(nuscenes_folder: Path, refused: Refused) -> None:
    with refused(DatasetError, nuscenes_folder / VERSION, "'test'", "choose another split or version"):
        NuScenes(nuscenes_folder).scenes("test", None)


# Samples


def test_samples_are_the_keyframes_in_time_order(nuscenes_folder: Path) -> None:
    scenes = NuScenes(nuscenes_folder).scenes("all", None)
    assert {scene.name: len(scene.samples) for scene in scenes} == KEYFRAMES
    for scene in scenes:
        found = [sample.token for sample in scene.samples]
        rows = {row["token"]: row for row in table(nuscenes_folder, "sample") if row["token"] in found}
        (token,) = (row["token"] for row in rows.values() if row["prev"] == "")
        chain = []
        while token:
            chain.append(token)
            token = rows[token]["next"]
        assert found == chain
    files = [path for sample in all_samples(nuscenes_folder) for path in sample.input_paths]
    assert len(files) == len(set(files)) == 5 * 7
    assert all((nuscenes_folder / path).is_file() for path in files)


def test_a_sample_carries_its_scene_token_and_lidar_file(nuscenes_folder: Path) -> None:
    for scene in NuScenes(nuscenes_folder).scenes("all", None):
        for sample in scene.samples:
            assert sample.scene == scene.name
            reading = keyframe_reading(nuscenes_folder, sample.token, "LIDAR_TOP")
            assert sample.cloud_path == reading["filename"]
            assert sample.defect is None


def test_six_cameras_come_in_order_with_their_own_picture_size_and_intrinsics(nuscenes_folder: Path) -> None:
    sensors = {row["token"]: row for row in table(nuscenes_folder, "calibrated_sensor")}
    for sample in all_samples(nuscenes_folder):
        assert [camera.channel for camera in sample.cameras] == CAMERAS
        for camera in sample.cameras:
            reading = keyframe_reading(nuscenes_folder, sample.token, camera.channel)
            assert camera.image_path == reading["filename"]
            assert (camera.width_px, camera.height_px) == (160, 90)
            expected = sensors[reading["calibrated_sensor_token"]]["camera_intrinsic"]
            assert camera.intrinsics.tolist() == expected


# Calibration, against a chain written out step by step on plain floats


def rotate(wxyz: list[float], v: Vector) -> Vector:
    """Turn a vector by a quaternion: v + 2 w (u x v) + 2 u x (u x v), with u the quaternion's vector part."""
    w, *u = wxyz
    once = cross(tuple(u), v)
    twice = cross(tuple(u), once)
    return tuple(v[i] + 2 * (w * once[i] + twice[i]) for i in range(3))


def cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def forth(row: Row, v: Vector) -> Vector:
    """Sensor -> ego, or ego -> global: turn, then move."""
    turned = rotate(row["rotation"], v)
    return tuple(turned[i] + row["translation"][i] for i in range(3))


def back(row: Row, v: Vector) -> Vector:
    """Undo `forth`: move back, then turn back."""
    w, x, y, z = row["rotation"]
    return rotate([w, -x, -y, -z], tuple(v[i] - row["translation"][i] for i in range(3)))


def chained(folder: Path, sample: Sample, channel: str, point: Vector) -> Vector:
    poses = {row["token"]: row for row in table(folder, "ego_pose")}
    sensors = {row["token"]: row for row in table(folder, "calibrated_sensor")}
    lidar = keyframe_reading(folder, sample.token, "LIDAR_TOP")
    camera = keyframe_reading(folder, sample.token, channel)
    in_ego_then = forth(sensors[lidar["calibrated_sensor_token"]], point)
    in_global = forth(poses[lidar["ego_pose_token"]], in_ego_then)
    in_ego_at_camera_time = back(poses[camera["ego_pose_token"]], in_global)
    return back(sensors[camera["calibrated_sensor_token"]], in_ego_at_camera_time)


def assert_chain_holds(folder: Path, samples: list[Sample]) -> None:
    for sample in samples:
        for camera in sample.cameras:
            for point in ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 10.0, 0.0), (-7.5, 31.25, -1.75)):
                found = camera.cam_from_cloud @ [*point, 1.0]
                np.testing.assert_allclose(found[:3], chained(folder, sample, camera.channel, point), atol=1e-8)
                assert found[3] == 1


def test_cam_from_cloud_goes_lidar_ego_global_ego_at_the_cameras_time_camera(nuscenes_folder: Path) -> None:
    samples = all_samples(nuscenes_folder)
    poses = {
        keyframe_reading(nuscenes_folder, samples[0].token, channel)["ego_pose_token"]
        for channel in ("LIDAR_TOP", *CAMERAS)
    }
    assert len(poses) == 7  # else a chain through the wrong pose would pass
    assert_chain_holds(nuscenes_folder, samples)


def test_points_ahead_of_the_car_lie_before_the_front_camera_and_behind_the_back_camera(nuscenes_folder: Path) -> None:
    cameras = {camera.channel: camera for camera in all_samples(nuscenes_folder)[0].cameras}
    ahead = np.array([0.0, 20.0, 0.0, 1.0])  # y of the nuScenes lidar points forward
    x, y, z, _ = cameras["CAM_FRONT"].cam_from_cloud @ ahead
    assert z == pytest.approx(20, abs=2)
    assert abs(x) < 2 and abs(y) < 2
    assert (cameras["CAM_BACK"].cam_from_cloud @ ahead)[2] == pytest.approx(-20, abs=2)


def test_every_camera_sees_points_and_the_front_camera_alone_the_car_ahead(nuscenes_folder: Path) -> None:
    adapter = NuScenes(nuscenes_folder)
    for sample in all_samples(nuscenes_folder):
        cloud = adapter.read_cloud(sample)
        pairs = pair_points(cloud.xyz, sample.cameras, (90, 160), 1.0)
        assert (np.bincount(pairs.image, minlength=6) > 50).all()
        on_car = adapter.read_point_truth(sample, len(cloud.xyz))[pairs.point] == 3
        assert on_car.sum() == 60
        assert set(pairs.image[on_car].tolist()) == {0}


# Clouds


def test_a_cloud_holds_xyz_and_intensity_in_0_to_1(damaged_folder: Path, victim: Sample) -> None:
    points = np.array([[1, 2, 3, 0, 5], [-1.5, 0, 40, 255, 31], [0, 0, 0.25, 51, 0]], np.float32)
    points.tofile(damaged_folder / victim.cloud_path)
    cloud = NuScenes(damaged_folder).read_cloud(victim)
    np.testing.assert_array_equal(
        cloud.xyz, np.array([[1, 2, 3], [-1.5, 0, 40], [0, 0, 0.25]], np.float32), strict=True
    )
    np.testing.assert_allclose(cloud.intensity, [0, 1, 0.2], rtol=1e-6)
    assert cloud.intensity.dtype == np.float32


@pytest.mark.parametrize("size", [19, 21, 4 * 5 * 100 - 4, 16 * 7], ids="{} bytes".format)
def test_a_cloud_that_is_cut_short_names_file_and_size(
    damaged_folder: Path, victim: Sample, size: int, refused: Refused
) -> None:
    file = damaged_folder / victim.cloud_path
    file.write_bytes(file.read_bytes()[:size])
    with refused(SampleError, file, f"{size} bytes", "restore it"):
        NuScenes(damaged_folder).read_cloud(victim)


def test_an_empty_cloud_file_is_refused(damaged_folder: Path, victim: Sample, refused: Refused) -> None:
    file = damaged_folder / victim.cloud_path
    file.write_bytes(b"")
    with refused(SampleError, file, "0 bytes", "restore it"):
        NuScenes(damaged_folder).read_cloud(victim)


def test_a_missing_cloud_file_is_refused(damaged_folder: Path, victim: Sample, refused: Refused) -> None:
    (damaged_folder / victim.cloud_path).unlink()
    with refused(SourceError, damaged_folder / victim.cloud_path, "No such file", "restore the file"):
        NuScenes(damaged_folder).read_cloud(victim)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 2, 3])
def test_a_cloud_with_a_value_that_is_not_finite_names_the_point(
    damaged_folder: Path, victim: Sample, value: float, column: int, refused: Refused
) -> None:
    file = damaged_folder / victim.cloud_path
    points = np.fromfile(file, np.float32).reshape(-1, 5)
    points[17, column] = value
    points.tofile(file)
    with refused(SampleError, file, "point 17", str(value), "restore the file"):
        NuScenes(damaged_folder).read_cloud(victim)
    intact = next(sample for sample in all_samples(damaged_folder) if sample.token != victim.token)
    assert len(NuScenes(damaged_folder).read_cloud(intact).xyz) == 720


def clouds_in_other_shapes() -> dict[str, tuple[np.ndarray, str]]:
    rng = np.random.default_rng(0)
    angle, reach_m = rng.uniform(0, 2 * math.pi, 720), rng.uniform(3, 60, 720)
    xyz = np.stack([reach_m * np.cos(angle), reach_m * np.sin(angle), rng.uniform(-2, 3, 720)], axis=1)
    rest, ring = rng.integers(0, 256, (720, 1)), rng.integers(0, 32, (720, 1))
    whole = np.concatenate([xyz, rest, ring], axis=1)

    def changed(row: int, column: int, value: float) -> np.ndarray:
        points = whole.copy()
        points[row, column] = value
        return points

    return {
        "4 columns": (whole[:, :4], "it seems to hold 4 floats a point (x, y, z, intensity)"),
        "4 columns of 719 points": (whole[:719, :4], "it seems to hold 4 floats a point"),
        "3 columns": (whole[:, :3], "it seems to hold 3 floats a point"),
        "6 columns": (np.concatenate([whole, ring / 10], axis=1), "it seems to hold 6 floats a point"),
        "one point out of the world": (changed(5, 0, 3e38), "point 5 (x 3e+38"),
        "one point at 60 km": (changed(5, 1, 6e4), "is farther away than 200 m"),
        "a ring that no lidar has": (changed(7, 4, 32), "point 7"),
        "a ring that is no whole number": (changed(7, 4, 3.5), "has no ring from 0 to 31"),
        "an intensity below 0": (changed(7, 3, -1), "has no intensity from 0 to 255"),
        "cut short": (whole.ravel()[:-1], "the file is cut short"),
    }


@pytest.mark.parametrize("shape", clouds_in_other_shapes())
def test_a_cloud_in_another_shape_names_the_likely_cause(
    damaged_folder: Path, victim: Sample, shape: str, refused: Refused
) -> None:
    values, said = clouds_in_other_shapes()[shape]
    file = damaged_folder / victim.cloud_path
    values.astype("<f4").tofile(file)
    with refused(SampleError, file, said):
        NuScenes(damaged_folder).read_cloud(victim)


# Lidarseg


def test_lidarseg_goes_through_the_official_32_to_16_map(damaged_folder: Path, victim: Sample) -> None:
    assert victim.point_truth_path is not None
    np.arange(32, dtype=np.uint8).tofile(damaged_folder / victim.point_truth_path)
    truth = NuScenes(damaged_folder).read_point_truth(victim, 32)
    expected = [number - 1 if number else 255 for number in OFFICIAL_LIDARSEG_MAP]
    assert truth.tolist() == expected
    assert truth.dtype == np.uint8


def test_lidarseg_indices_are_those_of_category_json(damaged_folder: Path, victim: Sample) -> None:
    assert victim.point_truth_path is not None
    rows = [row | {"index": 31 - row["index"]} for row in table(damaged_folder, "category")]
    rewrite(damaged_folder, "category", rows)
    np.arange(32, dtype=np.uint8).tofile(damaged_folder / victim.point_truth_path)
    truth = NuScenes(damaged_folder).read_point_truth(victim, 32)
    assert truth.tolist() == [number - 1 if number else 255 for number in reversed(OFFICIAL_LIDARSEG_MAP)]


def test_lidarseg_labels_stay_with_their_points(nuscenes_folder: Path) -> None:
    sample = all_samples(nuscenes_folder)[0]
    adapter = NuScenes(nuscenes_folder)
    truth = adapter.read_point_truth(sample, 720)
    on_car = adapter.read_cloud(sample).xyz[truth == 3]
    assert len(on_car) == 60
    assert ((on_car > (-1, 8, -1.7)) & (on_car < (1, 12, -0.3))).all()


def test_a_lidarseg_index_that_no_category_has_is_ignored(damaged_folder: Path, victim: Sample) -> None:
    assert victim.point_truth_path is not None
    np.array([17, 32, 255], np.uint8).tofile(damaged_folder / victim.point_truth_path)
    assert NuScenes(damaged_folder).read_point_truth(victim, 3).tolist() == [3, 255, 255]


@pytest.mark.parametrize("index", [256, -1])
def test_a_category_index_that_does_not_fit_a_byte_is_refused(
    damaged_folder: Path, victim: Sample, index: int, refused: Refused
) -> None:
    rows = table(damaged_folder, "category")
    next(row for row in rows if row["name"] == "vehicle.car")["index"] = index
    file = rewrite(damaged_folder, "category", rows)
    with refused(DatasetError, file, "index", "extract it again"):
        NuScenes(damaged_folder).read_point_truth(victim, 720)


def test_without_lidarseg_all_points_are_ignored(tmp_path: Path, make_nuscenes: Make) -> None:
    folder = make_nuscenes(tmp_path, {"scene-0061": 1}, lidarseg=False)
    (sample,) = all_samples(folder)
    assert sample.point_truth_path is None
    assert sample.defect is None
    assert NuScenes(folder).read_point_truth(sample, 720).tolist() == [255] * 720


def test_a_lidarseg_file_that_is_not_there_leaves_only_its_sample_without_truth(
    damaged_folder: Path, victim: Sample
) -> None:
    assert victim.point_truth_path is not None
    (damaged_folder / victim.point_truth_path).unlink()
    found = all_samples(damaged_folder)
    assert [sample.token for sample in found if sample.point_truth_path is None] == [victim.token]
    assert all(sample.defect is None for sample in found)


@pytest.mark.parametrize("labels", [719, 721, 0])
def test_lidarseg_of_another_length_than_the_cloud_names_both(
    damaged_folder: Path, victim: Sample, labels: int, refused: Refused
) -> None:
    assert victim.point_truth_path is not None
    file = damaged_folder / victim.point_truth_path
    np.zeros(labels, np.uint8).tofile(file)
    with refused(SampleError, file, f"{labels} labels for 720 points", "restore the file"):
        NuScenes(damaged_folder).read_point_truth(victim, 720)


# Tables that cannot be read: the whole dataset is refused


READ_TABLES = ["scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor"]


@pytest.mark.parametrize("name", READ_TABLES)
def test_a_missing_table_is_named(damaged_folder: Path, name: str, refused: Refused) -> None:
    file = damaged_folder / VERSION / f"{name}.json"
    file.unlink()
    with refused(DatasetError, file, "missing", "copy it again"):
        NuScenes(damaged_folder).scenes("all", None)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("name", [*READ_TABLES, "lidarseg"])
def test_a_table_that_is_cut_short_is_named(damaged_folder: Path, name: str, kept: float, refused: Refused) -> None:
    file = damaged_folder / VERSION / f"{name}.json"
    raw = file.read_bytes()
    file.write_bytes(raw[: int(kept * len(raw))])
    with refused(DatasetError, file, "truncated", "extract it again"):
        NuScenes(damaged_folder).scenes("all", None)


def test_a_table_with_a_byte_that_is_no_text_is_named(damaged_folder: Path, refused: Refused) -> None:
    file = damaged_folder / VERSION / "sensor.json"
    file.write_bytes(file.read_bytes().replace(b"CAM_FRONT_LEFT", b"CAM_\xff_LEFT"))
    with refused(DatasetError, file, "extract it again"):
        NuScenes(damaged_folder).scenes("all", None)


def test_a_row_without_a_needed_field_names_table_row_and_field(damaged_folder: Path, refused: Refused) -> None:
    rows = table(damaged_folder, "calibrated_sensor")
    del rows[3]["rotation"]
    file = rewrite(damaged_folder, "calibrated_sensor", rows)
    with refused(DatasetError, file, "`rotation`", "$[3]"):
        NuScenes(damaged_folder).scenes("all", None)


def test_nan_in_a_table_is_no_json_and_names_the_table(damaged_folder: Path, victim: Sample, refused: Refused) -> None:
    pose = keyframe_reading(damaged_folder, victim.token, "CAM_BACK")["ego_pose_token"]
    file = change_row(damaged_folder, "ego_pose", pose, translation=[0.0, math.nan, 0.0])
    with refused(DatasetError, file, "invalid character", "extract it again"):
        NuScenes(damaged_folder).scenes("all", None)


def test_a_byte_order_mark_is_no_damage(damaged_folder: Path) -> None:
    whole = [sample.token for sample in all_samples(damaged_folder)]
    for file in (damaged_folder / VERSION).glob("*.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    found = all_samples(damaged_folder)
    assert [sample.token for sample in found] == whole and not any(sample.defect for sample in found)
    assert 3 in NuScenes(damaged_folder).read_point_truth(found[0], 720)


# Folders that are laid out differently


def test_a_folder_that_is_too_deep_or_too_shallow_is_recognised(nuscenes_folder: Path, refused: Refused) -> None:
    for inside in (VERSION, "samples", "lidarseg"):
        with refused(DatasetError, nuscenes_folder / inside, f"--data {nuscenes_folder}"):
            NuScenes(nuscenes_folder / inside).scenes("all", None)
    with refused(DatasetError, nuscenes_folder.parent, "one folder deeper", f"--data {nuscenes_folder}"):
        NuScenes(nuscenes_folder.parent).scenes("all", None)


@pytest.mark.parametrize("outer", [VERSION, "v1.0-mini_meta"])
def test_tables_in_a_folder_of_their_archive_are_recognised(damaged_folder: Path, outer: str, refused: Refused) -> None:
    (damaged_folder / VERSION).rename(damaged_folder / "tables")
    (damaged_folder / outer).mkdir()
    (damaged_folder / "tables").rename(damaged_folder / outer / VERSION)
    with refused(DatasetError, damaged_folder / outer / VERSION, f"move this folder to {damaged_folder}"):
        NuScenes(damaged_folder).scenes("all", None)


# Rows that cannot be used: only the samples that need them are defective


@pytest.mark.parametrize("channel", ["LIDAR_TOP", "CAM_BACK"])
def test_a_reading_whose_ego_pose_is_absent_is_a_defect(damaged_folder: Path, victim: Sample, channel: str) -> None:
    change_reading(damaged_folder, victim.token, channel, ego_pose_token="nobody")
    assert_only_defect(
        damaged_folder, victim, damaged_folder / VERSION / "ego_pose.json", "'nobody'", "extract them again"
    )


@pytest.mark.parametrize("channel", ["LIDAR_TOP", "CAM_BACK"])
def test_a_reading_whose_calibrated_sensor_is_absent_is_a_defect(
    damaged_folder: Path, victim: Sample, channel: str
) -> None:
    change_reading(damaged_folder, victim.token, channel, calibrated_sensor_token="nobody")
    assert_only_defect(
        damaged_folder,
        victim,
        damaged_folder / VERSION / "calibrated_sensor.json",
        "'nobody'",
        "extract them again",
    )


def give_own_calibration(folder: Path, sample: Sample, channel: str, **changes: object) -> Path:
    """Give one reading a calibration of its own, so that changing it touches no other sample."""
    rows = table(folder, "calibrated_sensor")
    token = keyframe_reading(folder, sample.token, channel)["calibrated_sensor_token"]
    (shared,) = (row for row in rows if row["token"] == token)
    change_reading(folder, sample.token, channel, calibrated_sensor_token="own-calibration")
    return rewrite(folder, "calibrated_sensor", [*rows, shared | {"token": "own-calibration"} | changes])


def test_a_calibration_whose_sensor_is_absent_is_a_defect(damaged_folder: Path, victim: Sample) -> None:
    give_own_calibration(damaged_folder, victim, "CAM_FRONT", sensor_token="nobody")
    assert_only_defect(
        damaged_folder, victim, damaged_folder / VERSION / "sensor.json", "'nobody'", "extract them again"
    )


@pytest.mark.parametrize("channel", ["LIDAR_TOP", "CAM_FRONT", "CAM_FRONT_LEFT"])
def test_a_sample_without_one_of_its_channels_is_a_defect(damaged_folder: Path, victim: Sample, channel: str) -> None:
    token = keyframe_reading(damaged_folder, victim.token, channel)["token"]
    rows = [row for row in table(damaged_folder, "sample_data") if row["token"] != token]
    file = rewrite(damaged_folder, "sample_data", rows)
    assert_only_defect(damaged_folder, victim, file, victim.token, channel, "extract the tables again")


def test_a_picture_without_a_size_is_a_defect(damaged_folder: Path, victim: Sample) -> None:
    file = change_reading(damaged_folder, victim.token, "CAM_BACK", width=0)
    assert_only_defect(
        damaged_folder, victim, file, victim.cameras[3].image_path, "0x90 pixels", "extract the tables again"
    )


@pytest.mark.parametrize(
    "matrix, quoted",
    [
        ([[0.0, 0.0, 80.0], [0.0, 125.0, 45.0], [0.0, 0.0, 1.0]], "[0.0, 0.0, 80.0]"),
        ([[125.0, 0.0, 80.0], [0.0, 0.0, 45.0], [0.0, 0.0, 1.0]], "[0.0, 0.0, 45.0]"),
        ([[125.0, 0.0, 80.0], [0.0, 125.0, 45.0], [0.0, 0.0, 0.0]], "[0.0, 0.0, 0.0]"),
        ([[125.0, 0.0], [0.0, 125.0]], "[[125.0, 0.0], [0.0, 125.0]]"),
        ([], "[]"),
    ],
    ids=["fx is 0", "fy is 0", "last row is 0", "2x2", "empty"],
)
def test_intrinsics_that_are_no_camera_are_a_defect(
    damaged_folder: Path, victim: Sample, matrix: list[list[float]], quoted: str
) -> None:
    file = give_own_calibration(damaged_folder, victim, "CAM_BACK_LEFT", camera_intrinsic=matrix)
    assert_only_defect(damaged_folder, victim, file, "own-calibration", quoted, "extract the table again")


@pytest.mark.parametrize(
    "rotation, quoted",
    [
        ([1.0, 1.0, 0.0, 0.0], "[1.0, 1.0, 0.0, 0.0]"),
        ([0.0, 0.0, 0.0, 0.0], "[0.0, 0.0, 0.0, 0.0]"),
        ([0.998, 0.0, 0.0, 0.0], "[0.998, 0.0, 0.0, 0.0]"),
        ([1.0, 0.0, 0.0], "[1.0, 0.0, 0.0]"),
    ],
    ids=["long", "zero", "short", "three numbers"],
)
@pytest.mark.parametrize("channel", ["LIDAR_TOP", "CAM_FRONT_RIGHT"])
def test_a_rotation_that_is_no_unit_quaternion_is_a_defect(
    damaged_folder: Path, victim: Sample, channel: str, rotation: list[float], quoted: str
) -> None:
    pose = keyframe_reading(damaged_folder, victim.token, channel)["ego_pose_token"]
    file = change_row(damaged_folder, "ego_pose", pose, rotation=rotation)
    assert_only_defect(damaged_folder, victim, file, pose, quoted, "extract the table again")


def test_a_bad_calibration_spoils_every_sample_that_uses_it_and_no_other(damaged_folder: Path, victim: Sample) -> None:
    shared = keyframe_reading(damaged_folder, victim.token, "CAM_BACK")["calibrated_sensor_token"]
    change_row(damaged_folder, "calibrated_sensor", shared, rotation=[2.0, 0.0, 0.0, 0.0])
    scenes = NuScenes(damaged_folder).scenes("all", None)
    assert {scene.name: [sample.defect is None for sample in scene.samples] for scene in scenes} == {
        "scene-0061": [False, False, False],
        "scene-0103": [True, True],
    }


def test_a_bad_pose_of_a_sweep_touches_no_sample(damaged_folder: Path) -> None:
    sweep = next(row for row in table(damaged_folder, "sample_data") if not row["is_key_frame"])
    change_row(damaged_folder, "ego_pose", sweep["ego_pose_token"], rotation=[0.0, 0.0, 0.0, 0.0])
    assert all(sample.defect is None for sample in all_samples(damaged_folder))


def test_a_dataset_of_defects_only_is_refused_with_the_first(damaged_folder: Path, refused: Refused) -> None:
    rows = [row | {"ego_pose_token": "nobody"} for row in table(damaged_folder, "sample_data")]
    rewrite(damaged_folder, "sample_data", rows)
    with refused(DatasetError, damaged_folder / VERSION, "none of the 5 samples", "'nobody'"):
        NuScenes(damaged_folder).scenes("all", None)


# One real keyframe


@needs_real_keyframe
def test_the_real_keyframe_is_one_sample_of_scene_0061() -> None:
    (scene,) = NuScenes(REAL).scenes("mini_train", None)
    (sample,) = scene.samples
    assert (scene.name, sample.token) == ("scene-0061", "ca9a282c9e77460f8360f564131a8af5")
    assert sample.defect is None
    assert [camera.channel for camera in sample.cameras] == CAMERAS
    assert {(camera.width_px, camera.height_px) for camera in sample.cameras} == {(1600, 900)}
    assert_chain_holds(REAL, [sample])


@needs_real_keyframe
def test_the_real_keyframe_has_34688_points_of_which_984_are_labelled() -> None:
    adapter = NuScenes(REAL)
    ((sample,),) = (scene.samples for scene in adapter.scenes("all", "v1.0-mini"))
    cloud = adapter.read_cloud(sample)
    assert cloud.xyz.shape == (34_688, 3)
    assert cloud.intensity.shape == (34_688,)
    assert 0 <= cloud.intensity.min() < cloud.intensity.max() <= 1
    assert sample.point_truth_path is not None
    raw = np.fromfile(REAL / sample.point_truth_path, np.uint8)
    assert (raw > 0).sum() == 984
    truth = adapter.read_point_truth(sample, 34_688)
    expected = np.array([number - 1 if number else 255 for number in OFFICIAL_LIDARSEG_MAP])[raw]
    np.testing.assert_array_equal(truth, expected)
