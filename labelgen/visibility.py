"""Which pixel-point pairs are visible: whether the camera sees the point, or something in front hides it.

The lidar and the cameras stand at different places, so a camera does not see all points that project into its picture.
A hidden point would get the label of what hides it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.geometry import Pairs, project
from labelgen.samples import Camera

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


REACH = 0.75, 0.5
"""How far the patch of surface of a point reaches to each side, in spacings along a ring and across the rings.

Half a spacing makes a closed surface. Along a ring more of it pays off, since some points are lost.
`python -m benchmarks.visibility` compares other values.
"""

LARGEST_SCALE = 3.0
"""Patches grow or shrink by at most this factor where the camera is nearer to a point than the lidar, or farther."""

CELLS = 3
"""Cells of the z-buffer in one spacing."""

COLUMN = math.radians(1.0)
"""Width in azimuth of the columns in which the spacing of points is measured."""

BAND = math.radians(2.0)
"""Height in elevation of the bands in which the spacing of rings is measured."""

LEAST_RING_SPACING = math.radians(0.1)
"""A smaller gap in elevation lies between points of one ring."""

LEAST_SPACING = math.radians(0.05)
"""Points along a ring count as at least this far apart. It bounds the memory of the z-buffer."""

LEAST_GAPS = 20
"""Fewer gaps say nothing about the spacing of rings."""

FALLBACK_SPACING = math.radians(0.33), math.radians(1.33)
"""Spacing along a ring and across the rings in a cloud that is too small to tell: that of a lidar with 32 beams."""


def visible_pairs(pairs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the rows of the group `pairs` that are visible, without `offsets`; all, if it does not tell."""
    columns = {name: values for name, values in pairs.items() if name != "offsets"}
    if "visible" not in columns:
        return columns
    seen = columns["visible"] > 0
    return {name: values[seen] for name, values in columns.items()}


def visible_in_zbuffer(
    xyz: NDArray[np.floating], cameras: Sequence[Camera], pairs: Pairs, margin: tuple[float, float]
) -> Flags:
    """Tell which pairs (N,) no other point of the cloud hides.

    Each point stands for a patch of surface as wide as the spacing of the lidar's points there. The patches are drawn
    into a z-buffer of directions (azimuth and elevation in the frame of the cloud) around the centre of each camera:
    there they form a grid as regular as the lidar's. A pair is hidden if its point is farther from the camera than the
    nearest patch in its direction by more than both parts of the margin.

    Args:
        xyz: points (P, 3) of the sample in the frame of the lidar, in metres.
        cameras: the cameras of the sample.
        pairs: the pairs of the sample. Only their points can hide one another.
        margin: how far in front a patch must lie: metres, and a share of the distance.
    """
    visible = np.ones(len(pairs.point), bool)
    if not len(pairs.point):
        return visible
    along, across = angular_spacing(xyz)
    cell = along / CELLS, float(np.median(across)) / CELLS
    for number, camera in enumerate(cameras):
        own = np.flatnonzero(pairs.image == number)
        if len(own):
            points = xyz[pairs.point[own]].astype(np.float64)
            azimuth, elevation, distance = _directions(points, camera)
            scale = np.clip(np.linalg.norm(points, axis=1) / distance, 1 / LARGEST_SCALE, LARGEST_SCALE)
            nearest = _nearest_patch(
                (azimuth / cell[0], elevation / cell[1]),
                (REACH[0] * along / cell[0] * scale, REACH[1] * across[pairs.point[own]] / cell[1] * scale),
                distance,
            )
            visible[own] = distance - nearest <= np.maximum(margin[0], margin[1] * distance)
    return visible


