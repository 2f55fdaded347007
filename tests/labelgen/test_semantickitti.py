"""The SemanticKITTI adapter: splits, projection, poses, classes, two real scans, and every damage to a data set."""

import runpy
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cache_schemas.errors import ConfigError
from cache_schemas.taxonomy import load_taxonomy
from labelgen.completeness import missing_files
from labelgen.datasets import find_dataset
from labelgen.datasets.semantickitti.adapter import SemanticKitti, split_sequences
from labelgen.errors import DatasetError, SampleError
from labelgen.file_warnings import FilesByText, collecting
from labelgen.geometry import pair_points, project
from labelgen.pictures import read_image
from labelgen.prompts import load_prompts
from labelgen.samples import Sample, file_sizes
from pipelines.config import load_config
from pipelines.resolve import read_scenes
from trainer.settings import load_settings

Refused = Callable[..., AbstractContextManager[None]]

MAKER = runpy.run_path(str(Path(__file__).with_name("make_semantickitti.py")))
REAL = Path(__file__).parents[2] / "../shared/data/semantickitti"
needs_real_scans = pytest.mark.skipif(
    not REAL.is_dir(), reason="the real KITTI scans (non-commercial licence) are not beside the repository"
)
POINTS = len(MAKER["RAW_IDS"]) + 7

OFFICIAL_NUMBERS = {
    **dict.fromkeys((0, 1, 52, 99), 0),
    **{10: 1, 252: 1, 11: 2, 15: 3, 18: 4, 258: 4, 30: 6, 254: 6, 31: 7, 253: 7, 32: 8, 255: 8, 40: 9, 60: 9},
    **dict.fromkeys((13, 16, 20, 256, 257, 259), 5),
    **{44: 10, 48: 11, 49: 12, 50: 13, 51: 14, 70: 15, 71: 16, 72: 17, 80: 18, 81: 19},
}
"""What raw ids become in the official numbering, where 0 is "unlabeled"."""

OFFICIAL_NAMES = [
    *("car", "bicycle", "motorcycle", "truck", "other-vehicle", "person", "bicyclist", "motorcyclist", "road"),
    *("parking", "sidewalk", "other-ground", "building", "fence", "vegetation", "trunk", "terrain", "pole"),
    "traffic-sign",
]


@pytest.fixture(scope="session")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fake data set to be read only: sequences 00 and 08 with labels, 11 without, three frames each."""
    folder: Path = MAKER["make_semantickitti"](tmp_path_factory.mktemp("semantickitti"))
    return folder


@pytest.fixture
def damaged(kitti: Path, tmp_path: Path) -> Path:
    """A copy of the fake data set that is this test's own to damage."""
    return Path(shutil.copytree(kitti, tmp_path / "dataset"))


def samples_of(folder: Path, split: str = "train") -> list[Sample]:
    return [sample for scene in SemanticKitti(folder).scenes(split, None) for sample in scene.samples]


def sequence(folder: Path, name: str = "00") -> Path:
    return folder / "sequences" / name


# The declaration, splits and samples


def test_the_adapter_its_prompts_and_its_settings_are_found_by_name() -> None:
    assert find_dataset("semantickitti").adapter is SemanticKitti
    taxonomy = load_taxonomy("semantickitti19")
    assert list(taxonomy.names) == OFFICIAL_NAMES
    for prompts in ("semantickitti-paper", "semantickitti-improved"):
        assert tuple(load_prompts(prompts, taxonomy).class_names) == taxonomy.names
    config = load_config("semantickitti")
    assert config.images.height % 16 == config.images.width % 16 == 0
    assert config.images.width / config.images.height == pytest.approx(1241 / 376, rel=0.01)
    assert load_settings("semantickitti").stream.images == 1


def test_colours_are_rgb_although_the_official_file_has_bgr() -> None:
    colours = dict(zip(OFFICIAL_NAMES, load_taxonomy("semantickitti19").colours, strict=True))
    assert colours["traffic-sign"] == (255, 0, 0)
    assert colours["car"] == (100, 150, 245)


def test_splits_are_the_official_sequences() -> None:
    splits = {name: set(sequences) for name, sequences in split_sequences().items()}
    assert splits["valid"] == {"08"}
    assert splits["train"] == {f"{number:02d}" for number in range(11)} - {"08"}
    assert splits["test"] == {f"{number:02d}" for number in range(11, 22)}


def test_scenes_are_the_sequences_of_the_split_that_are_there(kitti: Path) -> None:
    names = {s: [c.name for c in SemanticKitti(kitti).scenes(s, None)] for s in ("all", "train", "valid", "test")}
    assert names == {"all": ["00", "08", "11"], "train": ["00"], "valid": ["08"], "test": ["11"]}


