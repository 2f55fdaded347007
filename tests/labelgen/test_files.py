"""Data sets of one's own: the list, cloud formats, truth, errors that name the line, the schema, `labelgen check`."""

import copy
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jsonschema
import laspy
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pypcd4.pypcd4 import Encoding, PointCloud

from labelgen.cli import main
from labelgen.datasets import find_dataset
from labelgen.datasets.files.adapter import Files, sample_of
from labelgen.datasets.files.lines import SampleEntry, json_schema, rigid_error
from labelgen.errors import DatasetError, SampleError
from labelgen.geometry import pair_points
from labelgen.samples import Cloud, Sample
from labelgen.stages.points import raw_inputs
from pipelines.config import load_config
from pipelines.resolve import resolve

MAKER = runpy.run_path(str(Path(__file__).with_name("make_files.py")))
make_files, write_list, street = MAKER["make_files"], MAKER["write_list"], MAKER["street"]
FRONT_FROM_CLOUD = MAKER["FRONT_FROM_CLOUD"]
ROOT = Path(__file__).parents[2]
KITTI = ROOT / "../shared/data/semantickitti/sequences/11"

Line = dict[str, Any]
Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def lines(tmp_path: Path) -> list[Line]:
    """The lines of a data set in `tmp_path`, which the test may change."""
    return make_files(tmp_path)


def all_samples(folder: Path, split: str = "all") -> list[Sample]:
    return [sample for scene in Files(folder).scenes(split, None) for sample in scene.samples]


def cloud_in(folder: Path, **cloud: object) -> Cloud:
    """Return the cloud that the adapter reads for a line with this `cloud`."""
    lines = make_files(folder, 1)
    lines[0]["cloud"] = cloud
    write_list(folder, lines)
    return Files(folder).read_cloud(all_samples(folder)[0])


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


def deleted(*path: str | int) -> Callable[[Line], None]:
    def change(line: Line) -> None:
        place: Any = line
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return change


def put(value: object, *path: str | int) -> Callable[[Line], None]:
    def change(line: Line) -> None:
        place: Any = line
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


