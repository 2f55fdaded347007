"""What the demo SAM in training makes of squares and their points, beside what it should."""

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
"""Logit of pixels that are no part of the prompted picture."""


def encode(model: "Sam", squares: list[Square], device: str) -> tuple[Tensor, Tensor]:
    """Return the features (B, E, h, w) and segments (B, S, S) of squares."""
    segments = torch.from_numpy(np.stack([square.segments for square in squares])).to(device)
    with half_precision(device):
        features: Tensor = model.image_encoder(_preprocess(model, squares, segments))
    return features, segments


def _preprocess(model: "Sam", squares: list[Square], segments: Tensor) -> Tensor:
    """Normalise pictures (B, 3, S, S) as SAM does, which pads after that, with zeros."""
    pictures = torch.from_numpy(np.stack([square.rgb for square in squares])).to(segments.device)
    normal: Tensor = model.preprocess(pictures.permute(0, 3, 1, 2))
    return normal * (segments[:, None] != PADDING)


def answer(
    model: "Sam", feature: Tensor, ids: Tensor, square: Square, device: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Let the decoder answer a square's P points, from its feature (E, h, w) and segment ids (S, S).

    Returns mask logits (P, 3, m, m) and predicted IoU (P, 3); the masks' targets (P, m, m), shares from 0 to 1; and
    elsewhere (P, m, m), the pixels of another picture or none, where masks are `SURELY_OFF`.
    """
    masks, predicted = _decode(model, feature[None], square, device)
    target, elsewhere = _targets(ids, square, masks.shape[-1])
    return masks.float().masked_fill(elsewhere[:, None], SURELY_OFF), predicted.float(), target, elsewhere


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
    """Return the share (P, m, m) of each decoder pixel that the segment under each point covers, and what to ignore.

    Ignored (P, m, m) is what is not the point's picture, since masks are cut to the picture in use.
    """
    rows, columns = torch.from_numpy(square.rows), torch.from_numpy(square.columns)
    inside = ids[None] == ids[rows, columns][:, None, None]
    step = ids.shape[-1] // masks
    pictures = torch.from_numpy(square.pictures).to(ids.device)
    elsewhere = pictures[None, ::step, ::step] != pictures[rows, columns][:, None, None]
    return functional.avg_pool2d(inside.float(), step), elsewhere