def test_samples_are_frames_in_order_and_tokens_name_sequence_and_frame(kitti: Path) -> None:
    samples = samples_of(kitti, "all")
    assert [sample.token for sample in samples] == [f"{s}-{f:06d}" for s in ("00", "08", "11") for f in range(3)]
    assert samples[4].cloud_path == "sequences/08/velodyne/000001.bin"
    assert samples[4].point_truth_path == "sequences/08/labels/000001.label"
    assert [camera.image_path for camera in samples[4].cameras] == [
        "sequences/08/image_2/000001.png",
        "sequences/08/image_3/000001.png",
    ]
    assert all((kitti / path).is_file() for sample in samples for path in sample.input_paths + sample.truth_paths)


def test_picture_sizes_are_those_of_each_picture(damaged: Path) -> None:
    Image.new("RGB", (299, 90)).save(sequence(damaged) / "image_2" / "000001.png")
    sizes = [(s.cameras[0].width_px, s.cameras[0].height_px) for s in samples_of(damaged, "all")]
    assert sizes == [(310, 94), (299, 90), (310, 94), *[(306, 92)] * 3, *[(310, 94)] * 3]


def test_the_setting_chooses_the_camera_and_by_default_it_is_the_left_one(kitti: Path) -> None:
    chosen = {
        setting: [camera.channel for camera in _first_sample(kitti, *overrides).cameras]
        for setting, overrides in {
            "default": [],
            "right": ["cameras=[image_3]"],
            "both": ["cameras=[image_2, image_3]"],
            "all": ["cameras=null"],
        }.items()
    }
    both = ["image_2", "image_3"]
    assert chosen == {"default": ["image_2"], "right": ["image_3"], "both": both, "all": both}


def _first_sample(folder: Path, *overrides: str) -> Sample:
    return read_scenes(load_config("semantickitti", overrides=overrides), SemanticKitti(folder))[0].samples[0]


def test_an_unknown_camera_lists_the_known_ones(kitti: Path, refused: Refused) -> None:
    with refused(ConfigError, "'image_0'", "image_2, image_3"):
        _first_sample(kitti, "cameras=[image_0]")


# Projection and poses, against the equations of the KITTI development kit in float64


def official_pixels(name: str, camera: str, xyz: np.ndarray) -> np.ndarray:
    """Return (u z, v z, z) (3, P) = P [Tr; 0 0 0 1] X of points (P, 3)."""
    tr = np.vstack([np.reshape(MAKER["TR"], (3, 4)), (0, 0, 0, 1)])
    homogeneous = np.vstack([xyz.T.astype(np.float64), np.ones(len(xyz))])
    return MAKER["projection"](name, camera) @ tr @ homogeneous


@pytest.mark.parametrize("camera, name", [("image_2", "P2"), ("image_3", "P3")])
def test_projection_is_that_of_kitti_to_a_millionth_of_a_pixel(kitti: Path, camera: str, name: str) -> None:
    adapter = SemanticKitti(kitti)
    for sample in samples_of(kitti, "all"):
        (found,) = (c for c in sample.cameras if c.channel == camera)
        xyz = adapter.read_cloud(sample).xyz
        uv, depth = project(xyz, found.cam_from_cloud, found.intrinsics)
        expected = official_pixels(sample.scene, name, xyz)
        np.testing.assert_allclose(depth, expected[2], atol=1e-9)
        np.testing.assert_allclose(uv, (expected[:2] / expected[2]).T, atol=1e-6, rtol=0)


def test_points_made_for_pixels_are_paired_with_them_and_others_with_none(kitti: Path) -> None:
    adapter = SemanticKitti(kitti)
    for number, sample in enumerate(samples_of(kitti, "all")):
        camera = sample.cameras[0]
        pixels, _ = MAKER["seen_points"](sample.scene, number % 3)
        pairs = pair_points(adapter.read_cloud(sample).xyz, [camera], (camera.height_px, camera.width_px), 1.0)
        assert pairs.point.tolist() == list(range(len(pixels)))
        np.testing.assert_array_equal(np.stack([pairs.col, pairs.row], axis=1), pixels)
        colours = read_image(adapter, camera)[pairs.row, pairs.col]
        np.testing.assert_array_equal(colours, [MAKER["disc_colour"](i) for i in range(len(pixels))])


