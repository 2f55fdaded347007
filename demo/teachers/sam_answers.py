"""Forward pass of the demo SAM in training: features, and masks for point prompts with their targets."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from demo.teachers.loop import half_precision
from demo.teachers.sam_squares import PADDING, Square

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

SURELY_OFF = -20.0
"""Mask logit of pixels outside the prompted picture."""


def encode(model: "Sam", squares: list[Square], device: str) -> tuple[Tensor, Tensor]:
    """Return the features (B, E, h, w) and segments (B, S, S) of squares."""
    segments = torch.from_numpy(np.stack([square.segments for square in squares])).to(device)
    with half_precision(device):
        features: Tensor = model.image_encoder(_preprocess(model, squares, segments))
    return features, segments


def _preprocess(model: "Sam", squares: list[Square], segments: Tensor) -> Tensor:
    """Return normalised pictures (B, 3, S, S); padding is zero, because SAM pads after normalisation."""
    pictures = torch.from_numpy(np.stack([square.rgb for square in squares])).to(segments.device)
    normal: Tensor = model.preprocess(pictures.permute(0, 3, 1, 2))
    return normal * (segments[:, None] != PADDING)


def predict_masks(
    model: "Sam", feature: Tensor, ids: Tensor, square: Square, device: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predict masks for the P point prompts of a square, from its feature (E, h, w) and segment ids (S, S).

    Returns:
        Mask logits (P, 3, m, m), `SURELY_OFF` where ignored; predicted IoU (P, 3); mask targets (P, m, m), the share
        of each decoder pixel inside the segment, 0..1; ignored pixels (P, m, m) bool, outside the prompted picture.
    """
    masks, predicted = _decode(model, feature[None], square, device)
    target, ignored = _targets(ids, square, masks.shape[-1])
    return masks.float().masked_fill(ignored[:, None], SURELY_OFF), predicted.float(), target, ignored


def _decode(model: "Sam", feature: Tensor, square: Square, device: str) -> tuple[Tensor, Tensor]:
    """Return mask logits (P, 3, m, m) and predicted IoU (P, 3) for the square's points."""
    points = torch.from_numpy(np.stack([square.columns, square.rows], axis=1)[:, None]).float().to(device)
    ones = torch.ones(len(points), 1, dtype=torch.int, device=device)
    sparse, dense = model.prompt_encoder(points=(points, ones), boxes=None, masks=None)
    with half_precision(device):
        masks, predicted = model.mask_decoder(
            image_embeddings=feature,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    return masks, predicted


def _targets(ids: Tensor, square: Square, masks: int) -> tuple[Tensor, Tensor]:
    """Return targets (P, m, m) of masks of side `masks`, and ignored pixels (P, m, m).

    A target is the share of a decoder pixel that the segment under the point covers. Pixels outside the point's picture
    are ignored, since masks are cropped to the picture later.
    """
    rows, columns = torch.from_numpy(square.rows), torch.from_numpy(square.columns)
    inside = ids[None] == ids[rows, columns][:, None, None]
    step = ids.shape[-1] // masks
    pictures = torch.from_numpy(square.pictures).to(ids.device)
    ignored = pictures[None, ::step, ::step] != pictures[rows, columns][:, None, None]
    return functional.avg_pool2d(inside.float(), step), ignored