MIRROR = [[-1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
TRANSPOSED = np.array(FRONT_FROM_CLOUD).T.tolist()
INVERTED = np.linalg.inv(FRONT_FROM_CLOUD).tolist()


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
        (deleted("cloud", "columns"), ["cloud = ", "names of its columns", '"columns"']),
        (put(["x", "y"], "cloud", "columns"), ["columns x, y and z are needed"]),
        (deleted("cloud", "intensity_max"), ['"intensity_max": 255']),
        (put(0, "cloud", "intensity_max"), ["cloud.intensity_max = 0", "greater than 0"]),
        (put("truth/0.txt", "point_truth"), ["point_truth 'truth/0.txt'", ".label"]),
        (put(None, "cloud"), ["point_truth without a cloud"]),
    ],
)  # fmt: skip
def test_an_error_names_line_field_value_and_fix(
    tmp_path: Path, lines: list[Line], refused: Refused, change: Callable[[Line], None], parts: list[str]
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


# Clouds


POINTS = street(np.random.default_rng(5))[0]
COLOURS = np.random.default_rng(6).integers(0, 256, (len(POINTS), 3)).astype(np.uint8)
NAMES = ["x", "y", "z", "intensity"]


def save_bin(file: Path) -> Line:
    np.column_stack([POINTS, POINTS[:, 0]]).astype("<f8").tofile(file)
    return {"columns": [*NAMES, "ring"], "dtype": "float64"}


def save_npy(file: Path) -> Line:
    np.save(file, np.asfortranarray(POINTS))
    return {"columns": NAMES}


def save_named_npy(file: Path) -> Line:
    rows = np.zeros(len(POINTS), [(name, "f4") for name in NAMES])
    for name, column in zip(NAMES, POINTS.T, strict=True):
        rows[name] = column
    np.save(file, rows)
    return {}


def save_pcd(file: Path, encoding: Encoding) -> Line:
    cloud = PointCloud.from_xyzi_points(POINTS)
    cloud.save(file, encoding)
    return {}


def save_ply(file: Path, encoding: str) -> Line:
    """Write vertices after an element of other numbers, and before faces with lists."""
    order = ">" if "big" in encoding else "<"
    kinds = [("x", "double"), ("y", "double"), ("z", "double"), ("intensity", "float32"), *((c, "uchar") for c in RGB)]
    header = ["ply", f"format {encoding} 1.0", "comment made", "element place 2", "property int number"]
    header += [f"element vertex {len(POINTS)}", *(f"property {kind} {name}" for name, kind in kinds)]
    header += ["element face 1", "property list uchar int vertex_indices", "end_header"]
    columns = [*POINTS.T, *COLOURS.T]
    if encoding == "ascii":
        rows = [" ".join(f"{value:.9g}" for value in row) for row in zip(*columns, strict=True)]
        body = "\n".join(["1", "2", *rows, "3 0 1 2", ""]).encode()
    else:
        numpy_kinds = {"double": "f8", "float32": "f4", "uchar": "u1"}
        vertices = np.zeros(len(POINTS), [(name, order + numpy_kinds[kind]) for name, kind in kinds])
        for (name, _), column in zip(kinds, columns, strict=True):
            vertices[name] = column
        body = np.array([1, 2], order + "i4").tobytes() + vertices.tobytes() + b"\x03" + bytes(12)
    file.write_bytes("\n".join(header).encode() + b"\n" + body)
    return {}


RGB = ("red", "green", "blue")


def save_las(file: Path) -> Line:
    cloud = laspy.create(point_format=2, file_version="1.2")
    cloud.header.scales = [1e-5] * 3
    cloud.x, cloud.y, cloud.z = POINTS[:, :3].T.astype(np.float64)
    cloud.intensity = POINTS[:, 3].astype(np.uint16)
    cloud.red, cloud.green, cloud.blue = COLOURS.T.astype(np.uint16) * 257
    cloud.write(str(file))
    return {}


@pytest.mark.parametrize(
    "name, save, has_colour",
    [
        ("cloud.bin", save_bin, False),
        ("cloud.npy", save_npy, False),
        ("named.npy", save_named_npy, False),
        *((f"{way.value}.pcd", lambda file, way=way: save_pcd(file, way), False) for way in list(Encoding)[:3]),
        *(
            (f"{way}.PLY", lambda file, way=way: save_ply(file, way), True)
            for way in ("ascii", "binary_little_endian", "binary_big_endian")
        ),
        ("cloud.las", save_las, True),
        ("cloud.laz", save_las, True),
    ],
)
def test_all_formats_give_the_same_cloud(tmp_path: Path, name: str, save: Callable, has_colour: bool) -> None:
    extra = save(tmp_path / name)
    found = cloud_in(tmp_path, path=name, intensity_max=255, **extra)
    assert found.xyz.dtype == np.float32 and found.intensity is not None
    np.testing.assert_allclose(found.xyz, POINTS[:, :3], atol=6e-6)
    np.testing.assert_allclose(found.intensity, POINTS[:, 3] / 255, atol=1e-6)
    if has_colour:
        assert found.colour is not None and found.colour.dtype == np.uint8
        np.testing.assert_array_equal(found.colour, COLOURS)
    else:
        assert found.colour is None


def test_packed_colours_of_pcd_files_are_read(tmp_path: Path) -> None:
    packed = PointCloud.encode_rgb(COLOURS)
    PointCloud.from_xyzrgb_points(np.column_stack([POINTS[:, :3], packed]).astype(np.float32)).save(tmp_path / "c.pcd")
    found = cloud_in(tmp_path, path="c.pcd")
    np.testing.assert_array_equal(found.colour, COLOURS)
    assert found.intensity is None


def test_without_a_scale_intensity_is_not_read(tmp_path: Path) -> None:
    save_pcd(tmp_path / "c.pcd", Encoding.BINARY)
    assert cloud_in(tmp_path, path="c.pcd").intensity is None


@pytest.mark.parametrize("name, save", [("c.pcd", lambda f: save_pcd(f, Encoding.BINARY_COMPRESSED)),
                                        ("d.pcd", lambda f: save_pcd(f, Encoding.BINARY)),
                                        ("e.pcd", lambda f: save_pcd(f, Encoding.ASCII)),
                                        ("c.las", save_las), ("c.laz", save_las),
                                        ("c.npy", save_npy), ("c.bin", save_bin),
                                        ("a.ply", lambda f: save_ply(f, "ascii")),
                                        ("b.ply", lambda f: save_ply(f, "binary_little_endian"))])  # fmt: skip
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_a_cloud_that_is_cut_short_is_one_error(
    tmp_path: Path, refused: Refused, name: str, save: Callable, share: float
) -> None:
    extra = save(tmp_path / name)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: int(len(raw) * share) // 8 * 8 + bool(share)])
    with refused(SampleError, tmp_path / name):
        cloud_in(tmp_path, path=name, **extra | ({"intensity_max": 255} if "columns" in extra else {}))


@pytest.mark.parametrize(
    "row, extra, parts",
    [
        ([np.nan, 0, 0, 0], {}, ["point 1", "nan", "is not finite; remove such points", "1 of 2"]),
        ([5e5, 4e6, 0, 0], {}, ["point 1", "over 100 km away"]),
        ([1, 2, 3, 300], {}, ["point 1 (300.0)", "no intensity from 0 to 255", "largest is 300", "intensity_max"]),
        ([1, 2, 3, -4], {}, ["point 1 (-4.0)", "no intensity from 0 to 255"]),
    ],
)
def test_numbers_that_no_cloud_has_are_quoted(
    tmp_path: Path, refused: Refused, row: list[float], extra: Line, parts: list[str]
) -> None:
    np.array([[1, 2, 3, 4], row], "<f4").tofile(tmp_path / "c.bin")
    with refused(SampleError, tmp_path / "c.bin", *parts):
        cloud_in(tmp_path, path="c.bin", columns=NAMES, intensity_max=255, **extra)


def test_a_pickle_in_an_array_file_is_not_loaded(tmp_path: Path, refused: Refused) -> None:
    np.save(tmp_path / "c.npy", np.array([[print, 1, 2]], object), allow_pickle=True)
    with refused(SampleError, tmp_path / "c.npy", "Python objects"):
        cloud_in(tmp_path, path="c.npy", columns=["x", "y", "z"])


@pytest.mark.parametrize("column", ["a list before", "no vertices", "another format"])
def test_ply_files_that_cannot_be_read_say_why(tmp_path: Path, refused: Refused, column: str) -> None:
    save_ply(tmp_path / "c.ply", "ascii")
    text = (tmp_path / "c.ply").read_text()
    old, new, why = {
        "a list before": ("property int number", "property list uchar int number", "list property"),
        "no vertices": ("element vertex", "element corner", "declares no vertices"),
        "another format": ("format ascii", "format morse", "'morse'"),
    }[column]
    (tmp_path / "c.ply").write_text(text.replace(old, new))
    with refused(SampleError, tmp_path / "c.ply", why):
        cloud_in(tmp_path, path="c.ply")


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


# labelgen check


def check(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["check", *map(str, words)])
    return done.exit_code, done.output


def test_check_counts_and_draws(tmp_path: Path, lines: list[Line]) -> None:
    code, said = check(tmp_path, "--picture", tmp_path / "check.png")
    assert code == 0, said
    assert "4 samples, 2 scenes" in said and "3 classes" in said and "all 24 files are there" in said
    assert "scene scene-1: 2 samples, 2 clouds; images of front 2, left 2" in said
    assert "warning" not in said
    points, camera = street_points(tmp_path, lines), all_samples(tmp_path)[0].cameras[0]
    pairs = pair_points(points, [camera], (64, 112), 0.5)
    assert f"front {len(pairs.point):,}" in said
    drawn = np.asarray(Image.open(tmp_path / "check.png"))
    assert drawn.shape == (2 * 571, 1000, 3)
    # The car at 11.7 m hides parts of the wall at 29.7 m, whose points are the farthest and so blue.
    blue = (drawn[:571] == (40, 40, 220)).all(axis=-1)
    wall = np.flatnonzero(points[pairs.point, 0] == 30)
    rows = ((pairs.row[wall] + 0.5) * 571 / 64 - 0.5).astype(int)
    cols = ((pairs.col[wall] + 0.5) * 1000 / 112 - 0.5).astype(int)
    assert blue[rows, cols].mean() > 0.8


def street_points(folder: Path, lines: list[Line]) -> np.ndarray:
    return np.fromfile(folder / lines[0]["cloud"]["path"], "<f4").reshape(-1, 4)[:, :3]


def test_check_lists_missing_files_and_bad_samples(tmp_path: Path, lines: list[Line]) -> None:
    (tmp_path / "clouds/3.bin").unlink()
    code, said = check(tmp_path, "--picture", tmp_path / "check.png")
    assert code == 1 and "1 of 24 files are missing" in said and "clouds/3.bin" in said
    (tmp_path / "clouds/0.bin").write_bytes(b"12345")
    code, said = check(tmp_path, "--picture", tmp_path / "check.png")
    assert code == 1 and "5 bytes are not a multiple of 4 float32 numbers" in said
    (tmp_path / "prompts.yaml").write_text("templates: ['{}']\nclasses: {road: [road]}\n")
    assert "lacks wall, car" in check(tmp_path, "--picture", tmp_path / "check.png")[1]


@pytest.mark.parametrize(
    "change, parts",
    [
        (put(INVERTED, "images", 0, "cam_from_cloud"), ["inverse would see", "invert it"]),
        (put([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, -900], [0, 0, 0, 1]], "images", 0, "cam_from_cloud"),
         ["camera front: no point", "x right, y down, z ahead"]),
        (put([[0.0, -1, 0, 0], [0, 0, -1.01, 0], [1, 0, 0, 0], [0, 0, 0, 1]], "images", 0, "cam_from_cloud"),
         ["camera front: the rotation", "off by 0.02", "more digits"]),
        (put(65535, "cloud", "intensity_max"), ["largest intensity", "65535"]),
    ],
)  # fmt: skip
def test_check_warns_about_what_is_possible_but_suspicious(
    tmp_path: Path, lines: list[Line], change: Callable[[Line], None], parts: list[str]
) -> None:
    change(lines[0])
    write_list(tmp_path, lines)
    code, said = check(tmp_path, "--picture", tmp_path / "check.png")
    assert code == 0
    assert [part for part in ("warning: ", *parts) if part not in said] == [], said


