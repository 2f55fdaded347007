"""Visibility of pairs: cases by hand for the z-buffer, and depth pictures against exact geometry."""

from dataclasses import replace

import numpy as np
import pytest

from labelgen.geometry import Pairs, pair_points
from labelgen.samples import Camera, DepthMap
from labelgen.visibility import visible_in_depth_maps, visible_in_zbuffer, visible_pairs

SIZE = (56, 104)
FOCAL_PX = 80.0
CAMERA = Camera("front", "front.jpg", 104, 56, np.array([[FOCAL_PX, 0, 52], [0, FOCAL_PX, 28], [0, 0, 1.0]]), np.eye(4))
MARGIN = (0.5, 0.05)


def seen(xyz: list[list[float]] | np.ndarray, cameras: tuple[Camera, ...] = (CAMERA,)) -> list[bool]:
    """Return which pairs of a cloud the z-buffer calls visible; the cloud frame is the camera frame."""
    pairs = pair_points(np.array(xyz, np.float64).reshape(-1, 3), cameras, SIZE, 1.0)
    return visible_in_zbuffer(pairs, SIZE, MARGIN).tolist()


def wall(depth: float, low: tuple[float, float], high: tuple[float, float], step: float = 0.1) -> np.ndarray:
    """Return points of a wall across the view from corner `low` (x, y) to corner `high`, `step` metres apart."""
    x, y = np.meshgrid(np.arange(low[0], high[0], step), np.arange(low[1], high[1], step))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, depth)], axis=1)


def test_a_wall_hides_the_point_behind_it_and_not_the_one_beside_it() -> None:
    front = wall(4.0, (-1, -0.5), (1, 0.5))
    behind, beside = [0.0, 0.0, 9.0], [5.0, 0.0, 9.0]
    assert seen([*front.tolist(), behind, beside]) == [True] * len(front) + [False, True]


def test_a_point_less_than_the_margin_behind_another_is_visible() -> None:
    # At a depth of 4 m the margin is 0.5 m; at 20 m it is 5 % = 1 m.
    assert seen([[0, 0, 4.0], [0, 0, 4.49]]) == [True, True]
    assert seen([[0, 0, 4.0], [0, 0, 4.51]]) == [True, False]
    assert seen([[0, 0, 19.1], [0, 0, 20.0]]) == [True, True]
    assert seen([[0, 0, 18.9], [0, 0, 20.0]]) == [True, False]


def test_each_camera_has_its_own_view() -> None:
    aside = np.eye(4)
    aside[0, 3] = 2.0  # this camera stands 2 m to the left, where the near point does not cover the far one
    cameras = (CAMERA, replace(CAMERA, cam_from_cloud=aside))
    assert seen([[0, 0, 4.0], [0, 0, 9.0]], cameras) == [True, False, True, True]


@pytest.mark.parametrize("points", [[], [[0.0, 0.0, 5.0]]])
def test_clouds_of_no_point_and_of_one(points: list[list[float]]) -> None:
    assert seen(points) == [True] * len(points)


def test_visible_pairs_are_the_rows_that_the_cache_calls_visible() -> None:
    pairs = {"point": np.array([4, 5, 6]), "row": np.array([1, 2, 3]), "offsets": np.array([0, 3])}
    assert {name: rows.tolist() for name, rows in visible_pairs(pairs).items()} == {
        "point": [4, 5, 6],
        "row": [1, 2, 3],
    }
    told = visible_pairs(pairs | {"visible": np.array([1, 0, 1], np.uint8)})
    assert told["point"].tolist() == [4, 6] and told["row"].tolist() == [1, 3]


# Depth pictures


DEPTH_INTRINSICS = np.array([[40.0, 0, 20], [0, 40.0, 12], [0, 0, 1.0]])
RGBD = replace(CAMERA, depth=DepthMap("front.png", DEPTH_INTRINSICS))


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
