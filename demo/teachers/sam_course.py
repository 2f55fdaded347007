"""The course of the demo SAM's training: its four parts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Course:
    """A `part` of the training: so many `steps`, each with `squares` of `side` pixels and `points` on each.

    The last part has no name, for what it makes is what the script shall write.

    Points are on segments of `smallest` pixels and more; a share `by_segment` of them falls on segments chosen evenly,
    the rest on pixels chosen evenly, as a grid's points would. `iou_weight` is that of the IoU head's loss. In the loss
    of masks a segment weighs as much as the rest of the picture, or, if `even`, all pixels alike.
    """

    part: str
    steps: int
    side: int
    squares: int
    points: int = 20
    smallest: int = 30
    by_segment: float = 0.75
    iou_weight: float = 1
    even: bool = False


ENCODER = Course("encoder", 4000, side=256, squares=3)
PROMPTS = Course("prompts", 3500, side=256, squares=3)
FULL_SIZE = Course("full-size", 2800, side=384, squares=2)
OUTLINES = Course("", 1100, side=384, squares=2, points=40, smallest=60, by_segment=0.5, iou_weight=4, even=True)