def test_check_says_that_no_point_lies_anywhere_and_that_intensity_is_not_read(
    tmp_path: Path, lines: list[Line]
) -> None:
    save_pcd(tmp_path / "c.pcd", Encoding.BINARY)
    lines[0]["cloud"] = {"path": "c.pcd"}
    for image in lines[0]["images"]:
        image["cam_from_cloud"][2][3] = -900.0
    write_list(tmp_path, lines)
    code, said = check(tmp_path, "--picture", tmp_path / "check.png")
    assert code == 0 and "no point lies in any image" in said
    largest = f"{POINTS[:, 3].max():g}"
    assert f"c.pcd: its intensity (up to {largest}) is not read; to use it, add intensity_max" in said


def test_check_reads_pictures_without_a_cloud(tmp_path: Path, lines: list[Line]) -> None:
    del lines[0]["cloud"], lines[0]["point_truth"]
    write_list(tmp_path, lines)
    code, said = check(tmp_path, "--picture", tmp_path / "check.png")
    assert code == 0 and "2 images, no cloud" in said
    assert not (tmp_path / "check.png").exists()


def test_wrong_usage_and_a_list_that_is_malformed_have_their_exit_codes(tmp_path: Path, lines: list[Line]) -> None:
    assert check()[0] == 2
    (tmp_path / "samples.jsonl").write_text("{}\n")
    code, said = check(tmp_path)
    assert code == 1 and "line 1: " in said
    write_list(tmp_path, lines)
    code, said = check(tmp_path, "--picture", tmp_path)
    assert code == 1 and "cannot be written" in said