def test_world_from_cloud_is_the_pose_carried_into_the_frame_of_the_lidar(kitti: Path) -> None:
    tr = np.vstack([np.reshape(MAKER["TR"], (3, 4)), (0, 0, 0, 1)])
    point = np.array([4.0, -2.0, 0.5, 1.0])
    for frame, sample in enumerate(samples_of(kitti)):
        pose = np.vstack([MAKER["pose"](frame), (0, 0, 0, 1)])
        in_camera0_of_frame_0 = pose @ (tr @ point)
        np.testing.assert_allclose(tr @ (sample.world_from_cloud @ point), in_camera0_of_frame_0, atol=1e-5)
    assert samples_of(kitti)[2].world_from_cloud[0, 3] == pytest.approx(3.0, abs=0.1)  # x is ahead


def test_poses_of_kitti_are_used_where_semantickittis_are_not_there(damaged: Path) -> None:
    before = [sample.world_from_cloud for sample in samples_of(damaged)]
    (damaged / "poses").mkdir()
    (sequence(damaged) / "poses.txt").rename(damaged / "poses" / "00.txt")
    np.testing.assert_array_equal([sample.world_from_cloud for sample in samples_of(damaged)], before)


def test_without_poses_there_is_no_world(damaged: Path) -> None:
    (sequence(damaged) / "poses.txt").unlink()
    assert all(sample.world_from_cloud is None for sample in samples_of(damaged))


# Clouds and truth


def test_remission_is_the_intensity_unchanged(kitti: Path) -> None:
    cloud = SemanticKitti(kitti).read_cloud(samples_of(kitti)[0])
    np.testing.assert_allclose(cloud.intensity, np.linspace(0, 0.99, POINTS), rtol=1e-6)
    assert cloud.xyz.shape == (POINTS, 3) and cloud.colour is None


def test_every_raw_id_goes_through_the_official_map_below_its_instance(kitti: Path) -> None:
    truth = SemanticKitti(kitti).read_point_truth(samples_of(kitti)[0], POINTS)
    expected = [(OFFICIAL_NUMBERS[raw] or 256) - 1 for raw in MAKER["RAW_IDS"]]
    assert truth[:-7].tolist() == expected
    assert truth[MAKER["RAW_IDS"].index(255)] == OFFICIAL_NAMES.index("motorcyclist")
    assert set(truth[-7:].tolist()) == {OFFICIAL_NAMES.index("road")}


def test_a_test_sequence_has_no_truth(kitti: Path) -> None:
    sample = samples_of(kitti, "test")[0]
    assert sample.point_truth_path is None and sample.truth_paths == ()
    assert SemanticKitti(kitti).read_point_truth(sample, POINTS).tolist() == [255] * POINTS


def test_an_unknown_raw_id_becomes_255_with_a_warning(damaged: Path) -> None:
    warnings: FilesByText = {}
    sample = samples_of(damaged)[1]
    file = damaged / str(sample.point_truth_path)
    np.array([40, 200, 260, 7 << 16 | 70], "<u4").tofile(file)
    with collecting(warnings):
        truth = SemanticKitti(damaged).read_point_truth(sample, 4)
    assert truth.tolist() == [8, 255, 255, 14]
    assert warnings == {"unknown raw ids 200, 260; their points get no class": {str(file)}}


# Damage to one sample


@pytest.mark.parametrize("size", [0, 17, 16 * 5 - 4], ids="{} bytes".format)
def test_a_scan_of_no_whole_points_is_refused(damaged: Path, size: int, refused: Refused) -> None:
    sample = samples_of(damaged)[1]
    file = damaged / str(sample.cloud_path)
    file.write_bytes(file.read_bytes()[:size])
    with refused(SampleError, file, f"{size} bytes", "data_odometry_velodyne.zip"):
        SemanticKitti(damaged).read_cloud(sample)


@pytest.mark.parametrize(
    "column, value", [(0, np.nan), (2, np.inf), (1, -3e38), (0, 250), (3, np.nan), (3, 37), (3, -0.5)]
)
def test_a_point_that_no_lidar_measures_is_named(damaged: Path, column: int, value: float, refused: Refused) -> None:
    sample = samples_of(damaged)[1]
    file = damaged / str(sample.cloud_path)
    points = np.fromfile(file, "<f4").reshape(-1, 4)
    points[17, column] = value
    points.tofile(file)
    with refused(SampleError, file, "point 17", f"{value:g}", "restore the file"):
        SemanticKitti(damaged).read_cloud(sample)


@pytest.mark.parametrize("labels", [POINTS - 1, POINTS + 1, 0])
def test_labels_of_another_length_than_the_scan_are_refused(damaged: Path, labels: int, refused: Refused) -> None:
    sample = samples_of(damaged)[1]
    file = damaged / str(sample.point_truth_path)
    np.full(labels, 40, "<u4").tofile(file)
    with refused(SampleError, file, f"{4 * labels} bytes", f"{POINTS} points", "data_odometry_labels.zip"):
        SemanticKitti(damaged).read_point_truth(sample, POINTS)


