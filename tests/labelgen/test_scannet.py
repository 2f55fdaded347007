"""The ScanNet adapter: splits, three layouts of frames, calibration, exact visibility, truth, and every damage."""

import hashlib
import io
import logging
import runpy
import shutil
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cache_schemas.documents import Picture
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE, load_taxonomy
from cache_schemas.validate import validate
from labelgen.datasets import find_dataset
from labelgen.datasets.scannet.adapter import ScanNet
from labelgen.datasets.scannet.splits import SPLITS, split_scans
from labelgen.errors import DatasetError, SampleError
from labelgen.geometry import pair_points, project
from labelgen.pictures import read_depth, read_image
from labelgen.prompts import load_prompts
from labelgen.samples import Camera, Sample
from labelgen.visibility import visible_in_depth_maps
from pipelines.config import load_config
from tests.pipelines.in_process import build_cache
from trainer.settings import load_settings

MAKER = runpy.run_path(str(Path(__file__).with_name("make_scannet.py")))
NUMBERS: dict[str, tuple[int, ...]] = MAKER["NUMBERS"]
NO_POSE, NO_DEPTH = MAKER["NO_POSE"], MAKER["NO_DEPTH"]
KEPT = [at for at in range(5) if at not in (NO_POSE, NO_DEPTH)]
VERSION = {"frames_25k": "frames_25k", "exported": "exported", "sens": "sens/1"}

Refused = Callable[..., AbstractContextManager[None]]
Worlds = dict[str, tuple[Path, dict[str, Any]]]

BENCHMARK = [
    *((0, 1, "wall"), (1, 2, "floor"), (2, 3, "cabinet"), (3, 4, "bed"), (4, 5, "chair"), (5, 6, "sofa")),
    *(
        (6, 7, "table"),
        (7, 8, "door"),
        (8, 9, "window"),
        (9, 10, "bookshelf"),
        (10, 11, "picture"),
        (11, 12, "counter"),
    ),
    *((12, 14, "desk"), (13, 16, "curtain"), (14, 24, "refrigerator"), (15, 28, "shower_curtain"), (16, 33, "toilet")),
    *((17, 34, "sink"), (18, 36, "bathtub"), (19, 39, "otherfurniture")),
]
"""Class id, nyu40 id and name, from the benchmark's table."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    """A fake ScanNet in each layout, to be read only, and what was written."""
    found = {}
    for layout in NUMBERS:
        folder = tmp_path_factory.mktemp(layout)
        found[layout] = folder, MAKER["make_scannet"](folder, layout)
    return found


@pytest.fixture
def damaged(worlds: Worlds, tmp_path: Path) -> Callable[[str], Path]:
    """Return a copy of a layout that is this test's own to damage."""
    return lambda layout: Path(shutil.copytree(worlds[layout][0], tmp_path / layout))


def samples_of(folder: Path, layout: str = "frames_25k", split: str = "all") -> dict[str, Sample]:
    scenes = ScanNet(folder).scenes(split, VERSION[layout])
    return {sample.token: sample for scene in scenes for sample in scene.samples}


def frames_25k(folder: Path, scan: str = "scene0191_00") -> Path:
    return folder / "tasks/scannet_frames_25k" / scan


def assert_only_defect(folder: Path, layout: str, *parts: object, scan: str = "scene0191_00") -> None:
    """Assert that one scan has a defect whose reason holds all `parts`, and that the other scans have none."""
    found = samples_of(folder, layout)
    assert [sample.token for sample in found.values() if sample.defect] == [scan]
    assert all(len(sample.cameras) == 3 for sample in found.values() if sample.token != scan)
    assert [part for part in parts if str(part) not in str(found[scan].defect)] == [], found[scan].defect


# The declaration and the official tables


def test_taxonomy_prompts_and_training_settings_belong_together() -> None:
    assert find_dataset("scannet").adapter is ScanNet
    taxonomy = load_taxonomy("scannet20")
    assert list(taxonomy.names) == [name for _, _, name in BENCHMARK]
    for prompts in ("scannet-paper", "scannet-improved"):
        assert tuple(load_prompts(prompts, taxonomy).class_names) == taxonomy.names
    assert load_settings("scannet").networks.voxel_m == 0.05
    points = load_config("scannet").points
    assert (points.min_depth_m, points.visibility) == (0.1, "depth_map")


