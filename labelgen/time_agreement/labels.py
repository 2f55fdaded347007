"""From agreed scores to labels of points and pixels, and to the confidence of points."""

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE
from labelgen.time_agreement.agreement import Agreement
from labelgen.time_agreement.views import Views

Labels = NDArray[np.uint8]


def label_cells(agreement: Agreement) -> Labels:
    """Return the class (K,) with the highest score of each cell; of equal scores the lower id; 255 without a score."""
    return _best(agreement.cells)


def confidence_of_cells(labels: Labels, views: Views, cell: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the agreement (K,) f32, 0..1, of each cell: the share of its views whose own best class is its label.

    `labels` (K,) are those of the cells, `cell` (P,) is the cell of each point. A cell without views has 0.
    """
    of_view = cell[views.point]
    agreeing = np.bincount(of_view, views.scores.argmax(axis=1) == labels[of_view], len(labels))
    counts = np.bincount(of_view, minlength=len(labels))
    share: NDArray[np.float32] = (agreeing / np.maximum(counts, 1)).astype(np.float32)
    return share


def label_pictures(
    agreement: Agreement, views: Views, point_labels: Labels, mask_ids: NDArray[np.uint16], voted: Labels
) -> Labels:
    """Return labels (I, H, W) of pixels.

    The pixels of a mask that sees points get the best class of the mask. A pixel that is in no mask and sees a point
    gets the label of the point; of several points, that of the last one. All other pixels keep their label.

    Args:
        agreement: scores of masks.
        views: the pairs.
        point_labels: (P,) labels of points.
        mask_ids: (I, H, W) masks, 0 for none.
        voted: (I, H, W) labels of each picture's own vote.
    """
    found, best = voted.copy(), _best(agreement.masks)
    for number, masks in enumerate(mask_ids):
        of_mask = best[views.first_mask[number] : views.first_mask[number + 1]]
        of_mask[0] = IGNORE
        of_pixel = of_mask[masks]
        np.copyto(found[number], of_pixel, where=of_pixel != IGNORE)
    alone = ~views.in_mask
    found[views.image[alone], views.row[alone], views.col[alone]] = point_labels[views.point[alone]]
    return found


def _best(scores: NDArray[np.floating]) -> Labels:
    """Return the class (N,) with the highest of scores (N, C), 255 where they are NaN."""
    known = ~np.isnan(scores[:, 0])
    return np.where(known, np.where(known[:, None], scores, 0).argmax(axis=1), IGNORE).astype(np.uint8)
