"""Agreement of the 2D and the 3D network at the pairs: the score that chooses the best checkpoint without truth."""

import torch
from torch import Tensor

from trainer.data.batch import Batch
from trainer.targets import Predictions


def count_agreement(batch: Batch, predictions: Predictions, classes: int) -> Tensor | None:
    """Return counts (3, C) i64 of pairs by class: predicted by both networks, by at least one, labelled by CLIP.

    None if there is one network alone.
    """
    if predictions.pixels is None or predictions.points is None:
        return None
    pixel = predictions.pixels[batch.pair_image, batch.pair_row, batch.pair_col].long()
    point = predictions.points[batch.pair_point].long()
    both = torch.bincount(pixel[pixel == point], minlength=classes)
    either = torch.bincount(pixel, minlength=classes) + torch.bincount(point, minlength=classes) - both
    labels = batch.point_labels[batch.pair_point].long()
    return torch.stack([both, either, torch.bincount(labels[labels < classes], minlength=classes)])


def agreement_iou(counts: Tensor) -> float:
    """Return the IoU of the two networks' labels, from counts (3, C): the mean over classes that CLIP's labels have."""
    both, either, labelled = counts.tolist()
    shares: list[float] = [b / max(1, e) for b, e, n in zip(both, either, labelled, strict=True) if n]
    return sum(shares) / max(1, len(shares))