@pytest.mark.parametrize(
    "split, scans, rooms, digest",
    [
        ("train", 1201, 565, "96acca299b7855f02824c496b19077904d80996e7ced1bb9f0dac98f7dd4d0c8"),
        ("val", 312, 142, "d75d4971c3fa7128c643695840e279042c212ef904fe933bd00cf9918c61b083"),
        ("test", 100, 100, "0214c6a3b1ee516ad653393b0321e7c0394c7662a4b3702eac1ddd7fbc00f7e0"),
    ],
)
def test_the_lists_are_the_official_files(split: str, scans: int, rooms: int, digest: str) -> None:
    file = resources.files("labelgen.datasets.scannet") / f"scannetv2_{split}.txt"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
    assert len(split_scans(split)) == scans
    assert len({scan[:9] for scan in split_scans(split)}) == rooms


def test_no_room_is_in_two_lists() -> None:
    rooms = [{scan[:9] for scan in split_scans(split)} for split in SPLITS]
    assert len(set.union(*rooms)) == sum(map(len, rooms))


# Splits, versions and frames


def test_a_scene_is_a_room_with_its_scans(worlds: Worlds) -> None:
    scenes = {
        split: {
            scene.name: [sample.token for sample in scene.samples]
            for scene in ScanNet(worlds["frames_25k"][0]).scenes(split, None)
        }
        for split in ("train", "val", "test", "all")
    }
    assert scenes["train"] == {"scene0191": ["scene0191_00", "scene0191_01"]}
    assert scenes["val"] == {"scene0568": ["scene0568_00"]}
    assert scenes["test"] == {"scene0707": ["scene0707_00"]}
    assert scenes["all"] == {**scenes["train"], **scenes["val"], **scenes["test"]}


@pytest.mark.parametrize("layout", NUMBERS)
def test_frames_with_pose_and_depth_are_the_cameras_in_order_of_number(worlds: Worlds, layout: str) -> None:
    for sample in samples_of(worlds[layout][0], layout).values():
        numbers = [
            camera.frame if camera.frame is not None else int(Path(camera.image_path).stem) for camera in sample.cameras
        ]
        assert numbers == [NUMBERS[layout][at] for at in KEPT]
        assert {(camera.channel, camera.width_px, camera.height_px) for camera in sample.cameras} == {
            ("color", 162, 121)
        }


def test_all_layouts_give_the_same_cameras_pictures_depth_and_truth(worlds: Worlds) -> None:
    first = samples_of(worlds["frames_25k"][0])
    for layout in ("exported", "sens"):
        adapter, other = ScanNet(worlds[layout][0]), samples_of(worlds[layout][0], layout)
        assert first.keys() == other.keys()
        for token in ("scene0191_00", "scene0707_00"):
            for ours, theirs in zip(first[token].cameras, other[token].cameras, strict=True):
                np.testing.assert_allclose(theirs.cam_from_cloud, ours.cam_from_cloud, atol=2e-6)
                np.testing.assert_allclose(theirs.intrinsics, ours.intrinsics, rtol=1e-6)
                reference = ScanNet(worlds["frames_25k"][0])
                assert np.array_equal(read_image(adapter, theirs), read_image(reference, ours))
                assert np.array_equal(depth_of(adapter, theirs), depth_of(reference, ours))
                assert np.array_equal(
                    np.array(adapter.read_image_truth(theirs)), np.array(reference.read_image_truth(ours))
                )


def depth_of(adapter: ScanNet, camera: Camera) -> np.ndarray:
    assert camera.depth is not None
    depth = np.asarray(Image.open(io.BytesIO(adapter.depth_bytes(camera)))).astype(np.float64)
    return depth * camera.depth.metres_per_unit


@pytest.mark.parametrize(
    "layout, version, kept",
    [
        ("sens", "sens", [0]),
        ("sens", "sens/2", [0, 2]),
        ("frames_25k", "frames_25k/300", [0, 300]),
        ("exported", None, [0, 20, 60]),
    ],
)
def test_every_nth_frame(worlds: Worlds, layout: str, version: str | None, kept: list[int]) -> None:
    sample = ScanNet(worlds[layout][0]).scenes("val", version)[0].samples[0]
    found = [c.frame if c.frame is not None else int(Path(c.image_path).stem) for c in sample.cameras]
    assert found == kept


