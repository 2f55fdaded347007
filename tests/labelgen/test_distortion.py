"""Distorted lenses: pixels against OpenCV called directly and against the formulas, and where a lens model ends."""

import math

import cv2
import numpy as np
import pytest

from labelgen.distortion import check_distortion, distorted_pixels, largest_slope
from labelgen.geometry import pair_points
from labelgen.samples import Camera, Distortion, Sample
from labelgen.stages.raw_files import calibrations

INTRINSICS = np.array([[420.0, 0.0, 318.5], [0.0, 410.0, 242.25], [0.0, 0.0, 1.0]])
PINHOLE = (-0.28, 0.07, 0.0011, -0.0007, -0.006, 0.02, -0.01, 0.003, 0.0012, -0.0004, -0.0009, 0.0005, 0.03, -0.02)
"""k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 tilt_x tilt_y, in OpenCV's order."""

FISHEYE = (-0.02, 0.008, -0.003, 0.0004)
LENSES = [*(Distortion("pinhole", PINHOLE[:count]) for count in (4, 5, 8, 12, 14)), Distortion("fisheye", FISHEYE)]
names = [f"{lens.model}-{len(lens.coefficients)}" for lens in LENSES]


def cloud(points: int = 4000) -> np.ndarray:
    """Return points (3, P) in front of a camera, up to 35 degrees from its axis."""
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 60, points)
    return np.stack([rng.uniform(-0.6, 0.6, points) * depth, rng.uniform(-0.4, 0.4, points) * depth, depth])


def by_opencv(points: np.ndarray, lens: Distortion) -> np.ndarray:
    """Return the pixels (2, P) that OpenCV's function gives for the camera matrix itself."""
    project = cv2.fisheye.projectPoints if lens.model == "fisheye" else cv2.projectPoints
    rows = np.ascontiguousarray(points.T)[:, None]
    found, _ = project(rows, np.zeros(3), np.zeros(3), INTRINSICS, np.array(lens.coefficients))
    return np.asarray(found)[:, 0].T


def by_formula(point: np.ndarray, lens: Distortion) -> tuple[float, float]:
    """Return the pixel of one point by the formulas in OpenCV's documentation, in plain Python."""
    x, y = point[0] / point[2], point[1] / point[2]
    if lens.model == "fisheye":
        r = math.hypot(x, y)
        theta = math.atan(r)
        bent = theta + sum(k * theta ** (2 * power + 3) for power, k in enumerate(lens.coefficients))
        x, y = x * bent / r, y * bent / r
    else:
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, tilt_x, tilt_y = lens.coefficients + (0.0,) * (
            14 - len(lens.coefficients)
        )
        t = x * x + y * y
        radial = (1 + k1 * t + k2 * t**2 + k3 * t**3) / (1 + k4 * t + k5 * t**2 + k6 * t**3)
        x, y = (
            x * radial + 2 * p1 * x * y + p2 * (t + 2 * x * x) + s1 * t + s2 * t**2,
            y * radial + p1 * (t + 2 * y * y) + 2 * p2 * x * y + s3 * t + s4 * t**2,
        )
        about_x = np.array(
            [[1, 0, 0], [0, math.cos(tilt_x), math.sin(tilt_x)], [0, -math.sin(tilt_x), math.cos(tilt_x)]]
        )
        about_y = np.array(
            [[math.cos(tilt_y), 0, -math.sin(tilt_y)], [0, 1, 0], [math.sin(tilt_y), 0, math.cos(tilt_y)]]
        )
        turn = about_y @ about_x
        level = np.array([[turn[2, 2], 0, -turn[0, 2]], [0, turn[2, 2], -turn[1, 2]], [0, 0, 1]])
        across, down, depth = level @ turn @ [x, y, 1]
        x, y = across / depth, down / depth
    return INTRINSICS[0, 0] * x + INTRINSICS[0, 2], INTRINSICS[1, 1] * y + INTRINSICS[1, 2]


