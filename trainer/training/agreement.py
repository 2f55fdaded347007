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
    labels = batch.point_labels[batch.pair_point].long()
    of_pixel, of_point = _count(pixel, classes), _count(point, classes)
    both = _count(torch.where(pixel == point, pixel, classes), classes)
    return torch.stack([both, of_pixel + of_point - both, _count(labels, classes)])


def _count(values: Tensor, classes: int) -> Tensor:
    """Return how often each class is in `values` (N,) i64; others, which are at least `classes`, are not counted.

    `torch.bincount` and boolean masks would make the CPU wait for a GPU; this does not.
    """
    counts = torch.zeros(classes + 1, dtype=torch.int64, device=values.device)
    return counts.scatter_add_(0, values.clamp(max=classes), torch.ones_like(values))[:classes]


def agreement_iou(counts: Tensor) -> float:
    """Return the IoU of the two networks' labels, from counts (3, C): the mean over classes that CLIP's labels have."""
    both, either, labelled = counts.tolist()
    shares: list[float] = [b / max(1, e) for b, e, n in zip(both, either, labelled, strict=True) if n]
    return sum(shares) / max(1, len(shares))
