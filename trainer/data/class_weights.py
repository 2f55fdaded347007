"""Class weights of the cross-entropies, so that frequent classes such as walls and roads do not dominate rare ones."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainer.data.stream import CacheStream, SampleRef

COUNTED_SAMPLES = 64
"""Class frequencies are counted on this many samples, spread evenly over the training samples."""

MIN_FREQUENCY = 0.002
"""Classes below this share of the labelled pixels get the weight of this share: most of their labels are wrong."""


def class_weights(
    stream: CacheStream, samples: Sequence[SampleRef], classes: int, exponent: float, refined: bool
) -> Tensor | None:
    """Return class weights (C,) f32 in proportion to frequency ** -exponent; None if `exponent` is 0.

    Their mean over the labelled pixels is 1. Frequencies are those of the refined labels, or else of the raw ones.

    Raises:
        DamagedGroupError: if the labels of a sample cannot be read.
    """
    if not exponent:
        return None
    name = "labels/image" if refined else "labels/image_raw"
    counted = [samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, COUNTED_SAMPLES).astype(int))]
    counts = np.zeros(classes, np.int64)
    for ref in counted:
        counts += np.bincount(stream.read(ref, only=[name])[name].ravel(), minlength=256)[:classes]
    share = counts / max(1, counts.sum())
    weights = np.maximum(share, MIN_FREQUENCY) ** -exponent
    return torch.from_numpy(weights / max((weights * share).sum(), MIN_FREQUENCY)).float()
