"""Frozen features of a teacher where the terms of the loss compare them: at the pairs, and for each point."""

import torch
from torch import Tensor

from trainer.data.batch import Batch
from trainer.networks.bilinear import sample_bilinear


def features_at_pairs(batch: Batch, teacher: str) -> Tensor:
    """Return a teacher's features (N, E) at the pairs, by bilinear interpolation in the original images."""
    return features_at(batch, teacher, batch.pair_image, batch.pair_position)


def features_at(batch: Batch, teacher: str, image: Tensor, position: Tensor) -> Tensor:
    """Return a teacher's features (N, E) at positions in original images.

    Args:
        batch: with the features.
        teacher: `sam` or `clip`.
        image: (N,) i64, the image of each position.
        position: (N, 2) f32, row and column as shares 0..1 of the height and width of the original image.
    """
    features = sample_bilinear(batch.features[teacher], image, position, batch.features_valid[teacher])
    return features * batch.scales[teacher][image] if teacher in batch.scales else features


def mean_over_views(features: Tensor, point: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Return the mean (P, E) of the features (N, E) of each point's pairs, and which points (P,) have any.

    Args:
        features: of the pairs.
        point: (N,) i64, the point of each pair.
        points: the number of points P.
    """
    sums = features.new_zeros(points, features.shape[1]).index_add_(0, point, features)
    views = features.new_zeros(points).index_add_(0, point, torch.ones_like(point, dtype=features.dtype))
    return sums / views.clamp(min=1)[:, None], views > 0