def test_several_versions_and_none_named_asks_which(tmp_path: Path, worlds: Worlds, refused: Refused) -> None:
    folder = shutil.copytree(worlds["frames_25k"][0], tmp_path / "both")
    shutil.copytree(worlds["sens"][0], folder, dirs_exist_ok=True)
    with refused(DatasetError, folder, "frames_25k, sens", "--set version="):
        ScanNet(folder).scenes("all", None)
    assert ScanNet(folder).scenes("val", "sens")[0].samples[0].cameras[0].frame == 0


@pytest.mark.parametrize("version", ["v2", "sens/0", "sens/-1", "sens/", "frames"])
def test_an_unknown_version_lists_the_known_ones(worlds: Worlds, version: str, refused: Refused) -> None:
    with refused(DatasetError, repr(version), "frames_25k, exported, sens", "sens/50"):
        ScanNet(worlds["sens"][0]).scenes("all", version)


def test_an_unknown_split_lists_the_known_ones(worlds: Worlds, refused: Refused) -> None:
    with refused(DatasetError, "'validation'", "all, train, val, test"):
        ScanNet(worlds["sens"][0]).scenes("validation", None)


def test_folders_that_are_not_the_data_set_say_which_one_is(worlds: Worlds, tmp_path: Path, refused: Refused) -> None:
    folder = worlds["frames_25k"][0]
    for part in ("scans", "tasks", "tasks/scannet_frames_25k"):
        with refused(DatasetError, folder / part, f"--data {folder}"):
            ScanNet(folder / part).scenes("all", None)
    with refused(DatasetError, tmp_path, "give the folder that holds scans/"):
        ScanNet(tmp_path).scenes("all", None)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/scannet_frames_25k.zip").touch()
    with refused(DatasetError, "extract", tmp_path / "tasks/scannet_frames_25k.zip"):
        ScanNet(tmp_path).scenes("all", "frames_25k")
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        ScanNet(tmp_path / "nowhere")


def test_a_split_of_which_no_scan_is_there_is_refused(tmp_path: Path, refused: Refused) -> None:
    MAKER["make_scannet"](tmp_path, scans={"scene0568_00": MAKER["SCANS"]["scene0568_00"]})
    with refused(DatasetError, tmp_path, "none of its 1 scans", "'train'"):
        ScanNet(tmp_path).scenes("train", None)


def test_a_missing_mesh_is_a_missing_file_with_a_remedy(damaged: Callable[[str], Path]) -> None:
    folder = damaged("frames_25k")
    shutil.rmtree(folder / "scans")
    sample = samples_of(folder)["scene0191_00"]
    assert sample.cloud_path == "scans/scene0191_00/scene0191_00_vh_clean_2.ply" and sample.defect is None
    assert "_vh_clean_2.ply" in ScanNet(folder).remedy_for_missing(["scans/scene0191_00"])
    assert "scannet_frames_25k.zip" in ScanNet(folder).remedy_for_missing(
        ["tasks/scannet_frames_25k/scene0191_00/depth"]
    )


def test_if_no_frame_has_depth_the_files_are_reported_as_missing(damaged: Callable[[str], Path]) -> None:
    folder = damaged("frames_25k")
    shutil.rmtree(frames_25k(folder) / "depth")
    sample = samples_of(folder)["scene0191_00"]
    assert len(sample.cameras) == 4
    assert not any((folder / str(camera.depth and camera.depth.path)).exists() for camera in sample.cameras)


# Clouds and geometry


@pytest.mark.parametrize("scan", ["scene0191_00", "scene0191_01"], ids=["with alpha", "without alpha"])
def test_the_cloud_is_the_vertices_in_their_order(worlds: Worlds, scan: str) -> None:
    folder, made = worlds["frames_25k"]
    cloud = ScanNet(folder).read_cloud(samples_of(folder)[scan])
    assert np.array_equal(cloud.xyz, made[scan].vertices) and cloud.xyz.dtype == np.float32
    assert cloud.colour is not None and np.array_equal(cloud.colour, made[scan].colour)
    assert cloud.intensity is None