@pytest.mark.parametrize("kind", ["image_2", "velodyne", "labels"])
def test_a_missing_file_is_found_by_the_plan_and_belongs_to_one_sample(damaged: Path, kind: str) -> None:
    (file,) = sequence(damaged).glob(f"{kind}/000001.*")
    file.unlink()
    scenes = read_scenes(load_config("semantickitti"), SemanticKitti(damaged))
    lacking = {
        sample.token: missing_files(sample, ("images", "points", "truth"), lambda paths: file_sizes(damaged, paths))
        for scene in scenes
        for sample in scene.samples
    }
    assert {token: list(files) for token, files in lacking.items() if files} == {
        "00-000001": [f"sequences/00/{kind}/{file.name}"]
    }
    assert "data_odometry_" in SemanticKitti(damaged).remedy_for_missing([f"sequences/00/{kind}"])


def test_a_picture_without_a_header_is_refused_when_it_is_read(damaged: Path, refused: Refused) -> None:
    file = sequence(damaged) / "image_2" / "000000.png"
    file.write_bytes(b"")
    camera = samples_of(damaged)[0].cameras[0]
    assert (camera.width_px, camera.height_px) == (310, 94)
    with refused(SampleError, file, "not a whole picture"):
        read_image(SemanticKitti(damaged), camera)


# Damage to a sequence


def edit(file: Path, change: Callable[[list[str]], Any]) -> Path:
    lines = file.read_text().splitlines()
    file.write_text("\n".join(change(lines)) + "\n")
    return file


CALIB_DAMAGES: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "no Tr": (lambda lines: lines[:4], "no line 'Tr'"),
    "11 numbers": (lambda lines: [*lines[:4], lines[4].rsplit(" ", 1)[0]], "'Tr' has 11 finite numbers, not 12"),
    "a number that is not finite": (lambda lines: [*lines[:4], lines[4].rsplit(" ", 1)[0] + " nan"], "not 12"),
    "a word": (lambda lines: [*lines[:2], "P2: hello", *lines[3:]], "'P2' has 0 finite numbers"),
    "no focal length": (lambda lines: [*lines[:2], "P2: " + "0 " * 12, *lines[3:]], "camera_intrinsic"),
    "no rotation": (lambda lines: [*lines[:4], "Tr: 2 0 0 0 0 1 0 0 0 0 1 0"], "not a rotation"),
    "mirrored": (lambda lines: [*lines[:4], "Tr: -1 0 0 0 0 1 0 0 0 0 1 0"], "not a rotation"),
}


@pytest.mark.parametrize("damage", CALIB_DAMAGES)
def test_a_broken_calibration_is_refused(damaged: Path, damage: str, refused: Refused) -> None:
    change, said = CALIB_DAMAGES[damage]
    file = edit(sequence(damaged) / "calib.txt", change)
    with refused(DatasetError, file, said, "data_odometry_calib.zip"):
        SemanticKitti(damaged).scenes("train", None)


@pytest.mark.parametrize("name", ["calib.txt", "times.txt"])
def test_a_missing_text_file_is_refused(damaged: Path, name: str, refused: Refused) -> None:
    (sequence(damaged) / name).unlink()
    with refused(DatasetError, sequence(damaged) / name, "no such file", "data_odometry_calib.zip"):
        SemanticKitti(damaged).scenes("train", None)


def test_fewer_times_than_frames_are_refused(damaged: Path, refused: Refused) -> None:
    file = edit(sequence(damaged) / "times.txt", lambda lines: lines[:2])
    with refused(DatasetError, file, "2 times", "3 files up to frame 000002"):
        SemanticKitti(damaged).scenes("train", None)


def test_more_times_than_frames_are_samples_that_lack_files(damaged: Path) -> None:
    edit(sequence(damaged) / "times.txt", lambda lines: [*lines, "9.0"])
    edit(sequence(damaged) / "poses.txt", lambda lines: [*lines, lines[-1]])
    last = samples_of(damaged)[-1]
    assert last.token == "00-000003"
    assert set(file_sizes(damaged, last.input_paths + last.truth_paths).values()) == {None}


