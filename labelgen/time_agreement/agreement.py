"""Scores on which the keyframes agree: views share them in the cells of points, and points in the masks of pictures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelgen.time_agreement.views import Views

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """Mean scores after the exchange.

    Attributes:
        cells: (K, C) f32 of the cells of points; NaN for a cell that no picture sees.
        masks: (M, C) f32 of the masks; NaN for a mask without a point. Those of pixels in no mask have no meaning.
    """

    cells: Floats
    masks: Floats


def agree(views: Views, cell: NDArray[np.int64], rounds: int) -> Agreement:
    """Average the scores of views in cells, and then `rounds` times in masks and in cells again.

    In a round, all points of a mask get the mean score of their cells, so that what one keyframe saw of an object
    reaches all of the object, and the views of it at other times.

    Args:
        views: what the pictures say.
        cell: (P,) the cell of each point, from 0.
        rounds: how often scores spread over masks; 0: they stay within cells.
    """
    of_view = cell[views.point]
    cells = _means(of_view, views.scores, int(cell.max(initial=-1)) + 1)
    for _ in range(rounds):
        masks = _means(views.mask, cells[of_view], int(views.first_mask[-1]))
        cells = _means(of_view, np.where(views.in_mask[:, None], masks[views.mask], cells[of_view]), len(cells))
    return Agreement(cells, _means(views.mask, cells[of_view], int(views.first_mask[-1])))


def _means(group: NDArray[np.int64], scores: Floats, groups: int) -> Floats:
    """Return the mean (G, C) of scores (N, C) by group (N,); NaN for a group without any."""
    counts, means = np.bincount(group, minlength=groups), np.empty((groups, scores.shape[1]), np.float32)
    with np.errstate(invalid="ignore"):
        for number, own in enumerate(scores.T):
            means[:, number] = np.bincount(group, own, groups) / counts
    return means
