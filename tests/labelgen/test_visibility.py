"""Visibility of pairs: cases by hand for the z-buffer, and depth pictures against exact geometry."""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.layout_checks import check_arrays
from cache_schemas.store import Cache
from labelgen.datasets.adapter import Adapter
from labelgen.errors import DatasetError
from labelgen.geometry import Pairs, pair_points
from labelgen.samples import Camera, Cloud, DepthMap, Sample, Scene
from labelgen.stages.inputs import BadSamplesError, ShardInputs
from labelgen.stages.labels import LABELS
from labelgen.stages.pairs import PAIRS
from labelgen.stages.raw_files import calibrations
from labelgen.visibility import (
    angular_spacing,
    visible_in_depth_maps,
    visible_in_superpixels,
    visible_in_zbuffer,
    visible_pairs,
)
from pipelines.config import load_config
from pipelines.resolve import resolve
from tests.toy_cache import create_toy_cache, toy_manifest

SIZE = (112, 208)
LOOKS_ALONG_X = np.array([[0, -1.0, 0, 0], [0, 0, -1.0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]])
"""The camera frame (x right, y down, z forward) from that of the lidar (x forward, y left, z up), at its place."""
MARGIN = (0.5, 0.05)
RANGE_M = 70.0
AZIMUTH, RING = math.radians(0.33), math.radians(1.33)


def camera_at(x: float, y: float, z: float) -> Camera:
    """Return a camera at a place in the frame of the lidar that looks along x, 92 degrees wide and 58 high."""
    shift = np.eye(4)
    shift[:3, 3] = -x, -y, -z
    intrinsics = np.array([[100.0, 0, 103.5], [0, 100.0, 55.5], [0, 0, 1]])
    return Camera("front", "front.jpg", 208, 112, intrinsics, LOOKS_ALONG_X @ shift)


ASIDE = camera_at(0.8, 0.6, -0.4)


def seen(xyz: np.ndarray | list[list[float]], *cameras: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of all pairs of a cloud, and which of them the z-buffer calls visible."""
    points = np.array(xyz, np.float64).reshape(-1, 3)
    pairs = pair_points(points, cameras, SIZE, 1.0)
    return pairs.point, visible_in_zbuffer(points, cameras, pairs, MARGIN)


def scan(*surfaces: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the points (P, 3) that a lidar of 32 beams at the origin sees in front of it, up to 70 m away.

    Each surface takes unit rays (N, 3) and returns their distances (N,), infinite where they miss it.
    """
    up, around = np.meshgrid(np.arange(-23, 9) * RING, np.arange(-150, 150) * AZIMUTH)
    rays = np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], axis=-1).reshape(-1, 3)
    distance = np.min([surface(rays) for surface in surfaces], axis=0)
    return rays[distance < RANGE_M] * distance[distance < RANGE_M, None]


