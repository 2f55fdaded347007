"""Class weights of the cross-entropies, so that frequent classes such as walls and roads do not dominate rare ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.stream import CacheStream, SampleRef
from trainer.data.training_caches import TrainingCache

COUNTED_SAMPLES = 64
"""Class frequencies are counted on this many samples, spread evenly over the training samples of a cache."""

MIN_FREQUENCY = 0.002
"""Classes below this share of the labelled elements get the weight of this share: most of their labels are wrong."""


@dataclass(frozen=True)
class ClassWeights:
    """Class weights (C,) f32 for pixels and for points, whose classes are not equally frequent."""

    pixels: Tensor
    points: Tensor


def class_weights(
    caches: Sequence[TrainingCache], steps: Sequence[int], arrays: tuple[str, str], classes: int, exponent: float
) -> ClassWeights | None:
    """Return class weights in proportion to frequency ** -exponent; None if `exponent` is 0.

    Their mean over the labelled pixels, or points, is 1. Frequencies are those in the `arrays` with the labels of
    pixels and of points, as means over the `caches` by their `steps` in an epoch.

    Raises:
        DamagedGroupError: if the labels of a sample cannot be read.
    """
    if not exponent:
        return None
    shares = np.zeros((2, classes))
    for (stream, samples), part in zip(caches, steps, strict=True):
        counts = _count_labels(stream, samples, arrays, classes)
        shares += part / sum(steps) * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    return ClassWeights(*(_weights(share, exponent) for share in shares))


def _count_labels(
    stream: CacheStream, samples: Sequence[SampleRef], names: Sequence[str], classes: int
) -> NDArray[np.int64]:
    """Return how often each class occurs (N, C) in each of N arrays of labels."""
    counted = [samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, COUNTED_SAMPLES).astype(int))]
    counts = np.zeros((len(names), classes), np.int64)
    for ref in counted:
        labels = stream.read(ref, only=names)
        counts += [np.bincount(labels[name].ravel(), minlength=256)[:classes] for name in names]
    return counts


def _weights(share: NDArray[np.float64], exponent: float) -> Tensor:
    weights = np.maximum(share, MIN_FREQUENCY) ** -exponent
    return torch.from_numpy(weights / max((weights * share).sum(), MIN_FREQUENCY)).float()