# The guide, and real data


def test_the_guide_can_be_followed_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/guides/your-own-data.md").read_text()
    files = dict(re.findall(r"`([\w./]+)`:\n\n```\w+\n(.*?)```", text, re.DOTALL))
    listed = files.pop("mine/samples.jsonl")
    assert set(files) == {"make_some.py", "list_samples.py", "mine/taxonomy.json", "mine/prompts.yaml"}
    (tmp_path / "mine").mkdir()
    for name, body in files.items():
        (tmp_path / name).write_text(body)
    for script in ("make_some.py", "list_samples.py"):
        subprocess.run([sys.executable, script], cwd=tmp_path, check=True)
    assert (tmp_path / "mine/samples.jsonl").read_text() == listed
    monkeypatch.chdir(tmp_path)
    code, said = check("mine")
    assert code == 0 and "warning" not in said and "6,500 points" in said


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
    cloud = {"path": "scan/velodyne/000000.bin", "columns": [*NAMES[:3], "remission"]}
    write_list(tmp_path, [{"id": "000000", "scene": "11", "cloud": cloud, "images": [image]}])
    (sample,) = all_samples(tmp_path)
    pairs = pair_points(Files(tmp_path).read_cloud(sample).xyz, sample.cameras, (375, 1242), 1.0)
    assert len(pairs.point) == 16_785
    assert rigid_error(sample.cameras[0].cam_from_cloud) < 1e-5
