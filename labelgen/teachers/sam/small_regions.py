"""Removal of small holes and islands from a mask, done in the surroundings of its box instead of the whole image.

Source: segment_anything's utils.amg.remove_small_regions, called by SamAutomaticMaskGenerator for
`min_mask_region_area`. The masks are the same.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True)
class CleanedMask:
    """A mask after removal of small regions, at native size.

    `inside` (H0, W0), its `box` (4,) as x0, y0, x1, y1 in pixels, and whether any region was removed.
    """

    inside: NDArray[np.bool_]
    box: NDArray[np.float32]
    changed: bool


def remove_small_regions(
    logits: "Tensor", box: "Tensor", rows: "Tensor", cols: "Tensor", min_area_px: int
) -> CleanedMask:
    """Fill small holes of one mask, then remove small islands; if all islands are small, the largest stays.

    Args:
        logits: (h, w) of the decoder, minus the mask threshold.
        box: (4,) of the mask as x0, y0, x1, y1 in native pixels.
        rows: weights (H0, h) that interpolate native rows from decoder rows.
        cols: weights (W0, w) that interpolate native columns from decoder columns.
        min_area_px: regions of fewer native pixels are small.
    """
    height, width = len(rows), len(cols)
    left, top, right, bottom = (int(edge) for edge in box)
    row_range = _range_around(top, bottom, height, width, min_area_px)
    col_range = _range_around(left, right, width, height, min_area_px)
    mask = (rows[row_range] @ (logits @ cols[col_range].T) > 0).cpu().numpy()
    # Background that leaves the cut-out is not a small hole: otherwise the cut-out would extend to the image border.
    weights = np.ones(mask.shape, np.int64)
    weights[[0] * (row_range.start > 0) + [-1] * (row_range.stop < height)] = min_area_px
    weights[:, [0] * (col_range.start > 0) + [-1] * (col_range.stop < width)] = min_area_px
    holes, hole_px = _label_regions(~mask, weights)
    filled = mask | (hole_px < min_area_px)[holes]
    islands, island_px = _label_regions(filled, np.ones_like(weights))
    is_small = island_px < min_area_px
    is_kept = ~is_small
    is_kept[0] = False
    if is_small.any() and not is_kept.any():
        is_kept[1 + island_px[1:].argmax()] = True
    whole = np.zeros((height, width), bool)
    whole[row_range, col_range] = is_kept[islands]
    return CleanedMask(whole, _box(whole), bool(filled.sum() > mask.sum() or is_small.any()))


def _range_around(first: int, last: int, length: int, other_length: int, min_area_px: int) -> slice:
    """Return the range from `first` to `last` with one pixel more on each side, or with all pixels up to the border.

    It extends to the border if the strip between box and border has fewer than `min_area_px` pixels, because then
    background in the strip can be a small hole.
    """
    start = 0 if first * other_length < min_area_px else first - 1
    stop = length if (length - 1 - last) * other_length < min_area_px else last + 2
    return slice(max(0, start), min(length, stop))


def _label_regions(
    mask: NDArray[np.bool_], weights: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Label the connected regions of a mask from 1 on, and return the sum of weights of each; infinite for label 0."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, _EIGHT_NEIGHBOURS)
    weight_sums = np.bincount(labels.ravel(), weights.ravel(), minlength=count + 1).astype(np.float64)
    weight_sums[0] = np.inf
    return labels, weight_sums


def _box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the box (4,) of a mask (H0, W0) as x0, y0, x1, y1; zeros for an empty mask."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([cols[0], rows[0], cols[-1], rows[-1]], np.float32) if len(rows) else np.zeros(4, np.float32)
