"""Bounds of the boxes of masks at native size, from the decoder's logits alone.

A native pixel is a weighted mean of the decoder pixels around it, so its logit lies between their least and their
greatest. An axis of n decoder pixels has n - 1 gaps between neighbours. Take the four decoder pixels around a gap in
rows and a gap in columns: if all four are in a mask, so are all native pixels between them; if none is, none of these
native pixels is.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from labelgen.teachers.sam.mask_measures import MASKS_AT_ONCE

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class AxisGaps:
    """One axis of the native image, divided at the g gaps between decoder pixels. All fields are (g,) f32.

    Attributes:
        first: position of the first native pixel that is interpolated from the two decoder pixels at the gap only;
            infinity if there is none.
        last: position of the last such native pixel; minus infinity if there is none.
        least: position of the first native pixel that is interpolated from at least one of the two; or infinity.
        most: position of the last such native pixel; or minus infinity.
    """

    first: "Tensor"
    last: "Tensor"
    least: "Tensor"
    most: "Tensor"

    def to(self, device: "torch.device") -> "AxisGaps":
        """Return a copy on `device`."""
        return AxisGaps(*(getattr(self, field.name).to(device) for field in fields(self)))


def divide_into_gaps(weights: "Tensor") -> AxisGaps:
    """Divide an axis whose N native pixels are interpolated from n decoder pixels with `weights` (N, n)."""
    import torch

    used = weights != 0
    used_at_gap = used[:, :-1].int() + used[:, 1:].int()  # (N, g)
    only_at_gap = used_at_gap == used.sum(dim=1, keepdim=True)
    position = torch.arange(len(weights), dtype=torch.float32)[:, None]
    return AxisGaps(
        first=position.where(only_at_gap, torch.inf).amin(dim=0),
        last=position.where(only_at_gap, -torch.inf).amax(dim=0),
        least=position.where(used_at_gap > 0, torch.inf).amin(dim=0),
        most=position.where(used_at_gap > 0, -torch.inf).amax(dim=0),
    )


def bound_boxes(logits: "Tensor", rows: AxisGaps, cols: AxisGaps, threshold: float) -> "tuple[Tensor, Tensor]":
    """Bound the boxes of masks at native size from inside and from outside.

    Args:
        logits: (M, h, w) of the decoder.
        rows: gaps of the native rows.
        cols: gaps of the native columns.
        threshold: logit above which a pixel is in the mask.

    Returns:
        Inner boxes (M, 4), which lie within the boxes of the masks, and outer boxes (M, 4), which contain them, as x0,
        y0, x1, y1 in native pixels. An inner box is (inf, inf, -inf, -inf) if no native pixel is certain to be in the
        mask; an outer box is, if no native pixel can be in the mask.
    """
    import torch

    inner, outer = [], []
    for part in logits.split(MASKS_AT_ONCE[logits.device.type]):
        certain_rows, certain_cols = _certain_gaps(part, rows, cols, threshold)
        inner.append(_box(certain_rows, certain_cols, rows.first, rows.last, cols.first, cols.last))
        possible_rows, possible_cols = (_gaps_beside(part.amax(dim=other) > threshold) for other in (2, 1))
        outer.append(_box(possible_rows, possible_cols, rows.least, rows.most, cols.least, cols.most))
    return torch.cat(inner), torch.cat(outer)


def _certain_gaps(logits: "Tensor", rows: AxisGaps, cols: AxisGaps, threshold: float) -> "tuple[Tensor, Tensor]":
    """Return which gaps in rows (M, g) and in columns (M, g') are certain to have native pixels in masks (M, h, w)."""
    import torch

    lower_of_rows = torch.minimum(logits[:, :-1], logits[:, 1:])
    lowest_of_four = torch.minimum(lower_of_rows[:, :, :-1], lower_of_rows[:, :, 1:])
    lowest_of_four.masked_fill_(rows.first.isinf()[:, None] | cols.first.isinf(), -torch.inf)
    return lowest_of_four.amax(dim=2) > threshold, lowest_of_four.amax(dim=1) > threshold


def _gaps_beside(in_mask: "Tensor") -> "Tensor":
    """Return which gaps (M, n - 1) lie beside a decoder pixel that is in the mask (M, n)."""
    return in_mask[:, :-1] | in_mask[:, 1:]


def _box(
    in_rows: "Tensor", in_cols: "Tensor", top: "Tensor", bottom: "Tensor", left: "Tensor", right: "Tensor"
) -> "Tensor":
    """Return the boxes (M, 4) around the marked gaps (M, g), which extend from a first to a last native pixel (g,)."""
    import torch

    edges = [
        torch.where(in_cols, left, torch.inf).amin(dim=1),
        torch.where(in_rows, top, torch.inf).amin(dim=1),
        torch.where(in_cols, right, -torch.inf).amax(dim=1),
        torch.where(in_rows, bottom, -torch.inf).amax(dim=1),
    ]
    return torch.stack(edges, dim=1)
