"""Features of a teacher as int8, with a scale for each image and channel."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_INT8 = 127


def quantise(features: "Tensor") -> "tuple[Tensor, Tensor]":
    """Round features (B, h, w, C) f32 to int8, symmetrically about zero.

    Returns:
        The quantised features (B, h, w, C) i8, and the scale (B, C) f32: features are about quantised * scale. The
        scale of a channel that is zero all over an image is 0.
    """
    import torch

    scale = features.abs().amax(dim=(1, 2)) / LARGEST_INT8
    divisor = scale.where(scale > 0, 1.0)
    return (features / divisor[:, None, None]).round().to(torch.int8), scale
