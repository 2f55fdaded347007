"""Distorted lenses: the pinhole and the fisheye model of OpenCV, and where each of them ends.

Far from the optical axis the polynomials of a lens model leave the range in which they were fitted, and fold points
back into the picture. A model is valid up to the first radius at which the distorted radius stops growing.
"""

from itertools import pairwise

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from labelgen.samples import Distortion

Floats = NDArray[np.float64]

COEFFICIENTS = {"pinhole": (4, 5, 8, 12, 14), "fisheye": (4,)}
"""The numbers of coefficients that OpenCV's functions take, by model."""

_ALL = 14


def check_distortion(distortion: Distortion) -> None:
    """Check the number of coefficients, and that they are finite.

    Raises:
        ValueError: if they do not fit the model; the message quotes them.
    """
    counts, found = COEFFICIENTS[distortion.model], distortion.coefficients
    if len(found) not in counts:
        raise ValueError(f"{len(found)} coefficients, the {distortion.model} model has {' or '.join(map(str, counts))}")
    if not np.isfinite(found).all():
        raise ValueError(f"coefficients {list(found)} are not finite")


def distorted_pixels(points: Floats, intrinsics: Floats, distortion: Distortion) -> tuple[Floats, Floats]:
    """Project points through a distorted lens.

    Args:
        points: (3, P) in the camera frame, in metres, in front of the camera (z > 0).
        intrinsics: camera matrix (3, 3).
        distortion: the lens.

    Returns:
        Pixel coordinates u and v (P,), NaN for points beyond the valid range of the model.
    """
    valid = _slope(points) < largest_slope(distortion)
    plane = np.full((2, points.shape[1]), np.nan)
    if valid.any():
        plane[:, valid] = _distort(points[:, valid], distortion)
    u, v = intrinsics[:2, :2] @ plane + intrinsics[:2, 2:]
    return u, v


def largest_slope(distortion: Distortion) -> float:
    """Return the slope against the optical axis (radius over depth) at which the lens model stops being valid.

    The distorted radius of the pinhole model is r N(r^2) / D(r^2), with N = 1 + k1 r^2 + k2 r^4 + k3 r^6 and
    D = 1 + k4 r^2 + k5 r^4 + k6 r^6. Tangential and thin-prism coefficients take at most a r^2 + b r^4 from it, in the
    direction where they take most. The model ends where the derivative of the rest is 0, or where D is 0. The fisheye
    model ends where the derivative of theta (1 + k1 theta^2 + .. + k4 theta^8) is 0, and at 90 degrees.
    Infinite if there is no end.
    """
    r = Polynomial([0.0, 1.0])
    if distortion.model == "fisheye":
        k = distortion.coefficients
        theta = _first_root(Polynomial([0, 1, 0, k[0], 0, k[1], 0, k[2], 0, k[3]]).deriv())
        return float(np.tan(theta)) if theta < np.pi / 2 else np.inf
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, _, _ = _padded(distortion)
    above, below = Polynomial([1, 0, k1, 0, k2, 0, k3]), Polynomial([1, 0, k4, 0, k5, 0, k6])
    taken = Polynomial([0, 0, 3 * np.hypot(p1, p2) + np.hypot(s1, s3), 0, np.hypot(s2, s4)])
    growth = (r * above).deriv() * below - r * above * below.deriv() - taken.deriv() * below**2
    return min(_first_root(growth), _first_root(below))


def _slope(points: Floats) -> Floats:
    """Return the slope (P,) of points (3, P) in front of the camera against the optical axis."""
    slope: Floats = np.hypot(points[0], points[1]) / points[2]
    return slope


def _distort(points: Floats, distortion: Distortion) -> Floats:
    """Return where the rays to points (3, P) meet the plane at distance 1 behind the lens: x, y (2, P).

    A tilted sensor is a plane through which the rays of one half space pass; others get NaN.
    """
    import cv2

    rays = np.ascontiguousarray((points / points[2]).T)[:, None]
    still, plain = np.zeros(3), np.eye(3)
    coefficients = np.array(distortion.coefficients)
    if distortion.model == "fisheye":
        found, _ = cv2.fisheye.projectPoints(rays, still, still, plain, coefficients)
        return np.asarray(found, np.float64)[:, 0].T
    found, _ = cv2.projectPoints(rays, still, still, plain, coefficients)
    plane = np.asarray(found, np.float64)[:, 0].T
    if coefficients[12:].any():
        upright, _ = cv2.projectPoints(rays, still, still, plain, coefficients[:12])
        x, y = np.asarray(upright, np.float64)[:, 0].T
        tilt_x, tilt_y = coefficients[12:]
        # The last row of the rotation Ry(tilt_y) Rx(tilt_x) gives the depth on the tilted sensor.
        depth = np.sin(tilt_y) * x - np.cos(tilt_y) * np.sin(tilt_x) * y + np.cos(tilt_y) * np.cos(tilt_x)
        plane[:, depth <= 0] = np.nan
    return plane


def _padded(distortion: Distortion) -> tuple[float, ...]:
    """Return the coefficients of the pinhole model, with zeros for those that are not given."""
    return distortion.coefficients + (0.0,) * (_ALL - len(distortion.coefficients))


def _first_root(polynomial: Polynomial) -> float:
    """Return the smallest positive root at which a polynomial that is positive at 0 turns negative; else infinity."""
    roots = polynomial.trim().roots()
    real = np.unique(roots.real[(abs(roots.imag) <= 1e-7 * abs(roots)) & (roots.real > 0)])
    if not real.size:
        return np.inf
    # Between two roots the sign does not change, so one value tells it; beyond the last root any value does.
    between = [*(np.mean(pair) for pair in pairwise(real)), 2 * real[-1]]
    return next((float(root) for root, beyond in zip(real, between, strict=True) if polynomial(beyond) < 0), np.inf)
