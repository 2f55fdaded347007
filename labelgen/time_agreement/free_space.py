"""The free space that a lidar saw: its rays passed through places that lie clearly in front of its points."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from labelgen.visibility import angular_spacing

MARGIN_M, MARGIN_SHARE = 0.5, 0.05
"""Points are clearly behind a place if they are farther than it by more than this length and this share."""


@dataclass(frozen=True)
class RangeImage:
    """The nearest point of a cloud in each direction; cells are as wide as the spacing of the points.

    Attributes:
        cell: width in azimuth and height in elevation of a cell, radians.
        lowest: elevation of the lower edge of row 0, radians.
        has_point: (rows, columns) whether a cell holds a point.
        nearest: (rows, columns) distance of the nearest point in the cell and the eight around it, metres.
    """

    cell: tuple[float, float]
    lowest: float
    has_point: NDArray[np.bool_]
    nearest: NDArray[np.float64]

    @classmethod
    def of(cls, xyz: NDArray[np.floating]) -> Self:
        """Return the range image of points (P, 3), at least one, in the frame of their lidar, metres."""
        from scipy.ndimage import minimum_filter

        azimuth, elevation, distance = _directions(xyz)
        along, across = angular_spacing(xyz)
        columns = math.ceil(2 * math.pi / along)
        cell = 2 * math.pi / columns, float(np.median(across))
        row = np.floor((elevation - elevation.min()) / cell[1]).astype(np.intp)
        column = np.minimum(azimuth / cell[0], columns - 1).astype(np.intp)
        ranges = np.full((int(row.max()) + 1, columns), np.inf)
        np.minimum.at(ranges, (row, column), distance)
        nearest = minimum_filter(ranges, size=3, mode=("nearest", "wrap"))
        return cls(cell, float(elevation.min()), np.isfinite(ranges), nearest)

    def passes(self, places: NDArray[np.floating], size_m: float) -> NDArray[np.bool_]:
        """Tell which places (N, 3), cubes of side `size_m`, rays passed through to points clearly behind them."""
        azimuth, elevation, distance = _directions(places)
        row = np.floor((elevation - self.lowest) / self.cell[1]).astype(np.intp)
        column = np.minimum(azimuth / self.cell[0], self.has_point.shape[1] - 1).astype(np.intp)
        inside = np.flatnonzero((row >= 0) & (row < len(self.has_point)))
        row, column, distance = row[inside], column[inside], distance[inside]
        margin = size_m + np.maximum(MARGIN_M, MARGIN_SHARE * distance)
        found = np.zeros(len(places), bool)
        found[inside] = self.has_point[row, column] & (self.nearest[row, column] > distance + margin)
        return found


def _directions(xyz: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return azimuth (0 to 2 pi), elevation and distance of points (N, 3), (N,) each."""
    x, y, z = xyz.astype(np.float64).T
    across = np.hypot(x, y)
    return np.arctan2(y, x) % (2 * math.pi), np.arctan2(z, across), np.hypot(across, z)
