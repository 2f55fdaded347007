"""Which pixel-point pairs are visible: whether the camera sees the point, or something in front hides it.

The lidar and the cameras stand at different places, so a camera does not see all points that project into its picture.
A hidden point would get the label of what hides it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.geometry import Pairs, project
from labelgen.samples import Camera

Flags = NDArray[np.bool_]


def visible_pairs(pairs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the rows of the group `pairs` that are visible, without `offsets`; all, if it does not tell."""
    columns = {name: values for name, values in pairs.items() if name != "offsets"}
    if "visible" not in columns:
        return columns
    seen = columns["visible"] > 0
    return {name: values[seen] for name, values in columns.items()}


WINDOW = 9, 3
"""Rows and columns of pixels that a point covers in the z-buffer. Rings of the lidar lie further apart than its points
along a ring."""


def visible_in_zbuffer(pairs: Pairs, size: tuple[int, int], margin: tuple[float, float]) -> Flags:
    """Tell which pairs (N,) no other point of the cloud hides.

    Each pixel gets the least depth of the points in a window around it. A pair is hidden if its depth is greater than
    that by more than both parts of the margin.

    Args:
        pairs: the pairs of one sample.
        size: training size (height, width) of the images.
        margin: how far in front another point must lie: metres, and a share of the depth.
    """
    images = int(pairs.image[-1]) + 1 if len(pairs.image) else 0
    nearest = np.full((images, *size), np.inf, np.float32)
    np.minimum.at(nearest, (pairs.image, pairs.row, pairs.col), pairs.depth)
    for axis, length in enumerate(WINDOW, start=1):
        nearest = _least_around(nearest, axis, length // 2)
    in_front = nearest[pairs.image, pairs.row, pairs.col]
    visible: Flags = pairs.depth - in_front <= np.maximum(margin[0], margin[1] * pairs.depth)
    return visible


def _least_around(values: NDArray[np.float32], axis: int, reach: int) -> NDArray[np.float32]:
    """Return the least of each value and its neighbours up to `reach` away along an axis."""
    least = values.copy()
    for step in range(1, reach + 1):
        low, high = [slice(None)] * values.ndim, [slice(None)] * values.ndim
        low[axis], high[axis] = slice(None, -step), slice(step, None)
        for here, there in ((low, high), (high, low)):
            np.minimum(least[tuple(here)], values[tuple(there)], out=least[tuple(here)])
    return least


def visible_in_depth_maps(
    xyz: NDArray[np.floating],
    cameras: Sequence[Camera],
    pairs: Pairs,
    depth_maps: Sequence[NDArray[np.float32]],
    tolerance: tuple[float, float],
) -> Flags:
    """Tell which pairs (N,) lie on the surface that the depth picture of their camera shows.

    The depth is that of the nearest pixel of the depth picture, by its own intrinsics. A point is visible if its depth
    differs by at most the sum of both parts of the tolerance. Points outside the depth picture and pixels without depth
    are not visible.

    Args:
        xyz: points (P, 3) of the sample in the cloud frame, in metres.
        cameras: the cameras of the sample, all with a depth picture.
        pairs: the pairs of the sample.
        depth_maps: the depth picture of each camera, (H1, W1) in metres along the optical axis, 0 where unknown.
        tolerance: how far the depths may differ: metres, and a share of the depth in the picture.
    """
    visible = np.zeros(len(pairs.point), bool)
    for number, (camera, depth_map) in enumerate(zip(cameras, depth_maps, strict=True)):
        assert camera.depth is not None
        own = np.flatnonzero(pairs.image == number)
        uv, depth = project(xyz[pairs.point[own]], camera.cam_from_cloud, camera.depth.intrinsics)
        col, row = np.rint(uv).T
        inside = (col >= 0) & (col < depth_map.shape[1]) & (row >= 0) & (row < depth_map.shape[0])
        own, depth = own[inside], depth[inside]
        shown = depth_map[row[inside].astype(np.intp), col[inside].astype(np.intp)]
        visible[own] = (shown > 0) & (np.abs(shown - depth) <= tolerance[0] + tolerance[1] * shown)
    return visible
