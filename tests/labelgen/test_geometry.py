"""Rigid transforms, projection, intrinsics of resized pictures, and pixel-point pairs."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from labelgen.geometry import (
    check_intrinsics,
    invert_rigid,
    pair_points,
    project,
    rigid_from_quaternion,
    scale_intrinsics,
)
from labelgen.samples import Camera

ANGLES = st.floats(-2 * math.pi, 2 * math.pi)
METRES = st.floats(-2000, 2000)
QUATERNIONS = (
    st.tuples(*[st.floats(-1, 1)] * 4)
    .filter(lambda q: math.hypot(*q) > 0.1)
    .map(lambda q: [value / math.hypot(*q) for value in q])
)
STILL = np.zeros(3)


def camera(
    intrinsics: list[list[float]], size: tuple[int, int] = (48, 64), cam_from_cloud: np.ndarray | None = None
) -> Camera:
    """Return a camera of `size` (height, width); cloud and camera frame are one unless told."""
    transform = np.eye(4) if cam_from_cloud is None else cam_from_cloud
    return Camera("front", "front.jpg", size[1], size[0], np.array(intrinsics), transform)


# Focal length 64 and depth 4 make u = 16 x + 32 and v = 16 y + 24 exact in binary.
EXACT = [[64.0, 0.0, 32.0], [0.0, 64.0, 24.0], [0.0, 0.0, 1.0]]


def at_pixel(u: float, v: float, depth: float = 4.0) -> list[float]:
    """Return the point that the camera of `EXACT` sees at (u, v)."""
    return [(u - 32) * depth / 64, (v - 24) * depth / 64, depth]


# Rigid transforms


@given(ANGLES)
def test_quaternions_about_the_axes_are_the_textbook_rotations(angle: float) -> None:
    c, s = math.cos(angle), math.sin(angle)
    half_c, half_s = math.cos(angle / 2), math.sin(angle / 2)
    textbook = {
        (half_c, half_s, 0.0, 0.0): [[1, 0, 0], [0, c, -s], [0, s, c]],
        (half_c, 0.0, half_s, 0.0): [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        (half_c, 0.0, 0.0, half_s): [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    for wxyz, matrix in textbook.items():
        found = rigid_from_quaternion(np.array(wxyz), STILL)
        np.testing.assert_allclose(found[:3, :3], matrix, atol=1e-12)


def test_a_third_of_a_turn_about_the_diagonal_moves_each_axis_to_the_next() -> None:
    found = rigid_from_quaternion(np.array([0.5, 0.5, 0.5, 0.5]), np.array([10.0, 20.0, 30.0]))
    assert found.tolist() == [[0, 0, 1, 10], [1, 0, 0, 20], [0, 1, 0, 30], [0, 0, 0, 1]]


@given(QUATERNIONS, st.tuples(METRES, METRES, METRES))
def test_transforms_keep_lengths_and_handedness(wxyz: list[float], translation: tuple[float, ...]) -> None:
    transform = rigid_from_quaternion(np.array(wxyz), np.array(translation))
    rotation = transform[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert transform[:3, 3].tolist() == list(translation)
    assert transform[3].tolist() == [0, 0, 0, 1]


@given(QUATERNIONS)
def test_a_quaternion_and_its_negative_are_one_rotation(wxyz: list[float]) -> None:
    np.testing.assert_array_equal(
        rigid_from_quaternion(np.array(wxyz), STILL), rigid_from_quaternion(-np.array(wxyz), STILL)
    )


@given(st.lists(st.tuples(QUATERNIONS, st.tuples(METRES, METRES, METRES)), min_size=1, max_size=4))
def test_inverses_undo_their_transforms_one_by_one_and_stacked(rows: list[tuple[list[float], tuple]]) -> None:
    quaternions, translations = (np.array(column) for column in zip(*rows, strict=True))
    stacked = rigid_from_quaternion(quaternions, translations)
    assert stacked.shape == (len(rows), 4, 4)
    for index, transform in enumerate(stacked):
        np.testing.assert_array_equal(transform, rigid_from_quaternion(quaternions[index], translations[index]))
        np.testing.assert_allclose(invert_rigid(transform) @ transform, np.eye(4), atol=1e-8)
        np.testing.assert_allclose(transform @ invert_rigid(stacked)[index], np.eye(4), atol=1e-8)
        np.testing.assert_allclose(invert_rigid(transform), np.linalg.inv(transform), atol=1e-8)


def test_a_quaternion_that_is_nearly_of_unit_length_is_made_so() -> None:
    quarter_turn = 1.0005 * math.sqrt(0.5) * np.array([1.0, 0.0, 0.0, 1.0])
    found = rigid_from_quaternion(quarter_turn, STILL)
    np.testing.assert_allclose(found[:3, :3], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)


@pytest.mark.parametrize(
    "wxyz, translation, said",
    [
        ([1.002, 0, 0, 0], [0, 0, 0], r"\[1.002, 0.0, 0.0, 0.0\] is not a unit quaternion"),
        ([0, 0, 0, 0], [0, 0, 0], r"\[0.0, 0.0, 0.0, 0.0\] is not a unit quaternion"),
        ([math.nan, 0, 0, 0], [0, 0, 0], "nan.*is not finite"),
        ([1, 0, 0, 0], [0, math.inf, 0], "inf.*is not finite"),
        ([1, 0, 0, 0], [0, math.nan, 0], "nan.*is not finite"),
    ],
)
def test_numbers_that_make_no_rigid_transform_are_quoted(wxyz: list, translation: list, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rigid_from_quaternion(np.array(wxyz), np.array(translation))


# Intrinsics


def test_a_pinhole_camera_is_accepted() -> None:
    check_intrinsics(np.array([[1266.4, 0, 816.3], [0, 1266.4, 491.5], [0, 0, 1]]))


@pytest.mark.parametrize(
    "matrix, said",
    [
        ([[0, 0, 5], [0, 9, 5], [0, 0, 1]], "singular"),
        ([[9, 0, 5], [0, -9, 5], [0, 0, 1]], "singular or not a pinhole"),
        ([[9, 0, 5], [0, 9, 5], [0, 0, 2]], "not a pinhole"),
        ([[9, 0, math.nan], [0, 9, 5], [0, 0, 1]], "not a finite 3x3"),
        ([[9, 0], [0, 9]], "not a finite 3x3"),
        ([], "not a finite 3x3"),
    ],
)
def test_matrices_that_are_no_pinhole_camera_are_refused(matrix: list, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_intrinsics(np.array(matrix, np.float64))


@pytest.mark.parametrize("target", [(224, 416), (450, 800), (900, 1600), (90, 320)])
def test_scaled_intrinsics_see_what_the_resized_picture_shows(target: tuple[int, int]) -> None:
    """Resize pictures whose pixels say where they are; each pixel's new ray must hit the place that it shows."""
    native = (900, 1600)
    intrinsics = np.array([[1200.0, 0, 812.0], [0, 1190.0, 488.0], [0, 0, 1]])
    scaled = scale_intrinsics(intrinsics, native, target)
    rows, cols = np.mgrid[: native[0], : native[1]].astype(np.float32)
    shown_v, shown_u = (
        np.asarray(Image.fromarray(place).resize(target[::-1], Image.Resampling.BILINEAR)) for place in (rows, cols)
    )
    for row in range(3, target[0] - 3, 7):
        for col in range(3, target[1] - 3, 11):
            ray = np.linalg.inv(scaled) @ [col, row, 1]
            u, v, w = intrinsics @ ray
            assert (u / w, v / w) == pytest.approx((shown_u[row, col], shown_v[row, col]), abs=0.1)


