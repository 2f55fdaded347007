"""From overlapping masks to one mask id a pixel."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
