"""Data sets of one's own: the list, cloud formats, truth, errors that name the line, the schema, `labelgen check`."""

import copy
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from labelgen.datasets import find_dataset
from labelgen.datasets.files.adapter import Files, sample_of
from labelgen.datasets.files.lines import SampleEntry, json_schema, rigid_error
from labelgen.errors import DatasetError, SampleError
from labelgen.geometry import pair_points
from labelgen.samples import Sample
from labelgen.stages.points import raw_inputs
from pipelines.config import load_config
from pipelines.resolve import resolve
from tests.labelgen.make_files import FRONT_FROM_CLOUD, Change, Line, deleted, make_files, put, write_list

ROOT = Path(__file__).parents[2]
KITTI = ROOT / "../shared/data/semantickitti/sequences/11"

Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def lines(tmp_path: Path) -> list[Line]:
    """The lines of a data set in `tmp_path`, which the test may change."""
    return make_files(tmp_path)


def all_samples(folder: Path, split: str = "all") -> list[Sample]:
    return [sample for scene in Files(folder).scenes(split, None) for sample in scene.samples]


# The list


def test_the_data_set_is_found_by_its_name() -> None:
    assert find_dataset("files").adapter is Files


def test_scenes_are_in_name_order_and_samples_in_the_order_of_lines(tmp_path: Path, lines: list[Line]) -> None:
    scenes = Files(tmp_path).scenes("all", None)
    found = {scene.name: [sample.token for sample in scene.samples] for scene in scenes}
    assert found == {"scene-0": ["sample-0", "sample-2"], "scene-1": ["sample-1", "sample-3"]}
    assert [sample.token for sample in all_samples(tmp_path, "val")] == ["sample-1", "sample-3"]


def test_a_list_may_have_any_name_and_a_header_that_names_the_other_files(tmp_path: Path, lines: list[Line]) -> None:
    (tmp_path / "taxonomy.json").rename(tmp_path / "mine.json")
    (tmp_path / "prompts.yaml").rename(tmp_path / "words.yaml")
    night = write_list(tmp_path, [{"taxonomy": "mine.json", "prompts": "words.yaml"}, *lines[:1]], "night.jsonl")
    adapter = Files(night)
    assert adapter.data == tmp_path
    assert [sample.token for scene in adapter.scenes("all", None) for sample in scene.samples] == ["sample-0"]
    assert adapter.taxonomy().names == ("road", "wall", "car")
    assert adapter.prompts() == str(tmp_path / "words.yaml")


def test_a_byte_order_mark_and_blank_lines_are_passed_over(tmp_path: Path, lines: list[Line]) -> None:
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "samples.jsonl").write_bytes(b"\xef\xbb\xbf\n" + text.replace("\n", "\r\n\r\n").encode() + b"\n\n")
    assert len(all_samples(tmp_path)) == 4


def test_a_sample_has_what_its_line_says(tmp_path: Path, lines: list[Line]) -> None:
    lines[0]["images"][0] |= {
        "distortion": {"model": "fisheye", "coefficients": [0.1, 0.02, 0, 0]},
        "depth": {"path": "depth.png", "metres_per_unit": 0.002},
        "segments": "segments.png",
    }
    write_list(tmp_path, lines)
    sample = all_samples(tmp_path)[0]
    front, left = sample.cameras
    assert (sample.token, sample.scene, sample.cloud_path) == ("sample-0", "scene-0", "clouds/0.bin")
    assert (front.channel, front.image_path, front.width_px, front.height_px) == (
        "front",
        "pictures/0-front.png",
        112,
        64,
    )
    assert front.cam_from_cloud.tolist() == FRONT_FROM_CLOUD
    assert front.distortion is not None and front.distortion.coefficients == (0.1, 0.02, 0, 0)
    assert front.depth is not None and front.depth.metres_per_unit == 0.002
    assert front.depth.intrinsics.tolist() == front.intrinsics.tolist()
    assert (left.distortion, left.depth, left.segments_path) == (None, None, None)
    assert "segments.png" in sample.truth_paths and "depth.png" in sample.input_paths


