"""Bounds of masks' boxes at native size, from the decoder's logits alone.

A native pixel is interpolated from decoder pixels around it, so it lies between the least and the greatest of them. An
axis of n decoder pixels has n - 1 gaps: where all four decoder pixels around a gap in rows and one in columns are in a
mask, so are all native pixels there, and where none is, none is.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from labelgen.teachers.sam.mask_measures import AT_ONCE

if TYPE_CHECKING:
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
        sure.append(_box(*_surely_hit(some, rows, cols, threshold), rows.first, rows.last, cols.first, cols.last))
        hit = (_either(some.amax(dim=other) > threshold) for other in (2, 1))
        possible.append(_box(*hit, rows.least, rows.most, cols.least, cols.most))
    return torch.cat(sure), torch.cat(possible)


def _surely_hit(logits: "Tensor", rows: Gaps, cols: Gaps, threshold: float) -> "tuple[Tensor, Tensor]":
    """Return which gaps of rows (M, g) and of columns have native pixels in masks (M, h, w) for sure."""
    import torch

    of_rows = torch.minimum(logits[:, :-1], logits[:, 1:])
    least = torch.minimum(of_rows[:, :, :-1], of_rows[:, :, 1:])
    least.masked_fill_(rows.first.isinf()[:, None] | cols.first.isinf(), -torch.inf)
    return least.amax(dim=2) > threshold, least.amax(dim=1) > threshold


def _either(hit: "Tensor") -> "Tensor":
    """Return which gaps (M, n - 1) lie at one of the pixels that are hit (M, n)."""
    return hit[:, :-1] | hit[:, 1:]


def _box(
    in_rows: "Tensor", in_cols: "Tensor", top: "Tensor", bottom: "Tensor", left: "Tensor", right: "Tensor"
) -> "Tensor":
    """Return the boxes (M, 4) around gaps (M, g) that are hit, which reach from a first to a last native pixel (g,)."""
    import torch

    edges = [
        torch.where(in_cols, left, torch.inf).amin(dim=1),
        torch.where(in_rows, top, torch.inf).amin(dim=1),
        torch.where(in_cols, right, -torch.inf).amax(dim=1),
        torch.where(in_rows, bottom, -torch.inf).amax(dim=1),
    ]
    return torch.stack(edges, dim=1)
