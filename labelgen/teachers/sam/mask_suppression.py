"""The stability filter and the box non-maximum suppression of SAM's mask generator, with few masks measured.

Both filters of the stock SamAutomaticMaskGenerator need measures at native size, and hundreds of candidates are near
copies of a dozen masks. So candidates are taken in falling order of predicted IoU, a few at a time. The boxes of all
others are bounded, which costs little, and a candidate whose box certainly overlaps that of a kept mask too much is
dropped without being measured. The same masks survive as when all are measured.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from labelgen.teachers.sam.box_bounds import AxisGaps, bound_boxes
from labelgen.teachers.sam.mask_measures import AxisCells, find_boxes, measure_masks

if TYPE_CHECKING:
    from torch import Tensor

MEASURED_AT_ONCE = {"cpu": 16, "cuda": 2**20}
"""Candidates measured before others are dropped. A GPU measures all: each decision on the host would stall it."""

CERTAINTY_FACTOR = 1 + 1e-5
"""How far a bound of an overlap must exceed the limit, so that rounding changes no decision."""


@dataclass(frozen=True)
class Survivors:
    """S of an image's candidates, in falling order of predicted IoU, with their measures at native size.

    `index` (S,) among the candidates, `predicted_iou` (S,), `stability_score` (S,), `boxes` (S, 4) as x0, y0, x1, y1
    in pixels, `area` (S,) in pixels.
    """

    index: "Tensor"
    predicted_iou: "Tensor"
    stability_score: "Tensor"
    boxes: "Tensor"
    area: "Tensor"

    def __getitem__(self, chosen: "Tensor") -> "Survivors":
        """Return those chosen by an index tensor or a boolean tensor."""
        return Survivors(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def __add__(self, others: "Survivors") -> "Survivors":
        """Return these followed by others."""
        import torch

        names = [field.name for field in fields(self)]
        return Survivors(*(torch.cat([getattr(self, name), getattr(others, name)]) for name in names))


def find_survivors(
    logits: "Tensor",
    predicted_iou: "Tensor",
    cells: tuple[AxisCells, AxisCells],
    gaps: tuple[AxisGaps, AxisGaps],
    threshold: float,
    stability_offset: float,
    min_stability_score: float,
    max_box_iou: float,
) -> Survivors:
    """Return which of an image's M candidates survive both filters, best first.

    Args:
        logits: (M, h, w) of the decoder.
        predicted_iou: (M,).
        cells: the native image's rows and columns, divided for measuring.
        gaps: the same rows and columns, divided for bounding boxes.
        threshold: logit above which a pixel is in the mask.
        stability_offset: distance of the two thresholds of the stability score from `threshold`.
        min_stability_score: masks with a lower score are dropped. With 0 or less empty masks stay too, although their
            score is not a number; the stock generator does the same.
        max_box_iou: a mask is dropped if the IoU of its box with that of a better mask exceeds this.
    """
    from torchvision.ops import nms

    remaining = predicted_iou.argsort(descending=True, stable=True)
    at_once = MEASURED_AT_ONCE[logits.device.type]
    if len(remaining) > at_once:
        inner, outer = bound_boxes(logits, *gaps, threshold)
    kept = None
    while kept is None or len(remaining):
        batch, remaining = remaining[:at_once], remaining[at_once:]
        if kept:
            boxes = find_boxes(logits[batch], inner[batch], *cells, threshold)
            batch = batch[~_certainly_overlap(boxes, boxes, kept.boxes, max_box_iou)]
        measures = measure_masks(logits[batch], *cells, threshold, stability_offset)
        measured = Survivors(batch, predicted_iou[batch], *measures)
        if min_stability_score > 0:
            measured = measured[measured.stability_score >= min_stability_score]
        merged = kept + measured if kept else measured
        kept = merged[nms(merged.boxes, merged.predicted_iou, max_box_iou)]
        if len(remaining):
            remaining = remaining[~_certainly_overlap(inner[remaining], outer[remaining], kept.boxes, max_box_iou)]
    return kept


def _certainly_overlap(inner: "Tensor", outer: "Tensor", boxes: "Tensor", max_box_iou: float) -> "Tensor":
    """Return (K,) whether a box between `inner` and `outer` (K, 4) has an IoU above the limit with any of `boxes`.

    The intersection is at least that of the inner box. The union is at most that of the outer box: the sum of both
    areas minus this intersection.
    """
    import torch

    low = torch.maximum(inner[:, None, :2], boxes[:, :2])
    high = torch.minimum(inner[:, None, 2:], boxes[:, 2:])
    intersection = (high - low).clamp_(min=0).prod(dim=-1)
    outer_area, area = ((corners[:, 2:] - corners[:, :2]).clamp(min=0).prod(dim=-1) for corners in (outer, boxes))
    union = outer_area[:, None] + area - intersection
    return (intersection > max_box_iou * CERTAINTY_FACTOR * union).any(dim=1)