def test_poses_of_cloud_and_camera_in_the_world_make_cam_from_cloud(tmp_path: Path, lines: list[Line]) -> None:
    turn = np.array([[0.0, -1, 0, 5], [1, 0, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1]])
    image = lines[0]["images"][0]
    del image["cam_from_cloud"]
    image["world_from_cam"] = (turn @ np.linalg.inv(FRONT_FROM_CLOUD)).tolist()
    lines[0]["world_from_cloud"] = turn.tolist()
    write_list(tmp_path, lines)
    np.testing.assert_allclose(all_samples(tmp_path)[0].cameras[0].cam_from_cloud, FRONT_FROM_CLOUD, atol=1e-12)


def test_pictures_alone_need_no_calibration(tmp_path: Path, lines: list[Line]) -> None:
    del lines[0]["cloud"], lines[0]["point_truth"]
    for image in lines[0]["images"]:
        del image["intrinsics"], image["cam_from_cloud"]
    write_list(tmp_path, lines)
    sample = all_samples(tmp_path)[0]
    assert sample.cloud_path is None
    assert sample.input_paths == ("pictures/0-front.png", "pictures/0-left.png")
    assert sample.cameras[0].intrinsics.tolist() == [[112, 0, 55.5], [0, 112, 31.5], [0, 0, 1]]


def test_how_a_cloud_is_read_is_part_of_the_fingerprints_of_points(tmp_path: Path, lines: list[Line]) -> None:
    def seen(**changes: object) -> Any:
        entry = SampleEntry.model_validate(lines[0] | {"cloud": lines[0]["cloud"] | changes})
        return raw_inputs([sample_of(entry)], lambda paths: dict.fromkeys(paths, 1))

    assert seen() == seen()
    assert seen() != seen(intensity_max=100)
    assert seen() != seen(columns=["y", "x", "z", "intensity"])


# Errors that name the line