def angular_spacing(xyz: NDArray[np.floating]) -> tuple[float, Floats]:
    """Estimate the angles between neighbouring points of a lidar cloud, in radians.

    In a narrow column of azimuth, sorted by elevation, the points of one ring follow each other almost without a gap,
    and the gaps between rings show their spacing.

    Args:
        xyz: points (P, 3) in the frame of the lidar.

    Returns:
        The angle between the points of a ring, and the angle between the rings around each point (P,).
    """
    along, across = FALLBACK_SPACING
    azimuth = np.arctan2(xyz[:, 1], xyz[:, 0])
    elevation = np.arctan2(xyz[:, 2], np.hypot(xyz[:, 0], xyz[:, 1]))
    column = np.floor(azimuth / COLUMN)
    order = np.lexsort((elevation, column))
    gap = np.diff(elevation[order])
    same_column = np.diff(column[order]) == 0
    between_rings = same_column & (gap > LEAST_RING_SPACING)
    if between_rings.sum() < LEAST_GAPS:
        return along, np.full(len(xyz), across)
    ends = np.flatnonzero(between_rings | ~same_column)
    along = max(LEAST_SPACING, COLUMN / float(np.percentile(np.diff(ends), 75)))
    middle, gap = (elevation[order][:-1] + gap / 2)[between_rings], gap[between_rings]
    band = np.floor(middle / BAND)
    bands, gaps = np.unique(band, return_counts=True)
    bands = bands[gaps >= LEAST_GAPS] if (gaps >= LEAST_GAPS).any() else bands
    medians = [np.median(gap[band == number]) for number in bands]
    return along, np.interp(elevation, (bands + 0.5) * BAND, medians)


def _directions(points: Floats, camera: Camera) -> tuple[Floats, Floats, Floats]:
    """Return where a camera sees points: azimuth from its optical axis, elevation, and distance, (N,) each."""
    rotation = camera.cam_from_cloud[:3, :3]
    x, y, z = (points + rotation.T @ camera.cam_from_cloud[:3, 3]).T
    axis = rotation[2]
    azimuth = np.arctan2(y, x) - np.arctan2(axis[1], axis[0])
    azimuth = (azimuth + math.pi) % (2 * math.pi) - math.pi
    across = np.hypot(x, y)
    return azimuth, np.arctan2(z, across), np.hypot(across, z)


def _nearest_patch(place: tuple[Floats, Floats], reach: tuple[Floats, Floats], distance: Floats) -> Floats:
    """Draw patches into a z-buffer, and return the least distance (N,) in the cell of each point.

    `place` and `reach` (N,) are the middles and the half sides of the patches along both axes, in cells. A patch covers
    the cells whose centre it contains, and that of its point.
    """
    own = [np.floor(p).astype(np.int64) for p in place]
    first = [np.minimum(np.ceil(p - r - 0.5), o).astype(np.int64) for p, r, o in zip(place, reach, own, strict=True)]
    last = [np.maximum(np.floor(p + r - 0.5), o).astype(np.int64) for p, r, o in zip(place, reach, own, strict=True)]
    low, high = [f.min() for f in first], [end.max() for end in last]
    width, height = (int(h - o + 1) for o, h in zip(low, high, strict=True))
    sides = [end - f + 1 for f, end in zip(first, last, strict=True)]
    cells = sides[0] * sides[1]
    patch = np.repeat(np.arange(len(distance)), cells)
    step = np.arange(len(patch)) - np.repeat(np.cumsum(cells) - cells, cells)
    column = first[0][patch] - low[0] + step % sides[0][patch]
    row = first[1][patch] - low[1] + step // sides[0][patch]
    buffer = np.full(width * height, np.inf)
    np.minimum.at(buffer, row * width + column, distance[patch])
    nearest: Floats = buffer[(own[1] - low[1]) * width + own[0] - low[0]]
    return nearest


def visible_in_superpixels(
    pictures: Sequence[NDArray[np.uint8]], pairs: Pairs, superpixels: int, margin_share: float
) -> Flags:
    """Tell which pairs (N,) are not far behind the nearest point in their superpixel, as in Affinity3D.

    A superpixel (SLIC, R. Achanta et al., PAMI 2012) is taken for a piece of one surface. A pair is hidden if its depth
    exceeds the least depth in its superpixel by more than a share of its own depth.

    Args:
        pictures: (H, W, 3) of each camera, at the size that the pairs refer to.
        pairs: the pairs of the sample. Only their points can hide one another.
        superpixels: of a picture; SLIC makes about so many.
        margin_share: share of the depth.
    """
    from skimage.segmentation import slic

    visible = np.ones(len(pairs.point), bool)
    for number, picture in enumerate(pictures):
        own = np.flatnonzero(pairs.image == number)
        if len(own):
            superpixel = slic(picture, n_segments=superpixels, start_label=0)[pairs.row[own], pairs.col[own]]
            depth = pairs.depth[own].astype(np.float64)
            nearest = np.full(superpixel.max() + 1, np.inf)
            np.minimum.at(nearest, superpixel, depth)
            visible[own] = depth - nearest[superpixel] <= margin_share * depth
    return visible


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
