"""Labels that agree over time, back on pictures: a mask takes the class of its points where they agree better."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class PointVotes:
    """What visible pairs say, (N,) each, of one picture: row and column, the point's label (no 255) and confidence."""

    row: NDArray[np.integer]
    col: NDArray[np.integer]
    label: Labels
    confidence: NDArray[np.float32]


def label_picture(raw: Labels, voted: Labels, mask_ids: NDArray[np.uint16], points: PointVotes, classes: int) -> Labels:
    """Return the labels (H, W) of one picture.

    Args:
        raw: (H, W) labels before the vote of the picture.
        voted: (H, W) labels after it.
        mask_ids: (H, W) masks, 0 for none.
        points: the labelled points that the picture sees.
        classes: number of classes.
    """
    masks = int(mask_ids.max(initial=0)) + 1
    flat = mask_ids.ravel()
    own = np.bincount(flat, (raw == voted).ravel(), masks) / np.maximum(np.bincount(flat, minlength=masks), 1)
    mask = mask_ids[points.row, points.col].astype(np.int64)
    sums = np.bincount(mask * classes + points.label, points.confidence, masks * classes).reshape(masks, classes)
    share = sums.max(axis=1) / np.maximum(np.bincount(mask, minlength=masks), 1)
    takes = share > own
    takes[0] = False
    winner = np.where(takes, sums.argmax(axis=1), IGNORE).astype(np.uint8)[mask_ids]
    found = np.where(winner == IGNORE, voted, winner)
    alone = mask == 0
    found[points.row[alone], points.col[alone]] = points.label[alone]
    return found