@pytest.mark.parametrize("lens", LENSES, ids=names)
def test_pixels_equal_those_of_opencv_and_of_the_formula(lens: Distortion) -> None:
    points = cloud()
    found = np.stack(distorted_pixels(points, INTRINSICS, lens))
    straight = INTRINSICS[:2] @ (points / points[2])
    assert np.abs(found - straight).max() > 5, "a lens that bends nothing would test nothing"
    np.testing.assert_allclose(found, by_opencv(points, lens), atol=1e-6)
    expected = [by_formula(point, lens) for point in points[:, :300].T]
    np.testing.assert_allclose(found[:, :300].T, expected, atol=1e-6)


def test_skewed_pixels_are_those_of_the_camera_matrix() -> None:
    skewed = INTRINSICS + np.array([[0, 7.0, 0], [0, 0, 0], [0, 0, 0]])
    lens = Distortion("pinhole", PINHOLE[:5])
    u, v = distorted_pixels(cloud(), INTRINSICS, lens)
    skewed_u, skewed_v = distorted_pixels(cloud(), skewed, lens)
    np.testing.assert_allclose(skewed_u, u + 7 * (v - INTRINSICS[1, 2]) / INTRINSICS[1, 1], atol=1e-9)
    np.testing.assert_array_equal(skewed_v, v)


# Where a model ends


def test_the_end_of_a_barrel_lens_by_hand() -> None:
    # d/dr (r - 0.3 r^3) = 1 - 0.9 r^2 is 0 at r = sqrt(1 / 0.9).
    assert largest_slope(Distortion("pinhole", (-0.3, 0, 0, 0))) == pytest.approx(math.sqrt(1 / 0.9), rel=1e-12)
    # The denominator 1 - 0.25 r^2 is 0 at r = 2.
    assert largest_slope(Distortion("pinhole", (0, 0, 0, 0, 0, -0.25, 0, 0))) == pytest.approx(2, rel=1e-12)
    # d/dr (r - 3 * 0.01 r^2) = 1 - 0.06 r: a tangential coefficient alone folds points at 86.6 degrees.
    assert largest_slope(Distortion("pinhole", (0, 0, 0, -0.01))) == pytest.approx(1 / 0.06, rel=1e-12)
    # d/dtheta (theta - 0.5 theta^3) = 1 - 1.5 theta^2.
    assert largest_slope(Distortion("fisheye", (-0.5, 0, 0, 0))) == pytest.approx(
        math.tan(math.sqrt(1 / 1.5)), rel=1e-12
    )


@pytest.mark.parametrize(
    "lens",
    [
        Distortion("pinhole", (0.1, 0.05, 0, 0)),
        Distortion("pinhole", (0.0, 0, 0, 0)),
        Distortion("pinhole", (1.0, 0, 0, 0, 0, 1.0, 0, 0)),
        Distortion("fisheye", (0, 0, 0, 0)),
        Distortion("fisheye", (-0.05, 0, 0, 0)),
    ],
)
def test_lenses_whose_radius_always_grows_have_no_end(lens: Distortion) -> None:
    assert largest_slope(lens) == math.inf


@pytest.mark.parametrize("seed", range(30))
def test_up_to_the_end_the_radius_grows_and_just_beyond_it_shrinks(seed: int) -> None:
    """Follow rays away from the axis in small steps, and find where OpenCV's radius first shrinks."""
    rng = np.random.default_rng(seed)
    radial = rng.normal(0, (0.4, 0.2, 0.1, 0.2, 0.1, 0.02))
    lens = Distortion("pinhole", (radial[0], radial[1], 0.0, 0.0, *radial[2:]))
    r = np.linspace(0, 8, 80_001)[1:]
    found = by_opencv(np.stack([r, np.zeros_like(r), np.ones_like(r)]), lens)[0]
    shrinks = np.flatnonzero(np.diff(found, prepend=INTRINSICS[0, 2]) < 0)
    end = largest_slope(lens)
    if shrinks.size:
        assert end == pytest.approx(r[shrinks[0]], abs=2e-4)
    else:
        assert end > 7.9