@pytest.mark.parametrize("layout", NUMBERS)
def test_projection_equals_an_independent_computation(worlds: Worlds, layout: str) -> None:
    """The pixel of a vertex by the numbers in the files: solve pose x = vertex, then divide."""
    folder, made = worlds[layout]
    farthest = 0.0
    for token, sample in samples_of(folder, layout).items():
        vertices = made[token].vertices.astype(np.float64)
        for at, camera in zip(KEPT, sample.cameras, strict=True):
            pose, matrix = made[token].frames[at].world_from_cam, MAKER["intrinsics"]((162, 121))
            if layout == "sens":
                pose, matrix = (array.astype(np.float32).astype(np.float64) for array in (pose, matrix))
            x, y, z, _ = np.linalg.solve(pose, np.vstack([vertices.T, np.ones(len(vertices))]))
            front = z > 0.1
            u, v = matrix[0, 0] * x / z + matrix[0, 2], matrix[1, 1] * y / z + matrix[1, 2]
            uv, depth = project(vertices, camera.cam_from_cloud, camera.intrinsics)
            np.testing.assert_allclose(depth, z, atol=1e-9)
            farthest = max(farthest, np.abs(uv[front] - np.stack([u, v], axis=1)[front]).max())
    assert farthest < 1e-6


def test_pairs_are_the_vertices_that_project_into_the_picture(worlds: Worlds) -> None:
    folder, made = worlds["frames_25k"]
    for token, sample in samples_of(folder).items():
        pairs = pair_points(made[token].vertices, sample.cameras, (121, 162), 0.1)
        for image, at in enumerate(KEPT):
            frame = made[token].frames[at]
            assert np.array_equal(pairs.point[pairs.image == image], np.flatnonzero(frame.visible | frame.hidden))


def test_pixels_of_visible_vertices_show_their_class(worlds: Worlds) -> None:
    """Truth of points and of pixels agree where the camera sees the vertex, and mostly not where it is hidden."""
    folder, _ = worlds["exported"]
    adapter = ScanNet(folder)
    made = worlds["exported"][1]["scene0191_00"]
    sample = samples_of(folder, "exported")["scene0191_00"]
    pairs = pair_points(made.vertices, sample.cameras, (121, 162), 0.1)
    pictures = np.stack([adapter.read_image_truth(camera) for camera in sample.cameras])
    same = (
        pictures[pairs.image, pairs.row, pairs.col] == adapter.read_point_truth(sample, len(made.vertices))[pairs.point]
    )
    visible = np.stack([made.frames[at].visible for at in KEPT])[pairs.image, pairs.point]
    assert same[visible].mean() > 0.97
    assert same[~visible].mean() < 0.6


def test_the_wall_hides_half_of_the_vertices_from_this_side(worlds: Worlds) -> None:
    _, made = worlds["frames_25k"]
    for scan in made.values():
        for frame in scan.frames:
            assert not (frame.visible & frame.hidden).any()
            assert np.abs(frame.gap_m[frame.visible]).max() < 1e-4 < frame.gap_m[frame.hidden].min()
        first = scan.frames[0]
        assert first.hidden.sum() > 2 * first.visible.sum()


def test_the_depth_rule_finds_what_exact_rays_find(worlds: Worlds) -> None:
    """Depth pictures tell visible from hidden vertices, but not those within the tolerance of the hiding surface.

    Depth pictures are 80x60 here, so a few vertices at the edges of objects take the depth of the pixel beside them.
    """
    tolerance_m, tolerance_share = 0.2, 0.01
    for layout in ("frames_25k", "sens"):
        folder, made = worlds[layout]
        adapter = ScanNet(folder)
        for token, sample in samples_of(folder, layout).items():
            frames = [made[token].frames[at] for at in KEPT]
            pairs = pair_points(made[token].vertices, sample.cameras, (121, 162), 0.1)
            depths = [read_depth(adapter, camera) for camera in sample.cameras]
            told = visible_in_depth_maps(
                made[token].vertices, sample.cameras, pairs, depths, (tolerance_m, tolerance_share)
            )
            visible = np.stack([frame.visible for frame in frames])[pairs.image, pairs.point]
            gap_m = np.stack([frame.gap_m for frame in frames])[pairs.image, pairs.point]
            far_behind = gap_m > tolerance_m + tolerance_share * pairs.depth
            assert visible.sum() > 700 and far_behind.sum() > 1000
            assert told[visible].mean() > 0.98
            assert told[far_behind].mean() < 0.01


