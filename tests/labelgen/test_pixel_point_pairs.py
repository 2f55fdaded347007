"""Pixel-point pairs: limits of depth and border, rounding, order, and a point-by-point loop."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from labelgen.geometry import pair_points, rigid_from_quaternion
from labelgen.samples import Camera

QUATERNIONS = (
    st.tuples(*[st.floats(-1, 1)] * 4)
    .filter(lambda q: math.hypot(*q) > 0.1)
    .map(lambda q: [value / math.hypot(*q) for value in q])
)


def camera(
    intrinsics: list[list[float]], size: tuple[int, int] = (48, 64), cam_from_cloud: np.ndarray | None = None
) -> Camera:
    """Return a camera of `size` (height, width); by default the cloud frame is the camera frame."""
    transform = np.eye(4) if cam_from_cloud is None else cam_from_cloud
    return Camera("front", "front.jpg", size[1], size[0], np.array(intrinsics), transform)


# Focal length 64 and depth 4 make u = 16 x + 32 and v = 16 y + 24 exact in binary.
EXACT = [[64.0, 0.0, 32.0], [0.0, 64.0, 24.0], [0.0, 0.0, 1.0]]


def at_pixel(u: float, v: float, depth: float = 4.0) -> list[float]:
    """Return the point that the camera of `EXACT` sees at (u, v)."""
    return [(u - 32) * depth / 64, (v - 24) * depth / 64, depth]


def pair_rows(
    points: list[list[float]], cameras: list[Camera], size: tuple[int, int], min_depth_m: float = 1.0
) -> list:
    pairs = pair_points(np.array(points), cameras, size, min_depth_m)
    return list(zip(pairs.point.tolist(), pairs.image.tolist(), pairs.row.tolist(), pairs.col.tolist(), strict=True))


@pytest.mark.parametrize(
    "depth, paired", [(1.0, False), (1.0001, True), (0.5, False), (0.0, False), (-4.0, False), (500.0, True)]
)
def test_points_pair_only_beyond_the_depth_limit(depth: float, paired: bool) -> None:
    assert pair_rows([[0.0, 0.0, depth]], [camera(EXACT)], (48, 64)) == ([(0, 0, 24, 32)] if paired else [])


def test_the_depth_limit_can_be_set() -> None:
    points = [[0.0, 0.0, 2.0], [0.0, 0.0, 3.0]]
    assert pair_rows(points, [camera(EXACT)], (48, 64), min_depth_m=2.5) == [(1, 0, 24, 32)]
    assert len(pair_rows(points, [camera(EXACT)], (48, 64), min_depth_m=0.0)) == 2


@pytest.mark.parametrize(
    "u, v, paired",
    [
        *((1.0, 24.0, False), (1.0625, 24.0, True), (0.5, 24.0, False), (-3.0, 24.0, False)),
        *((63.0, 24.0, False), (62.9375, 24.0, True), (63.5, 24.0, False), (70.0, 24.0, False)),
        *((32.0, 1.0, False), (32.0, 1.0625, True), (32.0, 47.0, False), (32.0, 46.9375, True)),
    ],
)
def test_points_pair_only_more_than_a_pixel_inside_the_image(u: float, v: float, paired: bool) -> None:
    found = pair_rows([at_pixel(u, v)], [camera(EXACT)], (48, 64))
    assert found == ([(0, 0, round(v), round(u))] if paired else [])


def test_pixels_are_rounded_to_the_nearest() -> None:
    points = [at_pixel(10.375, 20.625), at_pixel(10.625, 20.375)]
    assert pair_rows(points, [camera(EXACT)], (48, 64)) == [(0, 0, 21, 10), (1, 0, 20, 11)]


def test_pixels_are_those_of_the_training_size() -> None:
    # Half the size: u' = u / 2 - 0.25, so 10 -> 4.75 -> 5, 9 -> 4.25 -> 4; v likewise.
    points = [at_pixel(10, 9), at_pixel(9, 10), at_pixel(62.9375, 46.9375), at_pixel(1.0625, 1.0625)]
    assert pair_rows(points, [camera(EXACT)], (24, 32)) == [(0, 0, 4, 5), (1, 0, 5, 4), (2, 0, 23, 31), (3, 0, 0, 0)]
    # A size that changes the aspect: rows to a third, u' = (u + 0.5) / 3 - 0.5; columns twice as many.
    assert pair_rows([at_pixel(10, 9)], [camera(EXACT)], (16, 128)) == [(0, 0, 3, 20)]


def test_pairs_come_by_image_then_point_and_a_point_may_have_several() -> None:
    shifted = np.eye(4)
    shifted[0, 3] = 1.0  # points are one metre further right in this camera's frame: 16 pixels at depth 4
    cameras = [camera(EXACT), camera(EXACT, cam_from_cloud=shifted)]
    points = [at_pixel(40, 10), at_pixel(-8, 10), at_pixel(55, 11), at_pixel(20, 12)]
    assert pair_rows(points, cameras, (48, 64)) == [
        *((0, 0, 10, 40), (2, 0, 11, 55), (3, 0, 12, 20)),
        *((0, 1, 10, 56), (1, 1, 10, 8), (3, 1, 12, 36)),
    ]


def test_a_point_behind_another_is_paired_too() -> None:
    points = [at_pixel(40, 10, depth=4), at_pixel(40, 10, depth=32)]
    assert pair_rows(points, [camera(EXACT)], (48, 64)) == [(0, 0, 10, 40), (1, 0, 10, 40)]


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.array([[0.0, 0.0, -5.0], [900.0, 0.0, 4.0]])])
def test_without_pairs_the_columns_are_empty_and_keep_their_dtypes(points: np.ndarray) -> None:
    pairs = pair_points(points, [camera(EXACT), camera(EXACT)], (48, 64), 1.0)
    found = [(column.shape, column.dtype.name) for column in (pairs.point, pairs.image, pairs.row, pairs.col)]
    assert found == [((0,), "int32"), ((0,), "uint16"), ((0,), "uint16"), ((0,), "uint16")]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(*[st.floats(-6, 6)] * 3), max_size=12),
    QUATERNIONS,
    st.sampled_from([(48, 64), (24, 32), (16, 52), (96, 150)]),
)
def test_pairs_equal_a_point_by_point_loop(
    points: list[tuple[float, float, float]], wxyz: list[float], size: tuple[int, int]
) -> None:
    transform = rigid_from_quaternion(np.array(wxyz), np.array([0.5, -0.25, 2.0]))
    cameras = [camera(EXACT), camera([[30.0, 0, 35.0], [0, 40.0, 20.0], [0, 0, 1]], cam_from_cloud=transform)]
    expected = []
    for image, entry in enumerate(cameras):
        for point, xyz in enumerate(points):
            x, y, z = (
                sum(float(entry.cam_from_cloud[i, j]) * xyz[j] for j in range(3)) + float(entry.cam_from_cloud[i, 3])
                for i in range(3)
            )
            assume(abs(z - 1) > 1e-9)  # the limits themselves are tested above, in numbers exact in binary
            if z < 1:
                continue
            u = entry.intrinsics[0, 0] * x / z + entry.intrinsics[0, 2]
            v = entry.intrinsics[1, 1] * y / z + entry.intrinsics[1, 2]
            assume(min(abs(u - 1), abs(u - 63), abs(v - 1), abs(v - 47)) > 1e-9)
            if 1 < u < 63 and 1 < v < 47:
                row, col = (v + 0.5) * size[0] / 48 - 0.5, (u + 0.5) * size[1] / 64 - 0.5
                expected.append((point, image, row, col))
    pairs = pair_points(np.array(points).reshape(-1, 3), cameras, size, 1.0)
    assert list(zip(pairs.point, pairs.image, strict=True)) == [(point, image) for point, image, _, _ in expected]
    for found_row, found_col, (_, _, row, col) in zip(pairs.row, pairs.col, expected, strict=True):
        assert abs(int(found_row) - row) <= 0.5 + 1e-9 and abs(int(found_col) - col) <= 0.5 + 1e-9
        assert found_row < size[0] and found_col < size[1]
