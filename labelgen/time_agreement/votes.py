"""The vote of the points of each cell, and how much they agree."""

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE


def vote_in_cells(
    cell: NDArray[np.int64], labels: NDArray[np.uint8], weight: NDArray[np.floating], classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the label (P,) u8 of each point and its confidence (P,) f32, 0..1.

    Labelled points vote for their class. The class with the largest sum of weights wins in a cell; of equal ones, the
    lower id. All points of the cell get it, also those that had no label. The confidence is the winner's sum divided by
    the number of votes. In a cell without votes, points have no label, and confidence 0.

    Args:
        cell: (P,) cell of each point, from 0.
        labels: (P,) class ids, 255 for none.
        weight: (P,) weight of each vote, 0..1.
        classes: number of classes.
    """
    voting = labels != IGNORE
    cells = int(cell.max(initial=-1)) + 1
    place = cell[voting] * classes + labels[voting]
    sums = np.bincount(place, weight[voting], cells * classes).reshape(cells, classes)
    votes = np.bincount(cell[voting], minlength=cells)
    winner = np.where(votes > 0, sums.argmax(axis=1), IGNORE).astype(np.uint8)
    share = (sums.max(axis=1, initial=0) / np.maximum(votes, 1)).astype(np.float32)
    return winner[cell], share[cell]
