"""The demo world: the same bytes for a seed, geometry that fits, truth that fits the pictures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cache_schemas.taxonomy import IGNORE, load_taxonomy
from demo.world import make_world
from demo.world.sensors import LIDAR
from labelgen.datasets.nuscenes.adapter import CAMERAS, NuScenes
from labelgen.geometry import project, rigid_from_quaternion
from labelgen.samples import Camera, Sample

pytestmark = pytest.mark.slow

SEED = 41
SIZE = (126, 224)
CLASSES = load_taxonomy("nuscenes16").names


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    make_world(out, SEED, scenes=2, keyframes=2, difficulty=0, size=SIZE)
    return out


@pytest.fixture(scope="module")
def samples(world: Path) -> list[Sample]:
    return [sample for scene in NuScenes(world).scenes("all", None) for sample in scene.samples]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of one scene, with three sweeps before each of its two keyframes."""
    out = tmp_path_factory.mktemp("swept")
    make_world(out, SEED, scenes=1, keyframes=2, difficulty=0, size=(45, 80), sweeps=3)
    return out


def table(world: Path, name: str) -> list[dict]:
    return json.loads((world / "v1.0-mini" / f"{name}.json").read_text())


def truth_image(world: Path, camera: Camera, kind: str = "image_truth") -> NDArray:
    path = world / kind / Path(camera.image_path).relative_to("samples").with_suffix(".png")
    return np.asarray(Image.open(path))


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path: Path):
    make_world(tmp_path / "one", 3, scenes=2, size=(45, 80))
    make_world(tmp_path / "two", 3, scenes=2, size=(45, 80), workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_scene_is_the_same_whatever_follows_it(tmp_path: Path, world: Path):
    make_world(tmp_path, SEED, scenes=1, keyframes=2, difficulty=0, size=SIZE)
    alone = files(tmp_path / "samples")
    assert alone
    assert alone.items() <= files(world / "samples").items()


def test_the_adapter_reads_every_sample(world: Path, samples: list[Sample]):
    adapter = NuScenes(world)
    assert len(samples) == 4
    for sample in samples:
        assert sample.defect is None
        assert [camera.channel for camera in sample.cameras] == list(CAMERAS)
        cloud = adapter.read_cloud(sample)
        assert 20_000 < len(cloud.xyz) < 34_720
        assert 0.02 < cloud.intensity.mean() < 0.4
        assert np.linalg.norm(cloud.xyz, axis=1).max() < 85
        assert (adapter.read_point_truth(sample, len(cloud.xyz)) != IGNORE).all()
        with Image.open(world / sample.cameras[0].image_path) as picture:
            assert (picture.size, picture.mode) == ((SIZE[1], SIZE[0]), "RGB")


def test_tables_refer_to_rows_and_files_that_exist(world: Path):
    names = ("sample", "sample_data", "sample_annotation", "scene", "log", "map", "instance", "category", "ego_pose")
    tables = {name: table(world, name) for name in (*names, "sensor", "calibrated_sensor", "attribute", "visibility")}
    tokens = {name: {row["token"] for row in rows} for name, rows in tables.items()}
    for name, rows in tables.items():
        assert len(tokens[name]) == len(rows), f"{name}: a token occurs twice"
        for row in rows:
            for key, value in row.items():
                if (target := key.removesuffix("_token")) in tokens and key.endswith("_token"):
                    assert value in tokens[target]
                if key in ("prev", "next") and value:
                    assert value in tokens[name]
    for row in (*tables["sample_data"], *tables["map"], *table(world, "lidarseg")):
        assert (world / row["filename"]).is_file()
    readings = [row for row in tables["sample_data"] if LIDAR not in row["filename"]]
    lidar_times = {row["sample_token"]: row["timestamp"] for row in tables["sample_data"] if LIDAR in row["filename"]}
    lags = {row["timestamp"] - lidar_times[row["sample_token"]] for row in readings}
    assert min(lags) < -35_000
    assert max(lags) < 2_000
    assert np.linalg.norm([row["translation"] for row in tables["ego_pose"]], axis=1).min() > 500


def test_points_land_on_pixels_of_their_class(world: Path, samples: list[Sample]):
    """Rig, poses, times and tables at once: a slip in any of them moves points off their objects."""
    adapter, hits, total = NuScenes(world), 0, 0
    for sample in samples:
        cloud = adapter.read_cloud(sample)
        truth = adapter.read_point_truth(sample, len(cloud.xyz))
        for camera in sample.cameras:
            pixels = truth_image(world, camera)
            uv, depth = project(cloud.xyz, camera.cam_from_cloud, camera.intrinsics)
            column, row = np.rint(uv[depth > 1]).astype(int).T
            inside = (column > 0) & (row > 0) & (column < SIZE[1] - 1) & (row < SIZE[0] - 1)
            column, row = column[inside], row[inside]
            point_class, point_depth = truth[depth > 1][inside], depth[depth > 1][inside]
            judged = away_from_edges(pixels)[row, column] & unhidden(row, column, point_depth)
            hits += int((pixels[row, column] == point_class)[judged].sum())
            total += int(judged.sum())
    assert total > 10_000
    print(hits, total)
    assert hits / total > 0.95


def away_from_edges(pixels: NDArray) -> NDArray:
    """Return (H, W) pixels whose eight neighbours have the same class."""
    same = np.zeros(pixels.shape, bool)
    inner = pixels[1:-1, 1:-1]
    shifted = [
        pixels[1 + i : pixels.shape[0] - 1 + i, 1 + j : pixels.shape[1] - 1 + j] for i in (-1, 0, 1) for j in (-1, 0, 1)
    ]
    same[1:-1, 1:-1] = np.all([other == inner for other in shifted], axis=0)
    return same


def unhidden(row: NDArray, column: NDArray, depth: NDArray) -> NDArray:
    """Return which points (N,) have no point more than 5 % nearer within a few pixels; what hides one is hit too."""
    reach = 4
    nearest = np.full((SIZE[0] + 2 * reach, SIZE[1] + 2 * reach), np.inf)
    for i in range(2 * reach + 1):
        for j in range(2 * reach + 1):
            np.minimum.at(nearest, (row + i, column + j), depth)
    return depth < nearest[row + reach, column + reach] * 1.05


def test_every_class_occurs_among_points_and_pixels(world: Path, samples: list[Sample]):
    adapter = NuScenes(world)
    points, pixels = set(), set()
    for sample in samples:
        points |= set(np.unique(adapter.read_point_truth(sample, len(adapter.read_cloud(sample).xyz))).tolist())
        for camera in sample.cameras:
            pixels |= set(np.unique(truth_image(world, camera)).tolist())
    assert points == set(range(len(CLASSES)))
    assert pixels == {*range(len(CLASSES)), IGNORE}


def test_instances_are_of_one_class_and_the_sky_is_none(world: Path, samples: list[Sample]):
    for sample in samples:
        for camera in sample.cameras:
            classes, instances = truth_image(world, camera), truth_image(world, camera, "image_instances")
            assert instances.dtype == np.uint16
            assert np.array_equal(instances == 0, classes == IGNORE)
            pairs = np.unique(np.stack([instances.ravel(), classes.ravel()]), axis=1)
            assert len(np.unique(pairs[0])) == pairs.shape[1]


def test_boxes_hold_their_points(world: Path, samples: list[Sample]):
    """A box holds as many points of its own category as the table says."""
    poses = {row["token"]: row for row in table(world, "ego_pose")}
    mounts = {row["token"]: row for row in table(world, "calibrated_sensor")}
    categories = {row["token"]: row for row in table(world, "category")}
    instances = {row["token"]: categories[row["category_token"]] for row in table(world, "instance")}
    labels = {row["sample_data_token"]: row["filename"] for row in table(world, "lidarseg")}
    for reading in (row for row in table(world, "sample_data") if LIDAR in row["filename"]):
        pose, mount = poses[reading["ego_pose_token"]], mounts[reading["calibrated_sensor_token"]]
        global_from_lidar = rigid_from_quaternion(pose["rotation"], pose["translation"]) @ rigid_from_quaternion(
            mount["rotation"], mount["translation"]
        )
        cloud = np.fromfile(world / reading["filename"], "<f4").reshape(-1, 5)[:, :3]
        raw = np.fromfile(world / labels[reading["token"]], np.uint8)
        xyz = cloud @ global_from_lidar[:3, :3].T + global_from_lidar[:3, 3]
        boxes = [row for row in table(world, "sample_annotation") if row["sample_token"] == reading["sample_token"]]
        assert len(boxes) > 10
        for box in boxes:
            inside = within(xyz, box, margin=0.12)
            held = int((raw[inside] == instances[box["instance_token"]]["index"]).sum())
            assert held >= 0.97 * box["num_lidar_pts"] - 1


def within(xyz: NDArray, box: dict, margin: float) -> NDArray:
    global_from_box = rigid_from_quaternion(box["rotation"], box["translation"])
    local = (xyz - global_from_box[:3, 3]) @ global_from_box[:3, :3]
    width, length, height = box["size"]
    return (np.abs(local) < np.array([length, width, height]) / 2 + margin).all(axis=1)


def test_moving_things_move_between_keyframes(world: Path):
    rows = {row["token"]: row for row in table(world, "sample_annotation")}
    names = {row["name"]: row["token"] for row in table(world, "attribute")}
    steps: dict[bool, list[float]] = {True: [], False: []}
    for row in rows.values():
        if row["next"] and (names["vehicle.moving"] in row["attribute_tokens"] or not row["attribute_tokens"]):
            offset = np.subtract(rows[row["next"]]["translation"], row["translation"])
            steps[bool(row["attribute_tokens"])].append(float(np.linalg.norm(offset)))
    assert min(steps[True]) > 2
    assert max(steps[False]) < 1e-6


def test_sweeps_change_nothing_else(swept: Path, world: Path):
    clouds = files(swept / "samples" / LIDAR)
    assert len(clouds) == 2 and clouds.items() <= files(world / "samples" / LIDAR).items()
    assert len(files(swept / "sweeps")) == 6


def test_the_adapter_gives_each_sample_the_sweeps_before_it_latest_first(swept: Path):
    adapter = NuScenes(swept)
    adapter.sweeps = 5
    first, second = adapter.scenes("all", None)[0].samples
    assert [sweep.lag_s for sweep in first.sweeps] == pytest.approx([0.05, 0.10, 0.15])
    assert [sweep.lag_s for sweep in second.sweeps] == pytest.approx([0.05, 0.10, 0.15, 0.50, 0.55])
    assert second.sweeps[3].cloud_path == first.cloud_path
    assert {sweep.cloud_path for sweep in second.sweeps} <= set(second.input_paths)


def test_a_sweep_moves_to_its_keyframe_by_both_poses(swept: Path):
    """global_from_ego @ ego_from_lidar of both times, from the tables, by a computation of its own."""
    adapter = NuScenes(swept)
    adapter.sweeps = 5
    sample = adapter.scenes("all", None)[0].samples[1]
    readings = {row["filename"]: row for row in table(swept, "sample_data")}
    poses, mounts = ({row["token"]: row for row in table(swept, name)} for name in ("ego_pose", "calibrated_sensor"))

    def to_global(path: str, point: NDArray) -> NDArray:
        for row in (mounts[readings[path]["calibrated_sensor_token"]], poses[readings[path]["ego_pose_token"]]):
            w, vector = row["rotation"][0], np.array(row["rotation"][1:])
            point = point + 2 * np.cross(vector, np.cross(vector, point) + w * point) + row["translation"]
        return point

    point = np.array([3.0, 20.0, -1.0])
    for sweep in sample.sweeps:
        in_keyframe = sweep.keyframe_from_sweep[:3, :3] @ point + sweep.keyframe_from_sweep[:3, 3]
        np.testing.assert_allclose(
            to_global(sample.cloud_path, in_keyframe), to_global(sweep.cloud_path, point), atol=1e-6
        )
    assert np.linalg.norm(sample.sweeps[4].keyframe_from_sweep[:3, 3]) > 0.5, "the car should have moved in 0.55 s"


def test_sweeps_without_files_and_broken_chains_are_named(swept: Path, tmp_path: Path):
    adapter = NuScenes(shutil.copytree(swept, tmp_path / "copy"))
    adapter.sweeps = 2
    file = adapter.data / "v1.0-mini" / "sample_data.json"
    rows = json.loads(file.read_text())
    gone = next(row for row in rows if row["filename"].startswith("sweeps/") and row["prev"])
    file.write_text(json.dumps([row for row in rows if row["token"] != gone["token"]]))
    defects = [sample.defect for sample in adapter.scenes("all", None)[0].samples]
    assert any(defect and gone["token"] in defect and "extract them again" in defect for defect in defects)