@pytest.mark.parametrize(
    "colour_cx, colour_size, depth_cx, chosen",
    [(80.3, (162, 121), 39.4, "color"), (80.3, (80, 60), 39.4, "depth"), (39.4, (80, 60), 39.4, "color")],
    ids=["own size", "resized to the size of depth", "colour taken at the size of depth"],
)
def test_the_camera_matrix_that_fits_the_pictures_is_taken(
    tmp_path: Path, colour_cx: float, colour_size: tuple[int, int], depth_cx: float, chosen: str
) -> None:
    MAKER["make_scannet"](tmp_path, scans={"scene0568_00": MAKER["SCANS"]["scene0568_00"]})
    place = frames_25k(tmp_path, "scene0568_00")
    matrices = {"color": MAKER["intrinsics"]((162, 121)), "depth": MAKER["intrinsics"]((80, 60))}
    matrices["color"][0, 2], matrices["depth"][0, 2] = colour_cx, depth_cx
    matrices["color"][1, 0] = 1e-3
    for name, matrix in matrices.items():
        MAKER["write_matrix"](place / f"intrinsics_{name}.txt", matrix)
    for picture in (place / "color").iterdir():
        Image.open(picture).resize(colour_size).save(picture)
    camera = samples_of(tmp_path)["scene0568_00"].cameras[0]
    assert (camera.width_px, camera.height_px) == colour_size
    assert np.array_equal(camera.intrinsics, matrices[chosen][:3, :3])
    assert camera.depth is not None and np.array_equal(camera.depth.intrinsics, matrices["depth"][:3, :3])


# Truth


def test_point_truth_of_a_labelled_mesh_has_the_classes_of_the_benchmark(worlds: Worlds) -> None:
    folder, made = worlds["frames_25k"]
    class_of = {nyu40: number for number, nyu40, _ in BENCHMARK}
    nyu40 = made["scene0191_00"].nyu40
    truth = ScanNet(folder).read_point_truth(samples_of(folder)["scene0191_00"], len(nyu40))
    assert truth.tolist() == [class_of[number] for number in nyu40.tolist()]


