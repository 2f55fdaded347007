"""Which automatic masks survive the stock generator's filters by stability and box overlap, with few of them measured.

Both filters need native-size measures, and hundreds of candidates are near copies of a dozen masks. So candidates are
taken in falling order of predicted IoU, a few at a time; all others get bounds of their boxes, which cost little, and
those that surely overlap a survivor too much are never measured. Same survivors as measuring all.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from labelgen.teachers.sam.box_bounds import Gaps, bound_boxes
from labelgen.teachers.sam.mask_measures import Cells, find_boxes, measure

if TYPE_CHECKING:
    from torch import Tensor

MEASURED_AT_ONCE = {"cpu": 16, "cuda": 2**20}
"""Candidates that are measured before others are dropped; a GPU measures all, for it would wait for each decision."""

SURELY = 1 + 1e-5
"""How far a bound of an overlap must exceed the limit, so that rounding changes no decision."""


@dataclass(frozen=True)
class Survivors:
    """S of the candidates, in falling order of `predicted_iou` (S,): `index` (S,) among them, and what was measured.

    `stability` and `area` (S,), `boxes` (S, 4) as x0, y0, x1, y1; in native pixels.
    """

    index: "Tensor"
    predicted_iou: "Tensor"
    stability: "Tensor"
    boxes: "Tensor"
    area: "Tensor"

    def __getitem__(self, chosen: "Tensor") -> "Survivors":
        """Return some of them, by index or mask."""
        return Survivors(*(getattr(self, part.name)[chosen] for part in fields(self)))

    def __add__(self, others: "Survivors") -> "Survivors":
        """Return these and, after them, others."""
        import torch

        return Survivors(*(torch.cat([getattr(self, part.name), getattr(others, part.name)]) for part in fields(self)))


def find_survivors(
    logits: "Tensor",
    predicted_iou: "Tensor",
    cells: tuple[Cells, Cells],
    gaps: tuple[Gaps, Gaps],
    threshold: float,
    offset: float,
    least_stability: float,
    most_overlap: float,
) -> Survivors:
    """Return which of an image's M candidates survive, best first.

    Args:
        logits: (M, h, w) of the decoder.
        predicted_iou: (M,).
        cells: the native image's rows and columns, cut for measuring.
        gaps: the same, cut for bounds.
        threshold: of logits inside a mask.
        offset: above and below it, for the stability.
        least_stability: 0 or less keeps empty masks, too, whose stability is no number; so does stock.
        most_overlap: IoU of boxes beyond which the worse one is dropped.
    """
    from torchvision.ops import nms

    left = predicted_iou.argsort(descending=True, stable=True)
    at_once = MEASURED_AT_ONCE[logits.device.type]
    if len(left) > at_once:
        inner, outer = bound_boxes(logits, *gaps, threshold)
    found = None
    while found is None or len(left):
        some, left = left[:at_once], left[at_once:]
        if found:
            boxes = find_boxes(logits[some], inner[some], *cells, threshold)
            some = some[~_surely_overlap(boxes, boxes, found.boxes, most_overlap)]
        measured = Survivors(some, predicted_iou[some], *measure(logits[some], *cells, threshold, offset))
        if least_stability > 0:
            measured = measured[measured.stability >= least_stability]
        both = found + measured if found else measured
        found = both[nms(both.boxes, both.predicted_iou, most_overlap)]
        if len(left):
            left = left[~_surely_overlap(inner[left], outer[left], found.boxes, most_overlap)]
    return found


def _surely_overlap(inner: "Tensor", outer: "Tensor", boxes: "Tensor", most: float) -> "Tensor":
    """Return (K,) whether a box between `inner` and `outer` (K, 4) overlaps one of `boxes` (S, 4) by more than `most`.

    The intersection is at least that of the inner box, the union at most that of the outer box less this.
    """
    import torch

    low = torch.maximum(inner[:, None, :2], boxes[:, :2])
    high = torch.minimum(inner[:, None, 2:], boxes[:, 2:])
    intersection = (high - low).clamp_(min=0).prod(dim=-1)
    outer_area, area = ((some[:, 2:] - some[:, :2]).clamp(min=0).prod(dim=-1) for some in (outer, boxes))
    union = outer_area[:, None] + area - intersection
    sure: Tensor = (intersection > most * SURELY * union).any(dim=1)
    return sure
