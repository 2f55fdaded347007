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
    filled = mask | _small(~mask, beyond, least)
    islands = _small(filled, np.ones_like(beyond), least)
    whole = np.zeros((height, width), bool)
    whole[down, across] = _largest(filled) if islands.any() and (islands == filled).all() else filled & ~islands
    return TidyMask(whole, _box(whole), bool(filled.sum() > mask.sum() or islands.any()))


def _with_surroundings(first: int, last: int, length: int, other: int, least: int) -> slice:
    """Return a range that holds `first` to `last` and a pixel more, or all up to a border that is near."""
    start = 0 if first * other < least else first - 1
    stop = length if (length - 1 - last) * other < least else last + 2
    return slice(max(0, start), min(length, stop))


def _small(regions: NDArray[np.bool_], weights: NDArray[np.int64], least: int) -> NDArray[np.bool_]:
    """Return the part of `regions` that lies in connected regions of less weight than `least`."""
    from scipy import ndimage

    labels, count = ndimage.label(regions, _EIGHT_NEIGHBOURS)
    size = np.bincount(labels.ravel(), weights.ravel(), minlength=count + 1)
    small = size < least
    small[0] = False
    return small[labels]


def _largest(regions: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    labels, _ = ndimage.label(regions, _EIGHT_NEIGHBOURS)
    largest = 1 + np.bincount(labels.ravel())[1:].argmax()
    return labels == largest


def _box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    down, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([across[0], down[0], across[-1], down[-1]], np.float32) if len(down) else np.zeros(4, np.float32)