MIRROR = [[-1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
TRANSPOSED = np.array(FRONT_FROM_CLOUD).T.tolist()


@pytest.mark.parametrize(
    "change, parts",
    [
        (deleted("id"), ["id is missing", "add it"]),
        (deleted("images", 1, "width"), ["images.1.width is missing", "add it"]),
        (put("../x", "scene"), ["scene = ", "../x", "never a path"]),
        (put("sample-0", "id"), ["id = 'sample-0'", "line 1 has it too"]),
        (put([], "images"), ["images = []", "at least 1"]),
        (put(3, "colour"), ["colour = 3", "no such field", "your-own-data.md"]),
        (put("/abs.png", "images", 0, "path"), ["images.0.path", '"/abs.png"', "below the folder"]),
        (put("wide", "images", 0, "width"), ["images.0.width", '"wide"', "valid integer"]),
        (put("left", "images", 0, "camera"), ["two images of camera 'left'"]),
        (put([[1, 0, 0], [0, 1, 0], [0, 0, 0]], "images", 0, "intrinsics"), ["images.0.intrinsics", "[fx, 0, cx]"]),
        (put(None, "images", 0, "intrinsics"), ["'front' has no intrinsics"]),
        (put(None, "images", 1, "cam_from_cloud"), ["'left' needs either cam_from_cloud or world_from_cam"]),
        (put(MIRROR, "images", 0, "cam_from_cloud"), ["images.0.cam_from_cloud", "rigid", "off by inf"]),
        (put(TRANSPOSED, "images", 0, "cam_from_cloud"), ["images.0.cam_from_cloud", "last row [0, 0, 0, 1]"]),
        (put({"model": "fisheye", "coefficients": [1]}, "images", 0, "distortion"), ["distortion", "has 4"]),
        (put("clouds/0.xyz", "cloud", "path"), ["cloud = ", "no reader for '.xyz'", ".pcd"]),
        (put({"path": "clouds/0.pcd", "dtype": "float64"}, "cloud"), ["cloud = ", "remove `dtype`"]),
        (put({"path": "clouds/0.ply", "columns": ["x"]}, "cloud"), ["cloud = ", "remove `columns`"]),
        (deleted("cloud", "columns"), ["cloud = ", "names of its columns", '"columns"']),
        (put(["x", "y"], "cloud", "columns"), ["columns x, y and z are needed"]),
        (deleted("cloud", "intensity_max"), ['"intensity_max": 255']),
        (put(0, "cloud", "intensity_max"), ["cloud.intensity_max = 0", "greater than 0"]),
        (put("truth/0.txt", "point_truth"), ["point_truth 'truth/0.txt'", ".label"]),
        (put(None, "cloud"), ["point_truth without a cloud"]),
    ],
)  # fmt: skip
def test_an_error_names_line_field_value_and_fix(
    tmp_path: Path, lines: list[Line], refused: Refused, change: Change, parts: list[str]
) -> None:
    changed = copy.deepcopy(lines)
    change(changed[1])
    file = write_list(tmp_path, changed)
    with refused(DatasetError, f"{file} line 2: ", *parts):
        Files(tmp_path).scenes("all", None)


@pytest.mark.parametrize("text", ["{", "[]", "3", "\0", "[" * 100_000, '{"id": NaN}'])
def test_a_line_that_is_no_object_is_refused(tmp_path: Path, lines: list[Line], refused: Refused, text: str) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text(json.dumps(lines[0]) + "\n" + text + "\n")
    with refused(DatasetError, f"{file} line 2: "):
        Files(tmp_path).scenes("all", None)


def test_what_is_missing_beside_the_list_is_named(tmp_path: Path, lines: list[Line], refused: Refused) -> None:
    with refused(DatasetError, tmp_path / "absent", "samples.jsonl"):
        Files(tmp_path / "absent")
    with refused(DatasetError, "no line has split 'test'", "choose all, train, val"):
        Files(tmp_path).scenes("test", None)
    (tmp_path / "taxonomy.json").write_text('{"name": "street", "classes": []}')
    with refused(DatasetError, tmp_path / "taxonomy.json", "classes", "such as"):
        Files(tmp_path).taxonomy()
    (tmp_path / "taxonomy.json").unlink()
    with refused(DatasetError, tmp_path / "taxonomy.json", "no such file", "write the classes"):
        Files(tmp_path).taxonomy()
    (tmp_path / "samples.jsonl").write_text("\n")
    with refused(DatasetError, "holds no samples"):
        Files(tmp_path).scenes("all", None)
    (tmp_path / "samples.jsonl").write_bytes(b"\xff\xfe{}")
    with refused(DatasetError, "not UTF-8"):
        Files(tmp_path).scenes("all", None)


def test_prompts_come_from_beside_the_list_unless_settings_name_others(tmp_path: Path, lines: list[Line]) -> None:
    config = load_config("files", teachers="untrained")
    resolved = resolve(config, Files(tmp_path))
    assert resolved.prompts.class_names == {"road": ("road",), "wall": ("wall",), "car": ("car",)}
    other = tmp_path / "other.yaml"
    other.write_text((tmp_path / "prompts.yaml").read_text().replace("[car]", "[lorry]"))
    config = load_config("files", teachers="untrained", overrides=[f"prompts={other}"])
    assert resolve(config, Files(tmp_path)).prompts.class_names["car"] == ("lorry",)


# Truth


@pytest.mark.parametrize("suffix", [".npy", ".bin", ".label"])
def test_truth_of_points_in_each_format(tmp_path: Path, lines: list[Line], suffix: str) -> None:
    ids = np.array([0, 2, 1, 255, 2] * 120, np.uint8)
    file = tmp_path / f"truth{suffix}"
    if suffix == ".npy":
        np.save(file, ids.astype(np.int64))
    else:
        (ids if suffix == ".bin" else ids.astype("<u4") | (7 << 16)).tofile(file)
    lines[0]["point_truth"] = file.name
    write_list(tmp_path, lines)
    adapter, sample = Files(tmp_path), all_samples(tmp_path)[0]
    np.testing.assert_array_equal(adapter.read_point_truth(sample, 600), ids)
    with pytest.raises(SampleError, match="599 points; give one class id a point"):
        adapter.read_point_truth(sample, 599)


def test_ids_that_are_no_class_are_refused(tmp_path: Path, lines: list[Line], refused: Refused) -> None:
    np.full(600, 3, np.uint8).tofile(tmp_path / "truth/0.bin")
    Image.fromarray(np.full((64, 112), 77, np.uint8)).save(tmp_path / "truth/0-left.png")
    adapter, sample = Files(tmp_path), all_samples(tmp_path)[0]
    with refused(SampleError, tmp_path / "truth/0.bin", "id 3 is no class", "'street' has 0 to 2", "map"):
        adapter.read_point_truth(sample, 600)
    with refused(SampleError, tmp_path / "truth/0-left.png", "id 77 is no class"):
        adapter.read_image_truth(sample.cameras[1])
    front = adapter.read_image_truth(sample.cameras[0])
    assert front is not None and np.unique(front).tolist() == [0, 1, 255]


def test_points_without_truth_have_none(tmp_path: Path, lines: list[Line]) -> None:
    del lines[0]["point_truth"]
    write_list(tmp_path, lines)
    assert Files(tmp_path).read_point_truth(all_samples(tmp_path)[0], 4).tolist() == [255] * 4


# The schema


def test_the_schema_in_the_package_is_that_of_the_models() -> None:
    stored = ROOT / "labelgen/datasets/files/schema.json"
    assert stored.read_text() == json_schema(), "run `make reference`"


def test_the_schema_accepts_lines_and_headers_and_refuses_what_the_reader_refuses(lines: list[Line]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(json_schema()))
    for line in (*lines, {"taxonomy": "mine.json"}):
        validator.validate(line)
    for change in (deleted("id"), put("wide", "images", 0, "width"), put(3, "colour"), put([[1]], "world_from_cloud")):
        changed = copy.deepcopy(lines[0])
        change(changed)
        assert not validator.is_valid(changed)


# Real data


@pytest.mark.skipif(
    not KITTI.is_dir(), reason="the real KITTI scan (non-commercial licence) is not beside the repository"
)
def test_a_real_scan_has_the_pair_count_that_was_computed_elsewhere(tmp_path: Path) -> None:
    numbers = {
        name: np.array(values.split(), float).reshape(3, 4)
        for name, _, values in (line.partition(":") for line in (KITTI / "calib.txt").read_text().splitlines() if line)
        if name in ("P2", "Tr")
    }
    intrinsics = numbers["P2"][:, :3]
    shift, transform = np.eye(4), np.eye(4)
    shift[:3, 3], transform[:3] = np.linalg.solve(intrinsics, numbers["P2"][:, 3]), numbers["Tr"]
    (tmp_path / "scan").symlink_to(KITTI.resolve())
    image = {
        **{"camera": "image_2", "path": "scan/image_2/000000.png", "width": 1242, "height": 375},
        **{"intrinsics": intrinsics.tolist(), "cam_from_cloud": (shift @ transform).tolist()},
    }
    cloud = {"path": "scan/velodyne/000000.bin", "columns": ["x", "y", "z", "remission"]}
    write_list(tmp_path, [{"id": "000000", "scene": "11", "cloud": cloud, "images": [image]}])
    (sample,) = all_samples(tmp_path)
    pairs = pair_points(Files(tmp_path).read_cloud(sample).xyz, sample.cameras, (375, 1242), 1.0)
    assert len(pairs.point) == 16_785
    assert rigid_error(sample.cameras[0].cam_from_cloud) < 1e-5
