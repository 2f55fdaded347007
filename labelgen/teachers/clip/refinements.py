"""MaskCLIP's two refinements of dense class scores: prompt denoising and key smoothing.

Source: Zhou et al., "Extract Free Dense Labels from CLIP", 2022.
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