def test_halving_a_picture_by_hand() -> None:
    intrinsics = np.array([[100.0, 0, 50.0], [0, 80.0, 30.0], [0, 0, 1]])
    # Native pixels 0 and 1 merge into pixel 0, so u = 0.5 becomes 0, and u = 50 becomes 24.75.
    found = scale_intrinsics(intrinsics, (60, 100), (30, 50))
    assert found.tolist() == [[50, 0, 24.75], [0, 40, 14.75], [0, 0, 1]]


def test_equal_sizes_leave_intrinsics_as_they_are() -> None:
    np.testing.assert_array_equal(scale_intrinsics(np.array(EXACT), (48, 64), (48, 64)), EXACT)


# Projection


def test_projection_by_hand() -> None:
    intrinsics = np.array([[100.0, 0, 10.0], [0, 50.0, 20.0], [0, 0, 1]])
    points = np.array([[1, 2, 4], [0, 0, 7], [-1, 1, -2]], np.float32)
    uv, depth = project(points, np.eye(4), intrinsics)
    assert depth.tolist() == [4, 7, -2]
    assert uv.tolist() == [[35, 45], [10, 20], [60, -5]]
    assert uv.dtype == depth.dtype == np.float64


def test_projection_moves_points_into_the_camera_first() -> None:
    # The camera stands 3 m ahead of the lidar (its y) and looks there: x stays, y is depth, z is up.
    cam_from_cloud = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, -3], [0, 0, 0, 1]])
    uv, depth = project(np.array([[2.0, 8.0, -1.0]]), cam_from_cloud, np.array([[10.0, 0, 0], [0, 10, 0], [0, 0, 1]]))
    assert depth.tolist() == [5]
    assert uv.tolist() == [[4, 2]]


