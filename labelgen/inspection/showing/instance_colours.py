"""Colours for the instances of a cloud: those that lie next to or behind each other get different ones."""

import numpy as np
from numpy.typing import NDArray

from labelgen.inspection.showing.legend import Picture

PALETTE = np.array(
    [
        *((230, 25, 75), (60, 180, 75), (255, 200, 0), (0, 110, 220), (245, 130, 30), (145, 30, 180)),
        *((0, 200, 220), (240, 50, 230), (170, 220, 40), (255, 150, 170)),
    ],
    np.uint8,
)
"""Colours (10, 3) that can be told apart on white and on dark pictures."""

_COLUMNS = 360
"""Columns of azimuth around the sensor."""

_REACH_COLUMNS = 3
"""Instances are neighbours if so many columns at most lie between a column of one and a column of the other."""


def instance_colours(instance: NDArray[np.uint16], xyz: NDArray[np.float32]) -> Picture:
    """Return the colour (P, 3) of each point by its instance; points of no instance are black.

    One instance after the other takes a colour that no neighbour in azimuth has. If there is none, it takes the colour
    whose instances lie farthest in front of it or behind it. Of equal colours it takes the one that is used least.

    Args:
        instance: (P,) the instance of each point, 1..K; 0 for none.
        xyz: points (P, 3) in the sensor frame, metres.
    """
    reach = _reach_by_column(instance, xyz)
    taken, used = np.zeros(len(reach), np.intp), np.zeros(len(PALETTE))
    for own in range(len(reach)):
        gaps = np.full(len(PALETTE), np.inf)
        before = np.abs(reach[:own] - reach[own])
        np.minimum.at(gaps, taken[:own], np.where(np.isnan(before), np.inf, before).min(axis=1, initial=np.inf))
        taken[own] = np.lexsort((used, -gaps))[0]
        used[taken[own]] += 1
    colours: Picture = np.concatenate([np.zeros((1, 3), np.uint8), PALETTE[taken]])[instance]
    return colours


def _reach_by_column(instance: NDArray[np.uint16], xyz: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean logarithm of the range of each instance (K, columns), widened; nan where it has no point."""
    count = int(instance.max(initial=0))
    own = instance > 0
    x, y = xyz[own, :2].astype(np.float64).T
    column = np.floor(np.arctan2(y, x) / (2 * np.pi) * _COLUMNS).astype(np.intp) % _COLUMNS
    cell = (instance[own].astype(np.intp) - 1) * _COLUMNS + column
    points = np.bincount(cell, minlength=count * _COLUMNS)
    total = np.bincount(cell, np.log(np.maximum(np.hypot(x, y), 1.0)), count * _COLUMNS)
    reach = np.where(points > 0, total / np.maximum(points, 1), np.nan).reshape(count, _COLUMNS)
    for _ in range(_REACH_COLUMNS):
        for step in (-1, 1):
            reach = np.where(np.isnan(reach), np.roll(reach, step, axis=1), reach)
    return reach
