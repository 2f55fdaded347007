"""Rigid transforms, projection, and intrinsics of resized images."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labelgen.geometry import (
    check_intrinsics,
    invert_rigid,
    project,
    rigid_from_quaternion,
    scale_intrinsics,
)

ANGLES = st.floats(-2 * math.pi, 2 * math.pi)
METRES = st.floats(-2000, 2000)
QUATERNIONS = (
    st.tuples(*[st.floats(-1, 1)] * 4)
    .filter(lambda q: math.hypot(*q) > 0.1)
    .map(lambda q: [value / math.hypot(*q) for value in q])
)
STILL = np.zeros(3)


EXACT = [[64.0, 0.0, 32.0], [0.0, 64.0, 24.0], [0.0, 0.0, 1.0]]


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
    "wxyz, translation, message",
    [
        ([1.002, 0, 0, 0], [0, 0, 0], r"\[1.002, 0.0, 0.0, 0.0\] is not a unit quaternion"),
        ([0, 0, 0, 0], [0, 0, 0], r"\[0.0, 0.0, 0.0, 0.0\] is not a unit quaternion"),
        ([math.nan, 0, 0, 0], [0, 0, 0], "nan.*is not finite"),
        ([1, 0, 0, 0], [0, math.inf, 0], "inf.*is not finite"),
        ([1, 0, 0, 0], [0, math.nan, 0], "nan.*is not finite"),
    ],
)
def test_numbers_that_make_no_rigid_transform_are_quoted(wxyz: list, translation: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rigid_from_quaternion(np.array(wxyz), np.array(translation))


# Intrinsics


def test_a_pinhole_camera_is_accepted() -> None:
    check_intrinsics(np.array([[1266.4, 0, 816.3], [0, 1266.4, 491.5], [0, 0, 1]]))


@pytest.mark.parametrize(
    "matrix, message",
    [
        ([[0, 0, 5], [0, 9, 5], [0, 0, 1]], "singular"),
        ([[9, 0, 5], [0, -9, 5], [0, 0, 1]], "singular or not a pinhole"),
        ([[9, 0, 5], [0, 9, 5], [0, 0, 2]], "not a pinhole"),
        ([[9, 0, math.nan], [0, 9, 5], [0, 0, 1]], "not a finite 3x3"),
        ([[9, 0], [0, 9]], "not a finite 3x3"),
        ([], "not a finite 3x3"),
    ],
)
def test_matrices_that_are_no_pinhole_camera_are_refused(matrix: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_intrinsics(np.array(matrix, np.float64))


@pytest.mark.parametrize("target", [(224, 416), (450, 800), (900, 1600), (90, 320)])
def test_scaled_intrinsics_see_what_the_resized_image_shows(target: tuple[int, int]) -> None:
    """Resize images whose pixel values are their positions; each pixel's new ray must hit the place that it shows."""
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


def test_halving_an_image_by_hand() -> None:
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
