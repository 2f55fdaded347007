"""The losses of Cross-modality Noisy Supervision (CNS, https://arxiv.org/abs/2306.03899): one function an equation.

A loss is a sum over elements together with their number, so that ranks can divide by the number on all ranks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cache_schemas.taxonomy import IGNORE


@dataclass(frozen=True)
class LossSum:
    """A loss summed over elements, and the number of elements (or the sum of their weights); scalars."""

    total: Tensor
    count: Tensor


def semantic_loss(scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossSum:
    """Return the cross-entropy of eq 5 and 6, summed over elements whose label is not the ignore index 255.

    Args:
        scores: (N, C, ..) f32 or bf16, class scores of pixels or points.
        labels: (N, ..) u8.
        weights: (C,) f32; an element counts as much as its class weighs. None: all elements count alike.
    """
    entropy = functional.cross_entropy(
        scores.float(), labels.long(), weight=weights, ignore_index=IGNORE, reduction="sum"
    )
    labelled = labels != IGNORE
    return LossSum(entropy, labelled.sum() if weights is None else weights[labels[labelled].long()].sum())


def latent_loss(features: Tensor, teacher: Tensor) -> LossSum:
    """Return eq 7 for one network: 1 - cos of its features and a teacher's, summed over pairs.

    Args:
        features: (N, K), mapped features of the network at the pairs.
        teacher: (N, K), mapped frozen features at the same pairs; they are normalised here.
    """
    cosine = functional.cosine_similarity(features.float(), functional.normalize(teacher.float(), dim=1), dim=1)
    return LossSum((1 - cosine).sum(), torch.tensor(len(cosine), device=cosine.device))
