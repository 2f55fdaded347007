"""Bounds of masks' boxes at native size, from the decoder's logits alone.

A native pixel is interpolated from decoder pixels around it, so it lies between the least and the greatest of them. An
axis of n decoder pixels has n - 1 gaps: where all four decoder pixels around a gap in rows and one in columns are in a
mask, so are all native pixels there, and where none is, none is.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from labelgen.teachers.mask_scan import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Gaps:
    """One axis of the native image, cut at the g gaps between decoder pixels.

    `first` and `last` (g,) are the positions of those native pixels that take no decoder pixels but the two at the gap,
    infinite and minus infinite if there is none; `least` and `most` (g,) of all that take one of both. All f32.
    """

    first: "Tensor"
    last: "Tensor"
    least: "Tensor"
    most: "Tensor"

    def to(self, device: "torch.device") -> "Gaps":
        """Return the gaps on `device`."""
        return Gaps(*(getattr(self, part.name).to(device) for part in fields(self)))


def cut_gaps(weights: "Tensor") -> Gaps:
    """Cut an axis whose native pixels take decoder pixels with `weights` (N, n)."""
    import torch

    taken = weights != 0
    at_gap = taken[:, :-1].int() + taken[:, 1:].int()  # N g
    only = at_gap == taken.sum(dim=1, keepdim=True)
    place = torch.arange(len(weights), dtype=torch.float32)[:, None]
    return Gaps(
        place.where(only, torch.inf).amin(dim=0),
        place.where(only, -torch.inf).amax(dim=0),
        place.where(at_gap > 0, torch.inf).amin(dim=0),
        place.where(at_gap > 0, -torch.inf).amax(dim=0),
    )


def bound_boxes(logits: "Tensor", rows: Gaps, cols: Gaps, threshold: float) -> "tuple[Tensor, Tensor]":
    """Return boxes within and boxes around (M, 4) the boxes x0, y0, x1, y1 of masks with logits (M, h, w).

    Where nothing surely is in a mask its inner box is inside out, from infinity to minus infinity; where nothing can
    be, so is the outer one.
    """
    import torch

    masks, _ = AT_ONCE[logits.device.type]
    sure, possible = [], []
    for some in logits.split(masks):
        sure.append(_box(some, torch.minimum, threshold, (rows.first, rows.last), (cols.first, cols.last)))
        possible.append(_box(some, torch.maximum, threshold, (rows.least, rows.most), (cols.least, cols.most)))
    return torch.cat(sure), torch.cat(possible)


def _box(
    logits: "Tensor",
    of_two: "Callable[[Tensor, Tensor], Tensor]",
    threshold: float,
    down: "tuple[Tensor, Tensor]",
    across: "tuple[Tensor, Tensor]",
) -> "Tensor":
    """Return the boxes (M, 4) around gaps where an extreme of four decoder pixels is above the threshold.

    Gaps reach from a first to a last native pixel, `down` and `across`; those without any are left out.
    """
    import torch

    of_rows = of_two(logits[:, :-1], logits[:, 1:])
    extreme = of_two(of_rows[:, :, :-1], of_rows[:, :, 1:])
    extreme.masked_fill_(down[0].isinf()[:, None] | across[0].isinf(), -torch.inf)
    edges = [
        (torch.where(hit, first, torch.inf).amin(dim=1), torch.where(hit, last, -torch.inf).amax(dim=1))
        for hit, (first, last) in ((extreme.amax(dim=1) > threshold, across), (extreme.amax(dim=2) > threshold, down))
    ]
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], dim=1)
