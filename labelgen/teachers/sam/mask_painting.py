"""From overlapping masks to one mask id for each pixel."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Masks:
    """M masks of one image: `inside` (M, H, W) bool, `area` (M,) in native pixels, and SAM's two scores (M,)."""

    inside: "Tensor"
    area: "Tensor"
    predicted_iou: "Tensor"
    stability_score: "Tensor"


def paint_ids(inside: "Tensor", area: "Tensor") -> "Tensor":
    """Paint masks into one map of mask ids, larger masks first, so that smaller ones lie on top.

    Ids are 1, 2, ... in the order of painting, so a higher id is a smaller mask. Masks of equal area keep their order.

    Args:
        inside: masks (M, H, W) bool.
        area: areas (M,), which decide the order.

    Returns:
        Ids (H, W) i32; 0 where there is no mask.
    """
    import torch

    ids = torch.empty(len(area), dtype=torch.int32, device=inside.device)
    ids[area.argsort(descending=True, stable=True)] = torch.arange(1, len(area) + 1, dtype=torch.int32).to(ids.device)
    painted = inside * ids[:, None, None]
    return torch.cat([painted.new_zeros(1, *painted.shape[1:]), painted]).amax(dim=0)