def test_all_nyu40_ids_become_their_class_or_nothing(
    damaged: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = damaged("frames_25k")
    scan = MAKER["make_scan"](MAKER["SCANS"]["scene0191_00"])
    scan.nyu40[:] = np.arange(len(scan.nyu40)) % 41
    MAKER["write_mesh"](folder / "scans/scene0191_00/scene0191_00_vh_clean_2.labels.ply", scan, True, labels=True)
    truth = ScanNet(folder).read_point_truth(samples_of(folder)["scene0191_00"], len(scan.nyu40))
    assert {nyu40: int(truth[nyu40]) for nyu40 in range(41) if truth[nyu40] != IGNORE} == {
        nyu40: number for number, nyu40, _ in BENCHMARK
    }
    assert not caplog.records


def test_point_truth_from_groups_leaves_vertices_of_no_group_unlabelled(worlds: Worlds) -> None:
    folder, made = worlds["frames_25k"]
    class_of = {nyu40: number for number, nyu40, _ in BENCHMARK if nyu40 != 1}
    nyu40 = made["scene0191_01"].nyu40
    sample = samples_of(folder)["scene0191_01"]
    assert str(sample.point_truth_path).endswith(".aggregation.json")
    truth = ScanNet(folder).read_point_truth(sample, len(nyu40))
    assert truth.tolist() == [class_of.get(number, IGNORE) for number in nyu40.tolist()]


def test_an_unknown_id_is_unlabelled_and_logged(worlds: Worlds, caplog: pytest.LogCaptureFixture) -> None:
    folder, made = worlds["frames_25k"]
    nyu40 = made["scene0568_00"].nyu40
    with caplog.at_level(logging.WARNING):
        truth = ScanNet(folder).read_point_truth(samples_of(folder)["scene0568_00"], len(nyu40))
    assert (nyu40 == 50).sum() > 20 and (truth[nyu40 == 50] == IGNORE).all() and (truth[nyu40 != 50] != IGNORE).all()
    (record,) = caplog.records
    assert "scene0568_00_vh_clean_2.labels.ply: unknown nyu40 ids 50;" in record.getMessage()


@pytest.mark.parametrize("layout", NUMBERS)
def test_pixel_truth_follows_the_kind_of_file(worlds: Worlds, layout: str) -> None:
    """Pictures of frames_25k hold nyu40 ids, those of label-filt raw ids; the ceiling is none of the 20 classes."""
    folder, made = worlds[layout]
    table = np.full(41, IGNORE)
    table[[nyu40 for _, nyu40, _ in BENCHMARK]] = [number for number, _, _ in BENCHMARK]
    for token in ("scene0191_00", "scene0568_00"):
        for at, camera in zip(KEPT, samples_of(folder, layout)[token].cameras, strict=True):
            truth = ScanNet(folder).read_image_truth(camera)
            assert truth is not None and np.array_equal(truth, table[made[token].frames[at].nyu40])


def test_scans_of_test_have_no_truth(worlds: Worlds) -> None:
    for layout, (folder, _) in worlds.items():
        sample = samples_of(folder, layout)["scene0707_00"]
        assert sample.truth_paths == () and sample.cloud_path == "scans_test/scene0707_00/scene0707_00_vh_clean_2.ply"
        assert all(ScanNet(folder).read_image_truth(camera) is None for camera in sample.cameras)
        assert (ScanNet(folder).read_point_truth(sample, 7) == IGNORE).all()


@pytest.mark.parametrize(
    "layout, damage, said",
    [
        ("exported", lambda file: file.unlink(), "no such file"),
        ("frames_25k", lambda file: file.unlink(), "no such file"),
        ("exported", lambda file: file.write_text("id\tname\n1\twall\n"), "columns id, raw_category, nyu40id"),
    ],
    ids=["missing for pixels", "missing for groups", "another table"],
)
def test_the_label_map_is_checked_before_any_work(
    damaged: Callable[[str], Path], layout: str, damage: Callable[[Path], None], said: str, refused: Refused
) -> None:
    folder = damaged(layout)
    damage(folder / "scannetv2-labels.combined.tsv")
    with refused(DatasetError, folder / "scannetv2-labels.combined.tsv", said):
        samples_of(folder, layout)


# Damage: one scan is left out, or one error


def cut(file: Path, share: float = 0.6) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def twelve_numbers(file: Path) -> None:
    file.write_text("\n".join(file.read_text().splitlines()[:3]) + "\n")


@pytest.mark.parametrize(
    "name, damage, said",
    [
        ("intrinsics_color.txt", Path.unlink, "no such file"),
        ("intrinsics_depth.txt", Path.unlink, "no such file"),
        ("intrinsics_color.txt", twelve_numbers, "12 numbers"),
        ("pose/000100.txt", twelve_numbers, "12 numbers"),
        ("pose/000100.txt", lambda file: file.write_text("a b c d " * 4), "could not convert"),
        ("color/000000.jpg", lambda file: file.write_bytes(b"no picture"), "not a picture"),
        ("depth/000000.png", lambda file: file.write_bytes(b"no picture"), "not a picture"),
    ],
)
def test_damaged_calibration_is_the_defect_of_one_scan(
    damaged: Callable[[str], Path], name: str, damage: Callable[[Path], Any], said: str
) -> None:
    folder = damaged("frames_25k")
    file = frames_25k(folder) / name
    damage(file)
    assert_only_defect(folder, "frames_25k", file, said)


def test_a_camera_matrix_for_another_size_is_refused_with_both_figures(damaged: Callable[[str], Path]) -> None:
    folder = damaged("frames_25k")
    MAKER["write_matrix"](frames_25k(folder) / "intrinsics_color.txt", MAKER["intrinsics"]((1296, 968)))
    assert_only_defect(folder, "frames_25k", frames_25k(folder), "cx = 646.295", "162 pixels")


def test_a_scan_without_any_pose_is_left_out(damaged: Callable[[str], Path]) -> None:
    folder = damaged("frames_25k")
    for file in (frames_25k(folder) / "pose").iterdir():
        file.write_text("-inf " * 16)
    assert_only_defect(folder, "frames_25k", frames_25k(folder), "none of its 4 frames", "pose")


def transpose(file: Path) -> None:
    MAKER["write_matrix"](file, np.loadtxt(file).T)


@pytest.mark.parametrize(
    "damage",
    [lambda file: file.write_text("nan " * 16), lambda file: file.write_text("0 " * 16), Path.unlink, transpose],
    ids=["not a number", "zeros", "no file", "transposed"],
)
def test_a_frame_whose_pose_is_no_pose_is_left_out(
    damaged: Callable[[str], Path], damage: Callable[[Path], Any]
) -> None:
    folder = damaged("frames_25k")
    damage(frames_25k(folder) / "pose/000100.txt")
    assert [Path(camera.image_path).stem for camera in samples_of(folder)["scene0191_00"].cameras] == [
        "000000",
        "000300",
    ]


def change(file: Path, at: int, content: bytes) -> None:
    raw = bytearray(file.read_bytes())
    raw[at : at + len(content)] = content
    file.write_bytes(raw)


NAME_END = 12 + len(b"made up")


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda file: cut(file, 0.5), "the file ends in frame 2 of 5"),
        (lambda file: cut(file, 0.001), "the file ends at byte"),
        (lambda file: change(file, 0, struct.pack("<I", 5)), "version 5"),
        (lambda file: change(file, NAME_END + 256, struct.pack("<ii", 2, 2)), "compressions (2, 2)"),
        (lambda file: change(file, NAME_END + 264, struct.pack("<II", 2**31, 2**31)), "2147483648"),
        (lambda file: change(file, NAME_END + 284, struct.pack("<Q", 2**60)), "frames; download"),
        (lambda file: change(file, NAME_END + 292 + 80, struct.pack("<Q", 2**62)), "the file ends in frame 0 of 5"),
    ],
    ids=["cut", "cut in the header", "version", "compression", "size", "frames", "picture size"],
)
def test_a_damaged_sens_file_is_the_defect_of_one_scan(
    damaged: Callable[[str], Path], damage: Callable[[Path], None], said: str
) -> None:
    folder = damaged("sens")
    file = folder / "scans/scene0191_00/scene0191_00.sens"
    damage(file)
    assert_only_defect(folder, "sens", file, said)