def plane(normal: tuple[float, float, float], offset: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the surface of all x with normal . x = offset."""

    def distances(rays: np.ndarray) -> np.ndarray:
        slope = rays @ np.array(normal)
        return np.divide(offset, slope, out=np.full(len(rays), np.inf), where=slope * offset > 1e-3)

    return distances


def board(x: float, left: float, right: float, low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return an upright rectangle across the view at `x`, from `right` to `left` (y) and `low` to `high` (z)."""

    def distances(rays: np.ndarray) -> np.ndarray:
        distance = plane((1, 0, 0), x)(rays)
        y, z = (np.where(np.isfinite(distance), distance, 0)[:, None] * rays)[:, 1:].T
        return np.where((y > right) & (y < left) & (z > low) & (z < high), distance, np.inf)

    return distances


def hits_board(points: np.ndarray, x: float, left: float, right: float, low: float, high: float) -> np.ndarray:
    """Return whether the line of sight from `ASIDE` to each point passes through the rectangle."""
    eye = np.array([0.8, 0.6, -0.4])
    share = (x - eye[0]) / (points[:, 0] - eye[0])
    y, z = (eye + share[:, None] * (points - eye))[:, 1:].T
    return (share > 0) & (share < 1) & (y > right) & (y < left) & (z > low) & (z < high)


@pytest.mark.parametrize(
    "rectangle",
    [(6.0, 1.0, -1.5, -1.0, 0.8), (6.0, 0.06, -0.06, -2.0, 2.0)],
    ids=["wall", "thin pole"],
)
def test_what_stands_in_front_hides_the_wall_behind_it(rectangle: tuple[float, float, float, float, float]) -> None:
    cloud = scan(board(*rectangle), plane((1, 0, 0), 14.0))
    point, visible = seen(cloud, ASIDE)
    behind = cloud[point][:, 0] > 13
    x, left, right, low, high = rectangle
    # The lidar knows the edges to one spacing: 0.035 m along a ring and 0.14 m across the rings at 6 m.
    surely = hits_board(cloud[point], x, left - 0.035, right + 0.035, low + 0.14, high - 0.14) & behind
    possibly = hits_board(cloud[point], x, left + 0.035, right - 0.035, low - 0.14, high + 0.14) & behind
    assert surely.sum() > 30
    assert not visible[surely].any()
    assert visible[~possibly].all()
    truly = hits_board(cloud[point], *rectangle) & behind
    assert (~visible & truly).sum() > 0.85 * truly.sum() and (~visible & truly).sum() > 0.8 * (~visible).sum()


@pytest.mark.parametrize(
    "surface",
    [plane((0, 0, 1), -1.84), plane((1, 1, 0), 12.0), plane((1, -3, 0.2), 9.0), plane((1, 0, 2), 5.0)],
    ids=["ground", "wall at 45 degrees", "wall at 72 degrees", "roof"],
)
def test_a_slanted_plane_does_not_hide_itself(surface: Callable[[np.ndarray], np.ndarray]) -> None:
    point, visible = seen(scan(surface), ASIDE)
    assert len(point) > 500
    assert visible.all()


def test_a_point_less_than_the_margin_behind_another_is_visible() -> None:
    camera = camera_at(0, 0, 0)
    # At 4 m the margin is 0.5 m; at 20 m it is 5 % = 1 m.
    for near, far, expected in ((4, 4.49, True), (4, 4.51, False), (19.1, 20, True), (18.9, 20, False)):
        assert seen([[near, 0, 0], [far, 0, 0]], camera)[1].tolist() == [True, expected]


def test_each_camera_has_its_own_view() -> None:
    point, visible = seen([[4.0, 0, 0], [9.0, 0, 0]], camera_at(0, 0, 0), camera_at(0, 2, 0))
    assert point.tolist() == [0, 1, 0, 1]
    assert visible.tolist() == [True, False, True, True]


def test_directions_behind_the_lidar_are_as_good_as_those_in_front() -> None:
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    cloud = scan(board(6.0, 1.0, -1.5, -1.0, 0.8), plane((1, 0, 0), 14.0))
    backwards = replace(ASIDE, cam_from_cloud=ASIDE.cam_from_cloud @ turn)
    point, visible = seen(cloud, ASIDE)
    turned_point, turned_visible = seen(cloud @ turn[:3, :3], backwards)
    np.testing.assert_array_equal(turned_point, point)
    assert (turned_visible == visible).mean() > 0.995, "only places in the cells of the z-buffer differ"


@pytest.mark.parametrize("points", [[], [[5.0, 0.0, 0.0]]])
def test_clouds_of_no_point_and_of_one(points: list[list[float]]) -> None:
    assert seen(points, ASIDE)[1].tolist() == [True] * len(points)


def test_the_spacing_of_a_lidar_is_found() -> None:
    rings = np.radians([*np.arange(-24, -8, 0.5), *np.arange(-8, 2, 0.34)])
    up, around = np.meshgrid(rings, np.arange(0, 2 * np.pi, math.radians(0.17)))
    directions = np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], axis=-1)
    cloud = directions.reshape(-1, 3)[np.random.default_rng(0).random(up.size) > 0.05] * 20
    along, across = angular_spacing(cloud)
    assert math.degrees(along) == pytest.approx(0.17, rel=0.1)
    elevation = np.degrees(np.arcsin(cloud[:, 2] / 20))
    np.testing.assert_allclose(np.degrees(across[elevation < -10]), 0.5, rtol=0.05)
    np.testing.assert_allclose(np.degrees(across[elevation > -6]), 0.34, rtol=0.05)


