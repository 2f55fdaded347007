"""How much each class weighs in the cross-entropies, so that rare ones are not drowned by walls and roads."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainer.stream import CacheStream, SampleRef

COUNTED_SAMPLES = 64
"""Frequencies are counted on so many samples, spread evenly over those of the training."""

RAREST = 0.002
"""Classes below this share of the labelled pixels weigh as if they had it: their labels are mostly mistakes."""


def class_weights(
    stream: CacheStream, samples: Sequence[SampleRef], classes: int, exponent: float, refined: bool
) -> Tensor | None:
    """Return weights (C,) f32 in proportion to frequency ** -exponent, of mean 1 over labelled pixels; None for 0.

    Raises:
        CacheError: if a sample cannot be read.
    """
    if not exponent:
        return None
    name = "labels/image" if refined else "labels/image_raw"
    chosen = [samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, COUNTED_SAMPLES).astype(int))]
    counts = sum(np.bincount(stream.read(ref, only=[name])[name].ravel(), minlength=256)[:classes] for ref in chosen)
    share = np.asarray(counts) / max(1, np.sum(counts))
    weights = np.maximum(share, RAREST) ** -exponent
    return torch.from_numpy(weights / max((weights * share).sum(), RAREST)).float()