def test_damaged_depth_in_a_sens_file_is_refused_when_it_is_read(
    damaged: Callable[[str], Path], refused: Refused
) -> None:
    folder = damaged("sens")
    file = folder / "scans/scene0191_00/scene0191_00.sens"
    colour_bytes = struct.unpack("<Q", file.read_bytes()[NAME_END + 292 + 80 :][:8])[0]
    change(file, NAME_END + 292 + 96 + colour_bytes + 20, b"\xff" * 40)
    adapter, camera = ScanNet(folder), samples_of(folder, "sens")["scene0191_00"].cameras[0]
    assert read_image(adapter, camera).shape == (121, 162, 3)
    with refused(SampleError, file, "frame 0", "depth picture is damaged"):
        adapter.depth_bytes(camera)


def shorter(file: Path) -> None:
    """Take 100 vertices out of a mesh, not out of its header."""
    raw = file.read_bytes()
    start = raw.index(b"end_header\n") + len(b"end_header\n")
    file.write_bytes(raw[:start] + raw[start + 100 * 16 :])


def shorter_with_faces_as_vertices(file: Path) -> None:
    """The same, but as many bytes follow the triangles, so that only the triangles tell."""
    shorter(file)
    file.write_bytes(file.read_bytes() + bytes(2000))


@pytest.mark.parametrize(
    "damage, said",
    [
        (shorter, "promises"),
        (shorter_with_faces_as_vertices, "no triangles follow the 2,684 vertices"),
        (cut, "promises"),
        (
            lambda file: file.write_bytes(b"ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nend_header\n"),
            "'ascii'",
        ),
        (lambda file: file.write_bytes(file.read_bytes().replace(b"property float z\n", b"")), "x, y, z"),
        (lambda file: file.write_bytes(file.read_bytes().replace(b"uchar red", b"shade red")), "header line"),
        (lambda file: file.write_bytes(b""), "not a PLY file"),
        (lambda file: file.write_bytes(file.read_bytes().replace(b"vertex 2684", b"vertex -684")), "vertex -684"),
        (
            lambda file: change(file, file.read_bytes().index(b"end_header\n") + 11, struct.pack("<f", np.nan)),
            "vertex 0 is not finite",
        ),
    ],
    ids=["fewer", "fewer, same size", "cut", "ascii", "no z", "unknown type", "empty", "negative", "not finite"],
)
def test_a_damaged_mesh_is_refused_when_it_is_read(
    damaged: Callable[[str], Path], damage: Callable[[Path], None], said: str, refused: Refused
) -> None:
    folder = damaged("frames_25k")
    sample = samples_of(folder)["scene0191_00"]
    file = folder / str(sample.cloud_path)
    damage(file)
    with refused(SampleError, file, said):
        ScanNet(folder).read_cloud(sample)