def test_a_ray_that_opencv_folds_back_into_the_picture_has_no_pixel() -> None:
    lens = Distortion("pinhole", (-0.3, 0.0, 0.0, 0.0))
    # Slope 1.8 is beyond the end at 1.05: OpenCV says 1.8 - 0.3 * 1.8^3 = 0.05, close to the middle of the picture.
    folded, seen = np.array([1.8, 0.0, 1.0]) * 5, np.array([0.4, 0.0, 1.0]) * 5
    assert by_opencv(folded[:, None], lens)[0] == pytest.approx(318.5 + 420 * (1.8 - 0.3 * 1.8**3))
    u, v = distorted_pixels(np.stack([folded, seen], axis=1), INTRINSICS, lens)
    assert np.isnan(u).tolist() == np.isnan(v).tolist() == [True, False]
    camera = Camera("front", "front.jpg", 640, 480, INTRINSICS, np.eye(4), distortion=lens)
    pairs = pair_points(np.stack([folded, seen]), [camera], (480, 640), 1.0)
    assert pairs.point.tolist() == [1]
    assert pairs.col.tolist() == [round(318.5 + 420 * (0.4 - 0.3 * 0.4**3))]


def test_a_ray_that_a_fisheye_folds_back_has_no_pixel() -> None:
    lens = Distortion("fisheye", (-0.4, 0.0, 0.0, 0.0))
    # The end is at theta = sqrt(1 / 1.2) = 52.3 degrees; at 85 degrees the model gives a radius of 0.18.
    folded = np.array([math.tan(math.radians(85)), 0.0, 1.0]) * 3
    assert by_opencv(folded[:, None], lens)[0] < 640
    u, _ = distorted_pixels(folded[:, None], INTRINSICS, lens)
    assert np.isnan(u).all()


def test_a_ray_that_misses_a_tilted_sensor_has_no_pixel() -> None:
    lens = Distortion("pinhole", (0.0,) * 12 + (0.0, 0.6))
    # Depth on the sensor: sin(0.6) x + cos(0.6), which is 0 at x = -1.46.
    u, _ = distorted_pixels(np.array([[-1.6, -1.3], [0, 0], [1, 1]]), INTRINSICS, lens)
    assert np.isnan(u).tolist() == [True, False]


# Pairs, fingerprints, and coefficients that are none


@pytest.mark.parametrize("lens", [LENSES[1], LENSES[-1]], ids=["pinhole", "fisheye"])
def test_pairs_of_a_distorted_camera_lie_where_opencv_puts_them(lens: Distortion) -> None:
    cam_from_cloud = np.array([[0.0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, -0.3], [0, 0, 0, 1]])
    points = cloud()[[2, 0, 1]].T  # x ahead, as a lidar has it
    camera = Camera("front", "front.jpg", 640, 480, INTRINSICS, cam_from_cloud, distortion=lens)
    pairs = pair_points(points, [camera], (240, 320), 1.0)
    in_camera = cam_from_cloud[:3, :3] @ points.T + cam_from_cloud[:3, 3:]
    u, v = by_opencv(in_camera, lens)
    inside = (in_camera[2] > 1) & (u > 1) & (u < 639) & (v > 1) & (v < 479)
    assert pairs.point.tolist() == np.flatnonzero(inside).tolist()
    assert 1000 < len(pairs.point) < 4000
    np.testing.assert_allclose(pairs.col, (u[inside] + 0.5) / 2 - 0.5, atol=0.5 + 1e-6)
    np.testing.assert_allclose(pairs.row, (v[inside] + 0.5) / 2 - 0.5, atol=0.5 + 1e-6)


def test_only_a_distorted_lens_enters_the_fingerprints() -> None:
    plain = Camera("front", "front.jpg", 640, 480, INTRINSICS, np.eye(4))
    bent = Camera("front", "front.jpg", 640, 480, INTRINSICS, np.eye(4), distortion=Distortion("fisheye", FISHEYE))
    found = calibrations([Sample("a", "s", None, (plain, bent))])
    before = [640, 480, INTRINSICS.tolist(), np.eye(4).tolist()]
    assert found == [[before, [*before, ["fisheye", list(FISHEYE)]]]]


@pytest.mark.parametrize(
    "lens, message",
    [
        (Distortion("pinhole", (0.1, 0.2)), "2 coefficients, the pinhole model has 4 or 5 or 8 or 12 or 14"),
        (Distortion("fisheye", (0.1,) * 5), "5 coefficients, the fisheye model has 4"),
        (Distortion("fisheye", (0.1, math.nan, 0, 0)), "nan.*not finite"),
    ],
)
def test_coefficients_that_fit_no_model_are_quoted(lens: Distortion, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_distortion(lens)