@pytest.mark.parametrize("line", ["later", "0.05", "1 2", "inf"])
def test_a_time_that_is_no_later_number_is_refused(damaged: Path, line: str, refused: Refused) -> None:
    file = edit(sequence(damaged) / "times.txt", lambda lines: [*lines[:2], line])
    with refused(DatasetError, file, "line 3", repr(line)):
        SemanticKitti(damaged).scenes("train", None)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda lines: lines[:2], "2 poses, but times.txt has 3"),
        (lambda lines: [*lines[:2], "1 2 3"], "line 3 has 3 finite numbers"),
        (lambda lines: [*lines[:2], "0 " * 12], "pose 2 is not a rotation"),
    ],
)
def test_broken_poses_are_refused(damaged: Path, change: Any, said: str, refused: Refused) -> None:
    file = edit(sequence(damaged) / "poses.txt", change)
    with refused(DatasetError, file, said):
        SemanticKitti(damaged).scenes("train", None)


def test_remapped_labels_are_refused(damaged: Path, refused: Refused) -> None:
    for file in (sequence(damaged) / "labels").iterdir():
        raw = np.fromfile(file, "<u4")
        numbers = np.array([OFFICIAL_NUMBERS[value] for value in (raw & 0xFFFF).tolist()], np.uint32)
        (numbers | raw & 0xFFFF0000).astype("<u4").tofile(file)
    with refused(DatasetError, sequence(damaged) / "labels", "below 20", "remap_semantic_labels.py", "in place"):
        SemanticKitti(damaged).scenes("train", None)


def test_one_scan_with_low_ids_alone_is_no_remapped_sequence(damaged: Path) -> None:
    np.full(POINTS, 10, "<u4").tofile(sequence(damaged) / "labels" / "000000.label")
    assert len(samples_of(damaged)) == 3


# Folders


def test_a_folder_that_is_too_deep_or_too_shallow_is_recognised(damaged: Path, refused: Refused) -> None:
    for given in (damaged.parent, sequence(damaged), damaged / "sequences"):
        with refused(DatasetError, given, f"--data {damaged}"):
            SemanticKitti(given).scenes("all", None)
    with refused(DatasetError, "nowhere", "no such folder"):
        SemanticKitti(damaged / "nowhere")


def test_unknown_and_empty_splits_are_refused(damaged: Path, refused: Refused) -> None:
    with refused(DatasetError, "'val'", "all, train, valid, test"):
        SemanticKitti(damaged).scenes("val", None)
    shutil.rmtree(sequence(damaged, "08"))
    with refused(DatasetError, "'valid'", "08", "it holds 00, 11"):
        SemanticKitti(damaged).scenes("valid", None)


# Two real scans


@needs_real_scans
@pytest.mark.parametrize(
    "split, points, size, inside, paired",
    [
        ("train", 124_668, (1241, 376), 19_341, 19_298),
        ("test", 122_320, (1242, 375), 16_829, 16_785),
    ],
)
def test_the_real_scans_have_the_stated_numbers_of_pairs(
    split: str, points: int, size: tuple[int, int], inside: int, paired: int
) -> None:
    adapter = SemanticKitti(REAL)
    (sample,) = samples_of(REAL, split)
    camera, xyz = sample.cameras[0], adapter.read_cloud(sample).xyz
    assert (len(xyz), camera.width_px, camera.height_px) == (points, *size)
    uv, depth = project(xyz, camera.cam_from_cloud, camera.intrinsics)
    pixel = np.rint(uv)
    assert ((depth > 0) & (pixel >= 0).all(axis=1) & (pixel < size).all(axis=1)).sum() == inside
    assert len(pair_points(xyz, [camera], size[::-1], 1.0).point) == paired


@needs_real_scans
def test_points_of_the_real_labelled_scan_lie_on_discs_of_their_class() -> None:
    """The picture of this scan is made: a disc in the colour of its class around each visible labelled point."""
    adapter = SemanticKitti(REAL)
    (sample,) = samples_of(REAL, "train")
    camera, xyz = sample.cameras[0], adapter.read_cloud(sample).xyz
    truth = adapter.read_point_truth(sample, len(xyz))
    assert (truth == OFFICIAL_NAMES.index("motorcyclist")).sum() == 88  # raw id 255
    uv, depth = project(xyz, camera.cam_from_cloud, camera.intrinsics)
    pixel = np.rint(uv)
    inside = (depth > 0) & (pixel >= 0).all(axis=1) & (pixel < (1241, 376)).all(axis=1)
    col, row = pixel[inside].astype(int).T
    drawn = read_image(adapter, camera)[row, col]
    colours = np.array([*load_taxonomy("semantickitti19").colours, *[(0, 0, 0)] * (256 - 19)])[truth[inside]]
    labelled = truth[inside] != 255
    assert (drawn == colours).all(axis=1)[labelled].mean() > 0.97