def test_labels_of_another_mesh_are_refused(damaged: Callable[[str], Path], refused: Refused) -> None:
    folder = damaged("frames_25k")
    for token in ("scene0191_00", "scene0191_01"):
        sample = samples_of(folder)[token]
        with refused(SampleError, folder / str(sample.point_truth_path), "labels of 2684 vertices", "has 2685"):
            ScanNet(folder).read_point_truth(sample, 2685)


def test_broken_groups_are_refused(damaged: Callable[[str], Path], refused: Refused) -> None:
    folder = damaged("frames_25k")
    sample = samples_of(folder)["scene0191_01"]
    for ending in ("_vh_clean_2.0.010000.segs.json", ".aggregation.json"):
        file = folder / "scans/scene0191_01" / f"scene0191_01{ending}"
        cut(file)
        with refused(SampleError, file, "cannot be read"):
            ScanNet(folder).read_point_truth(sample, 2684)


@pytest.mark.parametrize("name", ["color/000000.jpg", "label/000000.png"])
def test_a_truncated_picture_is_refused_when_it_is_read(
    damaged: Callable[[str], Path], name: str, refused: Refused
) -> None:
    folder = damaged("frames_25k")
    cut(frames_25k(folder) / name)
    adapter, camera = ScanNet(folder), samples_of(folder)["scene0191_00"].cameras[0]
    with refused(SampleError, frames_25k(folder) / name, "not a whole picture"):
        read_image(adapter, camera)
        adapter.read_image_truth(camera)


def test_if_no_scan_can_be_used_the_folder_is_refused(damaged: Callable[[str], Path], refused: Refused) -> None:
    folder = damaged("frames_25k")
    for place in (folder / "tasks").glob("*/*"):
        (place / "intrinsics_color.txt").unlink()
    with refused(DatasetError, folder, "none of the 4 scans can be used", "intrinsics_color.txt"):
        ScanNet(folder).scenes("all", None)


# A cache


def test_a_cache_of_sens_files_is_sound_and_holds_scans_with_all_their_frames(tmp_path: Path) -> None:
    keys = {"scene0191-000": "scans/scene0191_00/scene0191_00", "scene0707-000": "scans_test/scene0707_00/scene0707_00"}
    kinds = {scan: kind for scan, kind in MAKER["SCANS"].items() if scan in ("scene0191_00", "scene0707_00")}
    made = MAKER["make_scannet"](tmp_path / "data", "sens", kinds)
    prompts, url = tmp_path / "prompts.yaml", str(tmp_path / "cache.zarr")
    classes = [f"  {name}: [{name}]" for _, _, name in BENCHMARK]
    prompts.write_text("\n".join(["taxonomy: scannet20", 'templates: ["a {}"]', "classes:", *classes]))
    small = ["images.height=96", "images.width=128", "sam.points_per_side=1", f"prompts={prompts}", "version=sens/1"]
    build_cache(load_config("scannet", teachers="untrained", overrides=small), tmp_path / "data", url)
    cache, manifest = Cache.open(url)
    assert [str(problem) for problem in validate(cache, manifest)] == []
    records = cache.shard_records(keys)
    for key, path in keys.items():
        scan = Path(path).name
        assert records[key].samples == records[key].clouds == (scan,)
        assert records[key].pictures == tuple(Picture("color", f"{path}.sens#{frame}", 162, 121) for frame in range(3))
        points, images = cache.read(GroupPath(key, "points")), cache.read(GroupPath(key, "images"))
        assert np.array_equal(points["colour"], made[scan].colour) and "intensity" not in points
        assert images["rgb"].shape == (3, 96, 128, 3)
    pairs = cache.read(GroupPath("scene0191-000", "pairs"))
    assert 0.3 < pairs["visible"].mean() < 0.6
    truth = cache.read(GroupPath("scene0191-000", "truth"))
    assert (truth["point"] != IGNORE).all() and truth["image"].shape == (3, 96, 128)
    assert "truth" not in cache.shard_seals("scene0707-000")