def test_the_spacing_of_a_cloud_that_is_no_sweep_is_bounded() -> None:
    rng = np.random.default_rng(0)
    along, across = angular_spacing(rng.uniform(-50, 50, (200_000, 3)))
    assert along >= math.radians(0.05) and across.min() > math.radians(0.1)
    assert angular_spacing(np.zeros((0, 3)))[1].shape == (0,)


def test_visible_pairs_are_the_rows_that_the_cache_calls_visible() -> None:
    pairs = {"point": np.array([4, 5, 6]), "row": np.array([1, 2, 3]), "offsets": np.array([0, 3])}
    assert {name: rows.tolist() for name, rows in visible_pairs(pairs).items()} == {
        "point": [4, 5, 6],
        "row": [1, 2, 3],
    }
    told = visible_pairs(pairs | {"visible": np.array([1, 0, 1], np.uint8)})
    assert told["point"].tolist() == [4, 6] and told["row"].tolist() == [1, 3]


# Superpixels


def in_superpixels(superpixels: int, *rows: tuple[int, int, int, float], share: float = 0.2) -> list[bool]:
    """Tell the visibility of pairs (image, row, col, depth) in two pictures, left half red, right half blue."""
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :40, 0] = picture[:, 40:, 2] = 200
    image, row, col = np.array([pair[:3] for pair in rows], np.uint16).reshape(-1, 3).T
    depth = np.array([pair[3] for pair in rows], np.float32)
    pairs = Pairs(np.arange(len(rows), dtype=np.int32), image, row, col, depth)
    return visible_in_superpixels([picture, picture], pairs, superpixels, share).tolist()


def test_points_far_behind_the_nearest_one_of_their_superpixel_are_hidden() -> None:
    """10 m is behind 8.1 m by less than a fifth of its depth, and behind 7.9 m by more."""
    assert in_superpixels(2, (0, 20, 20, 8.1), (0, 5, 30, 10.0)) == [True, True]
    assert in_superpixels(2, (0, 20, 20, 7.9), (0, 5, 30, 10.0)) == [True, False]
    assert in_superpixels(2, (0, 20, 20, 7.9), (0, 5, 30, 10.0), share=0.3) == [True, True]


def test_points_of_another_superpixel_or_picture_hide_nothing() -> None:
    assert in_superpixels(2, (0, 20, 38, 4.0), (0, 20, 41, 10.0), (1, 20, 38, 12.0)) == [True, True, True]
    assert in_superpixels(50, (0, 2, 2, 4.0), (0, 37, 37, 10.0)) == [True, True], "one colour, but far apart"
    assert in_superpixels(2) == []


# Depth pictures


DEPTH_INTRINSICS = np.array([[40.0, 0, 20], [0, 40.0, 12], [0, 0, 1.0]])
RGBD = Camera("front", "", 104, 56, np.eye(3), np.eye(4), depth=DepthMap("front.png", DEPTH_INTRINSICS))


def in_depth_map(xyz: list[list[float]], depth_map: np.ndarray, tolerance: tuple[float, float]) -> list[bool]:
    points = np.array(xyz)
    number = np.arange(len(points))
    zeros = np.zeros(len(points), np.uint16)
    pairs = Pairs(number.astype(np.int32), zeros, zeros, zeros, points[:, 2].astype(np.float32))
    return visible_in_depth_maps(points, (RGBD,), pairs, [depth_map.astype(np.float32)], tolerance).tolist()


def test_points_on_the_surface_of_the_depth_picture_are_visible() -> None:
    shown = np.full((25, 41), 5.0)
    # The tolerance is 0.2 m + 1 % of 5 m = 0.25 m on both sides.
    points = [[0, 0, z] for z in (5.0, 5.24, 5.26, 4.76, 4.74)]
    assert in_depth_map(points, shown, (0.2, 0.01)) == [True, True, False, True, False]


def test_the_depth_is_looked_up_at_the_nearest_pixel_by_its_own_intrinsics() -> None:
    shown = np.full((25, 41), 9.0)
    shown[12, 20], shown[14, 21] = 4.0, 3.0
    # Depth pixels (row, col): (12, 20), (12, 20.4), (12, 20.6), (13.6, 21.4) and (13.4, 21.4).
    points = [[0, 0, 4], [0.04, 0, 4], [0.06, 0, 4], [0.105, 0.12, 3], [0.105, 0.105, 3]]
    assert in_depth_map(points, shown, (0.1, 0.0)) == [True, True, False, True, False]


