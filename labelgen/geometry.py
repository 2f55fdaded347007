"""Rigid transforms, the pinhole projection, and pixel-point pairs.

Pixels have integer centres: row r, column c is the point (u, v) = (c, r). All maths is float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelgen.samples import Camera

Floats = NDArray[np.float64]

BORDER_PX = 1.0
"""Points must project more than this far inside the outermost pixels, as in the official nuScenes devkit."""


def rigid_from_quaternion(wxyz: Floats, translation: Floats) -> Floats:
    """Return transforms (..., 4, 4) from unit quaternions (..., 4) in w, x, y, z order and translations (..., 3).

    Raises:
        ValueError: if a quaternion is not of unit length to 1e-3, or a number is not finite.
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
    """Return the inverse (..., 4, 4) of rigid transforms (..., 4, 4)."""
    rotation_t = np.swapaxes(transform[..., :3, :3], -1, -2)
    inverse = np.zeros_like(transform)
    inverse[..., :3, :3] = rotation_t
    inverse[..., :3, 3] = -(rotation_t @ transform[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def check_intrinsics(intrinsics: Floats) -> None:
    """Refuse matrices (3, 3) that are no pinhole camera.

    Raises:
        ValueError: quoting the matrix.
    """
    if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all():
        raise ValueError(f"camera_intrinsic {intrinsics.tolist()} is not a finite 3x3 matrix")
    is_pinhole = min(intrinsics[0, 0], intrinsics[1, 1]) > 0 and np.allclose(intrinsics[2], (0, 0, 1))
    if not is_pinhole or np.linalg.matrix_rank(intrinsics) < 3:
        raise ValueError(f"camera_intrinsic {intrinsics.tolist()} is singular or no pinhole camera")


def scale_intrinsics(intrinsics: Floats, native: tuple[int, int], target: tuple[int, int]) -> Floats:
    """Return intrinsics (3, 3) for an image resized from `native` (height, width) to `target`.

    Resizing maps pixel areas onto pixel areas: u' = (u + 0.5) * W / W0 - 0.5, and likewise for v.
    """
    scale_v, scale_u = (new / old for new, old in zip(target, native, strict=True))
    resize = np.array([[scale_u, 0, (scale_u - 1) / 2], [0, scale_v, (scale_v - 1) / 2], [0, 0, 1]])
    return resize @ intrinsics


def project(xyz: NDArray[np.floating], cam_from_cloud: Floats, intrinsics: Floats) -> tuple[Floats, Floats]:
    """Project points (P, 3) of the cloud frame into a camera.

    Returns `uv` (P, 2) in pixels and `depth` (P,) in metres along the optical axis; uv is not finite where depth is 0.
    """
    across, down, depth = _homogeneous(xyz.T.astype(np.float64), cam_from_cloud, intrinsics)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        uv = np.stack([across, down], axis=1) / depth[:, None]
    return uv, depth


def _homogeneous(cloud: Floats, cam_from_cloud: Floats, intrinsics: Floats) -> Floats:
    """Return points (3, P) of the cloud frame as (u * depth, v * depth, depth), (3, P); one product for both steps."""
    pixel_from_cloud = intrinsics @ cam_from_cloud[:3]
    homogeneous: Floats = pixel_from_cloud[:, :3] @ cloud + pixel_from_cloud[:, 3:]
    return homogeneous


@dataclass(frozen=True)
class Pairs:
    """Pixel-point pairs of one sample, ordered by image, then point; all (N,).

    `point` i32 and `image` u16 count within the sample, `row` and `col` u16 are pixels at training size.
    """

    point: NDArray[np.int32]
    image: NDArray[np.uint16]
    row: NDArray[np.uint16]
    col: NDArray[np.uint16]


def pair_points(
    xyz: NDArray[np.floating], cameras: Sequence[Camera], size: tuple[int, int], min_depth_m: float
) -> Pairs:
    """Return the pairs of the points (P, 3) with the images of `cameras` resized to `size` (height, width).

    A point pairs with an image if it lies deeper than `min_depth_m` and inside the native image by `BORDER_PX`.
    No occlusion test: as in the papers, a point hidden from the camera still pairs.
    """
    cloud = np.ascontiguousarray(xyz.T, np.float64)
    parts: list[tuple[NDArray[np.generic], ...]] = []
    for index, camera in enumerate(cameras):
        across, down, depth = _homogeneous(cloud, camera.cam_from_cloud, camera.intrinsics)
        deep = np.flatnonzero(depth > min_depth_m)
        u, v = across[deep] / depth[deep], down[deep] / depth[deep]
        inside = (u > BORDER_PX) & (u < camera.width_px - 1) & (v > BORDER_PX) & (v < camera.height_px - 1)
        col, row = (
            np.rint((places[inside] + 0.5) * target / native - 0.5).astype(np.uint16)
            for places, target, native in ((u, size[1], camera.width_px), (v, size[0], camera.height_px))
        )
        seen = deep[inside].astype(np.int32)
        parts.append((seen, np.full(len(seen), index, np.uint16), row, col))
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pairs(*columns)
