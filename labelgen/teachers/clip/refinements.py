"""Refinements of dense class scores, which remove false classes or average scores over similar patches.

Sources: Zhou et al., "Extract Free Dense Labels from CLIP" (MaskCLIP), 2022; Chen et al., "Training-Free Class
Purification for Open-Vocabulary Semantic Segmentation" (FreeCP), 2025; Benigmim et al., "FLOSS", 2025.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE = 100.0
"""Factor on the cosines before the softmax: OpenAI's CLIP learned it, MaskCLIP uses it as a constant."""

LOWEST_COSINE = -1.0


def denoise_prompts(logits: "Tensor", threshold: float) -> "Tensor":
    """Remove classes that are unlikely everywhere in an image (prompt denoising).

    A class whose softmax(100 * cosine) is below `threshold` at all positions of an image gets cosine -1 there. If that
    applies to every class, the image is left as it is.

    Args:
        logits: cosines (B, C, h, w).
        threshold: a probability.

    Returns:
        Cosines (B, C, h, w).
    """
    unsure = (TEMPERATURE * logits).softmax(dim=1).amax(dim=(2, 3), keepdim=True) < threshold
    return logits.masked_fill(unsure & ~unsure.all(dim=1, keepdim=True), LOWEST_COSINE)


def smooth_by_keys(logits: "Tensor", keys: "Tensor", threshold: float) -> "Tensor":
    """Average the scores of unsure positions over positions with similar keys (key smoothing).

    A position is unsure if its highest softmax(100 * cosine) is below `threshold`. It gets the weighted mean of the
    scores of all positions in the image. The weight is the cosine of the two keys, or 0 where that is negative. It is
    a mean, not a sum, so that the result is still a cosine.

    Args:
        logits: cosines (B, C, h, w).
        keys: keys (B, K, h, w) of the last attention.
        threshold: a probability.

    Returns:
        Cosines (B, C, h, w).
    """
    import torch
    from torch.nn import functional

    scores = logits.flatten(2)
    unit_keys = functional.normalize(keys.flatten(2), dim=1)
    affinity = torch.einsum("bki,bkj->bij", unit_keys, unit_keys).clamp(min=0)
    smooth = torch.einsum("bij,bcj->bci", affinity / affinity.sum(dim=2, keepdim=True), scores)
    unsure = (TEMPERATURE * scores).softmax(dim=1).amax(dim=1, keepdim=True) < threshold
    return torch.where(unsure, smooth, scores).view_as(logits)


def smooth_by_keys_as_released(logits: "Tensor", keys: "Tensor", threshold: float) -> "Tensor":
    """Smooth by keys as MaskCLIP's released code does it for a ViT.

    It differs from `smooth_by_keys`: all scores become probabilities, softmax(100 * cosine); each channel of the keys
    is normalised over the positions of the image, not each position over its channels; weights may be negative; and
    unsure positions get a weighted sum, not a mean.

    Args:
        logits: cosines (B, C, h, w).
        keys: keys (B, K, h, w) of the last attention.
        threshold: a probability.

    Returns:
        Probabilities, or weighted sums of them, (B, C, h, w).
    """
    import torch
    from torch.nn import functional

    scores = (TEMPERATURE * logits.flatten(2)).softmax(dim=1)
    over_positions = functional.normalize(keys.flatten(2), dim=2)
    sums = torch.einsum("bki,bkj,bcj->bci", over_positions, over_positions, scores)
    unsure = scores.amax(dim=1, keepdim=True) < threshold
    return torch.where(unsure, sums, scores).view_as(logits)


def purify_classes(logits: "Tensor", keys: "Tensor", threshold: float) -> "Tensor":
    """Remove the classes of an image whose patches change too much when scores are smoothed by keys.

    The IoU of a class is that of the patches where it wins before and after smoothing. A class of lower IoU than
    `threshold` gets cosine -1 all over the image, also one that wins nowhere. If that applies to every class, the image
    is left as it is. FreeCP compares soft maps, refines them by the attention of all layers, and then also tells
    similar classes apart with crops; this is its first step alone, on hard maps.

    Args:
        logits: cosines (B, C, h, w).
        keys: keys (B, K, h, w) of the last attention.
        threshold: an IoU.

    Returns:
        Cosines (B, C, h, w).
    """
    from torch.nn import functional

    def wins(scores: "Tensor") -> "Tensor":
        return functional.one_hot(scores.argmax(dim=1), scores.shape[1]).bool().flatten(1, 2)

    before, after = wins(logits), wins(smooth_by_keys(logits, keys, threshold=float("inf")))
    overlap = (before & after).sum(dim=1) / (before | after).sum(dim=1).clamp(min=1)
    false = (overlap < threshold)[:, :, None, None]
    return logits.masked_fill(false & ~false.all(dim=1, keepdim=True), LOWEST_COSINE)


def expert_embeddings(features: "Tensor", templates: "Tensor", count: int) -> "Tensor":
    """Return the class embeddings (B, C, D) of images, each from the `count` templates that are surest of the class.

    As in FLOSS, the entropy of a template and a class is the mean entropy of softmax(100 * cosine) over the patches
    where the template alone makes the class win, and the lowest ones are chosen. FLOSS chooses once for a data set and
    joins the predictions of the chosen templates. Here each image chooses, so that its scores depend on nothing else,
    and the embedding of the class is the mean over the chosen templates. A class that wins nowhere keeps all.

    Args:
        features: (B, D, h, w) of unit norm.
        templates: embeddings (T, C, D) of each class in each template, of unit norm.
        count: at most so many templates for each class.
    """
    import torch
    from torch.nn import functional

    embeddings = []
    for image in features.flatten(2):
        scores = TEMPERATURE * torch.einsum("dn,tcd->tcn", image, templates)
        entropy = -(scores.softmax(dim=1) * scores.log_softmax(dim=1)).sum(dim=1)
        wins = functional.one_hot(scores.argmax(dim=1), scores.shape[1]).to(entropy.dtype)
        won = wins.sum(dim=1)
        mean = torch.where(won > 0, torch.einsum("tn,tnc->tc", entropy, wins) / won.clamp(min=1), float("inf"))
        rank = mean.argsort(dim=0, stable=True).argsort(dim=0)
        chosen = ((rank < count) & (won > 0)) | ~(won > 0).any(dim=0)
        embeddings.append(
            functional.normalize(torch.einsum("tc,tcd->cd", chosen.to(templates.dtype), templates), dim=1)
        )
    return torch.stack(embeddings)
