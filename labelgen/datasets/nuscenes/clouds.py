"""Files of LIDAR_TOP: five f32 numbers a point, checked against what the sensor can measure.

The files have no header, so a cloud in another shape can have a valid length. Its numbers then are in wrong columns,
which their ranges show: rings are whole numbers below 32, intensities are 0..255, and no return is farther away than
the lidar reaches.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelgen.errors import SampleError

COLUMNS = ("x", "y", "z", "intensity", "ring")
OTHER_COLUMNS = {4: "x, y, z, intensity", 6: "x, y, z, intensity, ring, time", 3: "x, y, z"}
"""Shapes in which other programs write clouds, by number of columns; the likeliest first."""

MAX_INTENSITY = 255.0
RINGS = 32
REACH_M = 200.0
"""The Velodyne HDL-32E measures up to 100 m; the official files have points up to 105 m away."""

Points = NDArray[np.float32]


def points_of(raw: bytes, file: Path) -> Points:
    """Return the points (P, 5) f32 of a file: x, y, z in metres, intensity 0..255, ring 0..31.

    Raises:
        SampleError: if the file is empty, cut short, in another shape, or has numbers that the sensor cannot measure;
            the message names the likely cause.
    """
    row_bytes = 4 * len(COLUMNS)
    if not raw or len(raw) % row_bytes:
        likely = _likely_cause(raw, "the file is cut short, restore it from the dataset")
        raise SampleError(f"{file}: {len(raw)} bytes, not a multiple of {len(COLUMNS)} floats; {likely}")
    points = np.frombuffer(raw, np.float32).reshape(-1, len(COLUMNS))
    for bad, what in _implausible(points):
        if (rows := np.flatnonzero(bad)).size:
            likely = _likely_cause(raw, "restore the file from the dataset")
            values = ", ".join(
                f"{name} {value:g}" for name, value in zip(COLUMNS, points[rows[0]].tolist(), strict=True)
            )
            raise SampleError(
                f"{file}: point {rows[0]} ({values}) {what}, as {len(rows):,} of {len(points):,}; {likely}"
            )
    return points


def _implausible(points: Points) -> list[tuple[NDArray[np.bool_], str]]:
    """Return which points (P, 5) break each rule, with what a message says of them."""
    finite = np.isfinite(points).all(axis=1)
    intensity, ring = points[:, 3], points[:, 4]
    with np.errstate(invalid="ignore", over="ignore"):
        far = finite & (np.linalg.norm(points[:, :3].astype(np.float64), axis=1) > REACH_M)
        no_ring = finite & ((ring != np.rint(ring)) | (ring < 0) | (ring >= RINGS))
        no_intensity = finite & ((intensity < 0) | (intensity > MAX_INTENSITY))
    return [
        (~finite, "is not finite"),
        (no_ring, f"has no ring from 0 to {RINGS - 1}"),
        (no_intensity, f"has no intensity from 0 to {MAX_INTENSITY:g}"),
        (far, f"is farther away than {REACH_M:g} m, which the lidar cannot reach"),
    ]


def _likely_cause(raw: bytes, otherwise: str) -> str:
    """Return the shape that the file seems to have instead, with the remedy, or what to do `otherwise`."""
    for columns, names in OTHER_COLUMNS.items():
        if raw and len(raw) % (4 * columns) == 0 and _fits(np.frombuffer(raw, np.float32).reshape(-1, columns)):
            return (
                f"it seems to hold {columns} floats a point ({names}); give the original files, "
                f"with {len(COLUMNS)}: {', '.join(COLUMNS)}"
            )
    return otherwise


def _fits(points: Points) -> bool:
    """Tell whether points (P, 3 or more) in another shape are plausible: near, and no number is in a wrong column.

    In a wrong shape every column has numbers of all kinds, so the columns have nearly the same spread. A lidar sees
    far less up and down than around.
    """
    if not np.isfinite(points).all() or np.abs(points[:, :3]).max() > REACH_M:
        return False
    if points.shape[1] > 3 and (points[:, 3].min() < 0 or points[:, 3].max() > MAX_INTENSITY):
        return False
    spread_m = points[:, :3].astype(np.float64).std(axis=0)
    return bool(spread_m[2] < 0.5 * max(spread_m[0], spread_m[1]))
