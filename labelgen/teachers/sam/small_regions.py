"""Fill small holes of masks and drop their small islands, each in the mask's own box.

What the stock generator does under `min_mask_region_area`, on masks that survived the non-maximum suppression.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True)
class TidyMask:
    """A mask after removal: `inside` (H0, W0), its `box` (4,) as x0, y0, x1, y1, and whether any region was small."""

    inside: NDArray[np.bool_]
    box: NDArray[np.float32]
    changed: bool


def remove_small_regions(logits: "Tensor", box: "Tensor", rows: "Tensor", cols: "Tensor", least: int) -> TidyMask:
    """Tidy one mask of decoder logits (h, w), relative to its threshold, that fills `box` (4,) at native size.

    `rows` (H0, h) and `cols` (W0, w) bring logits to native size; `least` is in native pixels. Holes are filled first;
    if all islands are small, the largest stays.
    """
    height, width = len(rows), len(cols)
    left, top, right, bottom = (int(edge) for edge in box)
    down = _with_surroundings(top, bottom, height, width, least)
    across = _with_surroundings(left, right, width, height, least)
    mask = (rows[down] @ (logits @ cols[across].T) > 0).cpu().numpy()
    # A region that leaves the cut-out is larger than `least`, or the cut-out would go on to the border.
    beyond = np.ones(mask.shape, np.int64)
    beyond[[0] * (down.start > 0) + [-1] * (down.stop < height)] = least
    beyond[:, [0] * (across.start > 0) + [-1] * (across.stop < width)] = least
    holes, hole_px = _regions(~mask, beyond)
    filled = mask | (hole_px < least)[holes]
    islands, island_px = _regions(filled, np.ones_like(beyond))
    small = island_px < least
    kept = ~small
    kept[0] = False
    if small.any() and not kept.any():
        kept[1 + island_px[1:].argmax()] = True
    whole = np.zeros((height, width), bool)
    whole[down, across] = kept[islands]
    return TidyMask(whole, _box(whole), bool(filled.sum() > mask.sum() or small.any()))


def _with_surroundings(first: int, last: int, length: int, other: int, least: int) -> slice:
    """Return a range that holds `first` to `last` and a pixel more, or all up to a border that is near."""
    start = 0 if first * other < least else first - 1
    stop = length if (length - 1 - last) * other < least else last + 2
    return slice(max(0, start), min(length, stop))


def _regions(mask: NDArray[np.bool_], weights: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Number the connected regions of a mask from 1 on, and return the weight of each; 0, outside, has no end."""
    from scipy import ndimage

    regions, count = ndimage.label(mask, _EIGHT_NEIGHBOURS)
    weight = np.bincount(regions.ravel(), weights.ravel(), minlength=count + 1)
    weight[0] = np.inf
    return regions, weight


def _box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    down, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([across[0], down[0], across[-1], down[-1]], np.float32) if len(down) else np.zeros(4, np.float32)
