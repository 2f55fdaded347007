"""Rigid transforms, the pinhole projection, and pixel-point pairs (CNS equation 2).

Pixel centres have integer coordinates: the centre of the pixel in row r and column c is (u, v) = (c, r). The camera
frame has x to the right, y down and z along the optical axis. `b_from_a` is the transform (4, 4) that takes homogeneous
points of frame a to frame b, in metres. All computation is float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.distortion import distorted_pixels
from labelgen.samples import Camera

Floats = NDArray[np.float64]

BORDER_PX = 1.0
"""A point pairs with an image only if it projects at least this far inside the centres of the outermost pixels.

The official nuScenes devkit uses the same margin.
"""


def rigid_from_quaternion(wxyz: Floats, translation: Floats) -> Floats:
    """Return rigid transforms (..., 4, 4) from rotations and translations.

    Args:
        wxyz: unit quaternions (..., 4) in the order w, x, y, z.
        translation: translations (..., 3) in metres.

    Raises:
        ValueError: if the length of a quaternion differs from 1 by more than 1e-3, or a number is not finite.
    """
    wxyz, translation = np.asarray(wxyz, np.float64), np.asarray(translation, np.float64)
    norm = np.linalg.norm(wxyz, axis=-1, keepdims=True)
    if not (np.isfinite(wxyz).all() and np.isfinite(translation).all()):
        raise ValueError(f"rotation {wxyz.tolist()} or translation {translation.tolist()} is not finite")
    if np.any(np.abs(norm - 1) > 1e-3):
        raise ValueError(f"rotation {wxyz.tolist()} is not a unit quaternion, so the transform is not rigid")
    w, x, y, z = np.moveaxis(wxyz / norm, -1, 0)
    rigid = np.zeros((*wxyz.shape[:-1], 4, 4))
    rigid[..., 0, 0], rigid[..., 0, 1], rigid[..., 0, 2] = (
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
    )
    rigid[..., 1, 0], rigid[..., 1, 1], rigid[..., 1, 2] = (
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
    )
    rigid[..., 2, 0], rigid[..., 2, 1], rigid[..., 2, 2] = (
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    )
    rigid[..., :3, 3] = translation
    rigid[..., 3, 3] = 1
    return rigid


def invert_rigid(transform: Floats) -> Floats:
    """Return the inverse (..., 4, 4) of rigid transforms (..., 4, 4): rotation R^T, translation -R^T t."""
    inverse_rotation = np.swapaxes(transform[..., :3, :3], -1, -2)
    inverse = np.zeros_like(transform)
    inverse[..., :3, :3] = inverse_rotation
    inverse[..., :3, 3] = -(inverse_rotation @ transform[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def transform_points(xyz: NDArray[np.float32], b_from_a: Floats) -> NDArray[np.float32]:
    """Return points (P, 3) of frame a in frame b, metres; computed in float64."""
    return (xyz.astype(np.float64) @ b_from_a[:3, :3].T + b_from_a[:3, 3]).astype(np.float32)


def check_intrinsics(intrinsics: Floats) -> None:
    """Check that a matrix (3, 3) is that of a pinhole camera: finite, invertible, focal lengths above zero.

    Raises:
        ValueError: if it is not; the message quotes the matrix.
    """
    if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all():
        raise ValueError(f"camera_intrinsic {intrinsics.tolist()} is not a finite 3x3 matrix")
    is_pinhole = min(intrinsics[0, 0], intrinsics[1, 1]) > 0 and np.allclose(intrinsics[2], (0, 0, 1))
    if not is_pinhole or np.linalg.matrix_rank(intrinsics) < 3:
        raise ValueError(f"camera_intrinsic {intrinsics.tolist()} is singular or not a pinhole camera")


def scale_intrinsics(intrinsics: Floats, native: tuple[int, int], target: tuple[int, int]) -> Floats:
    """Return intrinsics (3, 3) for an image that was resized from `native` (height, width) to `target`.

    Resizing maps the area of the image, not the pixel centres: u' = (u + 0.5) * W / W0 - 0.5, and likewise for v.
    """
    scale_v, scale_u = (new / old for new, old in zip(target, native, strict=True))
    resize = np.array([[scale_u, 0, (scale_u - 1) / 2], [0, scale_v, (scale_v - 1) / 2], [0, 0, 1]])
    return resize @ intrinsics


def project(xyz: NDArray[np.floating], cam_from_cloud: Floats, intrinsics: Floats) -> tuple[Floats, Floats]:
    """Project points into a camera (CNS equation 2).

    Args:
        xyz: points (P, 3) in the cloud frame, in metres.
        cam_from_cloud: transform (4, 4) from the cloud frame to the camera frame.
        intrinsics: camera matrix (3, 3).

    Returns:
        Pixel coordinates u, v (P, 2), not finite where the depth is 0, and the depth (P,) in metres along the optical
        axis, negative behind the camera.
    """
    u_times_depth, v_times_depth, depth = _homogeneous_pixels(xyz.T.astype(np.float64), cam_from_cloud, intrinsics)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        uv = np.stack([u_times_depth, v_times_depth], axis=1) / depth[:, None]
    return uv, depth


def _homogeneous_pixels(points: Floats, cam_from_cloud: Floats, intrinsics: Floats) -> Floats:
    """Return (u * depth, v * depth, depth) (3, P) of points (3, P) in the cloud frame.

    The transform and the intrinsics are multiplied first, so that the points pass through one product instead of two.
    """
    pixel_from_cloud = intrinsics @ cam_from_cloud[:3]
    homogeneous: Floats = pixel_from_cloud[:, :3] @ points + pixel_from_cloud[:, 3:]
    return homogeneous


@dataclass(frozen=True)
class Pairs:
    """N pixel-point pairs of one sample, ordered by image, then by point. All fields are (N,).

    Attributes:
        point: index of the point in the sample's cloud.
        image: index of the image among the sample's cameras.
        row: row of the pixel in the image at training size.
        col: column of the pixel in the image at training size.
        depth: depth of the point in metres, along the optical axis of the camera.
    """

    point: NDArray[np.int32]
    image: NDArray[np.uint16]
    row: NDArray[np.uint16]
    col: NDArray[np.uint16]
    depth: NDArray[np.float32]


def pair_points(
    xyz: NDArray[np.floating], cameras: Sequence[Camera], size: tuple[int, int], min_depth_m: float
) -> Pairs:
    """Pair the points of a cloud with the pixels of a sample's images.

    A point pairs with an image if its depth exceeds `min_depth_m` and it projects into the native image, more than
    `BORDER_PX` inside the centres of the outermost pixels. A point beyond the valid range of a lens model gets no pair;
    see `labelgen.distortion`. As in the CNS paper, a point that another object hides from the camera is paired too;
    `labelgen.visibility` tells such pairs.

    Args:
        xyz: points (P, 3) in the cloud frame, in metres.
        cameras: at least one camera, with intrinsics of the native image.
        size: training size (height, width) of the images, to which rows and columns refer.
        min_depth_m: least depth along the optical axis.
    """
    points = np.ascontiguousarray(xyz.T, np.float64)
    parts: list[tuple[NDArray[Any], ...]] = []
    for index, camera in enumerate(cameras):
        u_times_depth, v_times_depth, depth = _homogeneous_pixels(points, camera.cam_from_cloud, camera.intrinsics)
        in_front = np.flatnonzero(depth > min_depth_m)
        if camera.distortion is None:
            u, v = u_times_depth[in_front] / depth[in_front], v_times_depth[in_front] / depth[in_front]
        else:
            in_camera = camera.cam_from_cloud[:3, :3] @ points[:, in_front] + camera.cam_from_cloud[:3, 3:]
            u, v = distorted_pixels(in_camera, camera.intrinsics, camera.distortion)
        inside = (u > BORDER_PX) & (u < camera.width_px - 1) & (v > BORDER_PX) & (v < camera.height_px - 1)
        col, row = (
            np.rint((coordinates[inside] + 0.5) * target / native - 0.5).astype(np.uint16)
            for coordinates, target, native in ((u, size[1], camera.width_px), (v, size[0], camera.height_px))
        )
        point = in_front[inside].astype(np.int32)
        parts.append((point, np.full(len(point), index, np.uint16), row, col, depth[point].astype(np.float32)))
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))
