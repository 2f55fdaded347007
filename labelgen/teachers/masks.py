"""From overlapping masks to one mask id a pixel."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Masks:
    """M masks of one image: `inside` (M, H, W) bool, `area` (M,) in native pixels, and SAM's own two scores (M,)."""

    inside: "Tensor"
    area: "Tensor"
    predicted_iou: "Tensor"
    stability: "Tensor"


def paint_ids(inside: "Tensor", area: "Tensor") -> "Tensor":
    """Paint masks (M, H, W) of `area` (M,) into one id map (H, W) i32: larger first, smaller on top; 0 is no mask.

    Ids count in painting order from 1, so a higher id is a smaller mask, and the highest at a pixel shows; masks of
    equal area keep the order they came in.
    """
    import torch

    rank = torch.empty(len(area), dtype=torch.int32, device=inside.device)
    rank[area.argsort(descending=True, stable=True)] = torch.arange(1, len(area) + 1, dtype=torch.int32).to(rank.device)
    shown = inside * rank[:, None, None]
    return torch.cat([shown.new_zeros(1, *shown.shape[1:]), shown]).amax(dim=0)


def nearest_pixels(image: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.generic]:
    """Return the image (H0, W0) at `size`, each target pixel the native pixel under its centre."""
    rows, cols = (nearest_index(native, target) for native, target in zip(image.shape[:2], size, strict=True))
    return image[rows[:, None], cols]


def nearest_index(native: int, target: int) -> NDArray[np.intp]:
    """Return, for each of `target` pixels along an axis of `native`, the native pixel under its centre."""
    return ((np.arange(target) + 0.5) * native / target).astype(np.intp)