def test_points_in_the_cameras_plane_have_no_pixel_and_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        points = np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [6.0, 6.0, 5e-324]])
        uv, depth = project(points, np.eye(4), np.array(EXACT))
    assert depth.tolist() == [0, 0, 5e-324]
    assert not np.isfinite(uv).any()


# Pairs


def rows_of(points: list[list[float]], cameras: list[Camera], size: tuple[int, int], min_depth_m: float = 1.0) -> list:
    pairs = pair_points(np.array(points), cameras, size, min_depth_m)
    return list(zip(pairs.point.tolist(), pairs.image.tolist(), pairs.row.tolist(), pairs.col.tolist(), strict=True))


@pytest.mark.parametrize(
    "depth, paired", [(1.0, False), (1.0001, True), (0.5, False), (0.0, False), (-4.0, False), (500.0, True)]
)
def test_points_pair_only_beyond_the_depth_limit(depth: float, paired: bool) -> None:
    assert rows_of([[0.0, 0.0, depth]], [camera(EXACT)], (48, 64)) == ([(0, 0, 24, 32)] if paired else [])


def test_the_depth_limit_can_be_set() -> None:
    points = [[0.0, 0.0, 2.0], [0.0, 0.0, 3.0]]
    assert rows_of(points, [camera(EXACT)], (48, 64), min_depth_m=2.5) == [(1, 0, 24, 32)]
    assert len(rows_of(points, [camera(EXACT)], (48, 64), min_depth_m=0.0)) == 2


@pytest.mark.parametrize(
    "u, v, paired",
    [
        *((1.0, 24.0, False), (1.0625, 24.0, True), (0.5, 24.0, False), (-3.0, 24.0, False)),
        *((63.0, 24.0, False), (62.9375, 24.0, True), (63.5, 24.0, False), (70.0, 24.0, False)),
        *((32.0, 1.0, False), (32.0, 1.0625, True), (32.0, 47.0, False), (32.0, 46.9375, True)),
    ],
)
def test_points_pair_only_more_than_a_pixel_inside_the_picture(u: float, v: float, paired: bool) -> None:
    found = rows_of([at_pixel(u, v)], [camera(EXACT)], (48, 64))
    assert found == ([(0, 0, round(v), round(u))] if paired else [])


def test_pixels_are_rounded_to_the_nearest() -> None:
    points = [at_pixel(10.375, 20.625), at_pixel(10.625, 20.375)]
    assert rows_of(points, [camera(EXACT)], (48, 64)) == [(0, 0, 21, 10), (1, 0, 20, 11)]


def test_pixels_are_those_of_the_training_size() -> None:
    # Half the size: u' = u / 2 - 0.25, so 10 -> 4.75 -> 5, 9 -> 4.25 -> 4; v likewise.
    points = [at_pixel(10, 9), at_pixel(9, 10), at_pixel(62.9375, 46.9375), at_pixel(1.0625, 1.0625)]
    assert rows_of(points, [camera(EXACT)], (24, 32)) == [(0, 0, 4, 5), (1, 0, 5, 4), (2, 0, 23, 31), (3, 0, 0, 0)]
    # A size that changes the aspect: rows to a third, u' = (u + 0.5) / 3 - 0.5; columns twice as many.
    assert rows_of([at_pixel(10, 9)], [camera(EXACT)], (16, 128)) == [(0, 0, 3, 20)]


def test_pairs_come_by_image_then_point_and_a_point_may_have_several() -> None:
    shifted = np.eye(4)
    shifted[0, 3] = 1.0  # one metre to the right in this camera's eyes: 16 pixels at depth 4
    cameras = [camera(EXACT), camera(EXACT, cam_from_cloud=shifted)]
    points = [at_pixel(40, 10), at_pixel(-8, 10), at_pixel(55, 11), at_pixel(20, 12)]
    assert rows_of(points, cameras, (48, 64)) == [
        *((0, 0, 10, 40), (2, 0, 11, 55), (3, 0, 12, 20)),
        *((0, 1, 10, 56), (1, 1, 10, 8), (3, 1, 12, 36)),
    ]


def test_a_point_hidden_behind_another_pairs_too() -> None:
    points = [at_pixel(40, 10, depth=4), at_pixel(40, 10, depth=32)]
    assert rows_of(points, [camera(EXACT)], (48, 64)) == [(0, 0, 10, 40), (1, 0, 10, 40)]


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.array([[0.0, 0.0, -5.0], [900.0, 0.0, 4.0]])])
def test_no_pairs_at_all_are_empty_columns_of_the_right_kind(points: np.ndarray) -> None:
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