def test_without_depth_and_outside_the_depth_picture_nothing_is_visible() -> None:
    shown = np.full((25, 41), 4.0)
    shown[12, 20] = 0.0
    # Columns 20 (no depth), 40, 40.6 and -0.6.
    points = [[0, 0, 4], [2.0, 0, 4], [2.06, 0, 4], [-2.06, 0, 4]]
    assert in_depth_map(points, shown, (0.1, 0.0)) == [False, True, False, False]
    assert in_depth_map([[0, 0, 0.05]], shown, (0.1, 0.0)) == [False], "0 is no depth, not a near surface"


def test_a_ball_in_a_room_hides_what_exact_rays_say() -> None:
    centre, radius, wall_m = np.array([0.1, -0.05, 2.0]), 0.4, 3.5
    rows, cols = np.mgrid[:96, :160]
    intrinsics = np.array([[140.0, 0, 79.5], [0, 140.0, 47.5], [0, 0, 1]])
    rays = np.stack([(cols - 79.5) / 140, (rows - 47.5) / 140, np.ones(rows.shape)], axis=-1)

    def first_hit(towards: np.ndarray) -> np.ndarray:
        """Return the depth of the first surface on rays (..., 3) of depth 1 from the camera."""
        along, square = towards @ centre, (towards**2).sum(axis=-1)
        inside = along**2 - square * (centre @ centre - radius**2)
        ball = (along - np.sqrt(np.maximum(inside, 0))) / square
        return np.where(inside > 0, ball, wall_m)

    rng = np.random.default_rng(0)
    on_ball = rng.normal(size=(1500, 3))
    on_ball = centre + radius * on_ball / np.linalg.norm(on_ball, axis=1, keepdims=True)
    on_wall = np.stack([*rng.uniform(-1, 1, (2, 3000)), np.full(3000, wall_m)], axis=1)
    xyz = np.concatenate([on_ball, on_wall])
    exact = np.abs(first_hit(xyz / xyz[:, 2:]) - xyz[:, 2]) < 1e-6
    camera = replace(RGBD, width_px=320, height_px=192, intrinsics=intrinsics, depth=DepthMap("", intrinsics))
    pairs = pair_points(xyz, (camera,), (192, 320), 0.1)
    found = visible_in_depth_maps(xyz, (camera,), pairs, [first_hit(rays).astype(np.float32)], (0.05, 0.0))
    assert 500 < (~exact[pairs.point]).sum() < 2500
    # A depth picture has one depth for a pixel: only within a pixel of the ball's edge may they differ.
    ball_edge = np.abs(np.hypot(*(xyz[:, :2] / xyz[:, 2:] - centre[:2] / centre[2]).T) - radius / 2) < 0.03
    sure = ~ball_edge[pairs.point]
    np.testing.assert_array_equal(found[sure], exact[pairs.point][sure])
    assert (found == exact[pairs.point]).mean() > 0.97


# The stages


class Room(Adapter):
    """One point on a wall and one behind it, seen by two cameras at one place, and a depth picture of the wall."""

    taxonomy_name = "nuscenes16"
    depth = np.full((25, 41), 4000, np.uint16)

    def scenes(self, split: str, version: str | None) -> list[Scene]:
        sized = replace(RGBD, intrinsics=np.array([[80.0, 0, 52], [0, 80.0, 28], [0, 0, 1]]))
        return [Scene("room", (Sample("s0", "room", "", (replace(sized, depth=None), sized)),))]

    def read_cloud(self, sample: Sample) -> Cloud:
        return Cloud(np.array([[0, 0, 4], [0, 0, 9], [0, 0, 0.5]], np.float32), np.zeros(3, np.float32))

    def read_point_truth(self, sample: Sample, points: int) -> np.ndarray:
        return np.zeros(points, np.uint8)

    def picture_bytes(self, camera: Camera) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (camera.width_px, camera.height_px), "grey").save(file, "png")
        return file.getvalue()

    def depth_bytes(self, camera: Camera) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self.depth).save(file, "png")
        return file.getvalue()


