"""The four stages of the demo SAM's training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage of the training.

    Attributes:
        name: part of the name of the file with its weights; "" for the last stage, which writes the final file.
        steps: number of training steps.
        side: height and width of the training squares in pixels.
        squares: squares a step.
        points: point prompts on each square.
        smallest: area in pixels of the smallest segment that gets a prompt.
        by_segment: share of the prompts whose segment is drawn uniformly; the others are uniform over pixels.
        iou_weight: weight of the loss of the IoU head.
        even: whether all pixels weigh the same in the mask loss; if not, a segment weighs as much as its surroundings.
    """

    name: str
    steps: int
    side: int
    squares: int
    points: int = 20
    smallest: int = 30
    by_segment: float = 0.75
    iou_weight: float = 1
    even: bool = False


ENCODER = Stage("encoder", 4000, side=256, squares=3)
PROMPTS = Stage("prompts", 3500, side=256, squares=3)
FULL_SIZE = Stage("full-size", 2800, side=384, squares=2)
OUTLINES = Stage("", 1100, side=384, squares=2, points=40, smallest=60, by_segment=0.5, iou_weight=4, even=True)