@pytest.fixture
def room(tmp_path: Path) -> Callable[..., ShardInputs]:
    """Return a function that gives the inputs of the room's shard under a rule of visibility."""

    def inputs(rule: str, cameras: slice = slice(None)) -> ShardInputs:
        adapter = Room(tmp_path)
        config = load_config("nuscenes", teachers="untrained", overrides=[f"points.visibility={rule}"])
        (sample,) = adapter.scenes("all", None)[0].samples
        sample = replace(sample, cameras=sample.cameras[cameras])
        return ShardInputs(
            resolve(config, adapter), adapter, [sample], Cache(str(tmp_path / "c.zarr"), "a"), "room-000"
        )

    return inputs


def test_the_stage_stores_depth_and_visibility_only_under_a_rule(room: Callable[..., ShardInputs]) -> None:
    plain = PAIRS.build(room("none"))
    assert list(plain) == ["point", "image", "row", "col", "offsets"]
    assert plain["point"].tolist() == [0, 1, 0, 1]
    for rule, cameras in (("zbuffer", slice(None)), ("slic", slice(None)), ("depth_map", slice(1, 2))):
        told = PAIRS.build(room(rule, cameras))
        count = len(told["point"])
        assert told["depth"].tolist() == [4, 9, 4, 9][:count] and told["depth"].dtype == np.float32
        assert told["visible"].tolist() == [1, 0, 1, 0][:count] and told["visible"].dtype == np.uint8
        check_arrays(GroupPath("room-000", "pairs"), told)


def test_a_missing_or_broken_depth_picture_is_one_error(room: Callable[..., ShardInputs]) -> None:
    with pytest.raises(DatasetError, match="front of sample s0 has no depth picture; choose points"):
        PAIRS.build(room("depth_map"))
    inputs = room("depth_map", slice(1, 2))
    inputs.adapter.depth = np.zeros((25, 41), np.uint8)
    with pytest.raises(BadSamplesError, match="mode L, but depth has one channel of 16 bits"):
        PAIRS.build(inputs)


def test_depth_pictures_shape_the_fingerprint_of_the_pairs(room: Callable[..., ShardInputs]) -> None:
    def raw(cameras: slice, size: int) -> object:
        return PAIRS.raw_inputs(room("none", cameras).samples, lambda paths: dict.fromkeys(paths, size))

    assert raw(slice(1, 2), 7) != raw(slice(1, 2), 8)
    assert raw(slice(0, 1), 7) == raw(slice(0, 1), 8) == calibrations(room("none", slice(0, 1)).samples)


def test_points_take_labels_from_visible_pairs_only(room: Callable[..., ShardInputs]) -> None:
    inputs = room("zbuffer")
    cache = create_toy_cache(inputs.cache.url, toy_manifest(), embedding_size=4)
    logits = np.zeros((2, 3, 1, 1), np.float16)
    logits[0, 1], logits[1, 2] = 0.5, 0.9  # the first image shows class 1, the second class 2 with a higher score
    pairs = {"point": np.array([0, 0, 1], np.int32), "image": np.array([0, 1, 1], np.uint16)}
    pairs |= {"row": np.zeros(3, np.uint16), "col": np.zeros(3, np.uint16), "offsets": np.array([0, 3])}

    def labels(**more: np.ndarray) -> list[list[int]]:
        groups = {
            "clip": {"logits": logits},
            "sam": {"mask_ids": np.zeros((2, 4, 6), np.uint16), "features": np.zeros((2, 1, 2, 4), np.float16)},
            "points": {"xyz": np.zeros((2, 3), np.float32), "intensity": np.zeros(2, np.float32)},
            "pairs": pairs | more,
        }
        groups["points"]["offsets"] = np.array([0, 2])
        for name, arrays in groups.items():
            cache.write_group(GroupPath("room-000", name), arrays, Provenance("f"))
        made = LABELS.build(inputs)
        return [made["point_raw"].tolist(), made["point"].tolist()]

    assert labels() == [[2, 2], [2, 2]]
    assert labels(visible=np.array([1, 0, 0], np.uint8)) == [[1, 255], [1, 255]]
