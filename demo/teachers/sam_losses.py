"""Losses of the demo SAM's training: on pairs of pixels, on masks and their IoU, on attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from demo.teachers.loop import half_precision
from demo.teachers.sam_answers import encode, predict_masks
from demo.teachers.sam_squares import PADDING, Square
from demo.teachers.sam_stages import Stage

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

PAIRS_A_SQUARE, NEAREST_PAIR_PX = 2000, 3
PAIR_WEIGHT = ATTENTION_WEIGHT = 0.5

LEAST_AREA_PX = 4
"""Least area by which a mask loss is divided."""

POINT_TOKEN = 5
"""Index of the point among the decoder's tokens: one for the IoU and four for masks come first."""


def encoder_loss(model: "Sam", squares: list[Square], rng: np.random.Generator, device: str) -> tuple[Tensor, float]:
    """Return the pair loss of the squares' features, and the share of pairs classified correctly."""
    features, segments = encode(model, squares, device)
    return _pair_loss(model, features, segments, rng)


def prompt_loss(
    model: "Sam", squares: list[Square], stage: Stage, rng: np.random.Generator, device: str
) -> tuple[Tensor, float]:
    """Return the sum of mask loss, attention loss and pair loss of squares, and the mean best IoU."""
    features, segments = encode(model, squares, device)
    pair_loss, _ = _pair_loss(model, features, segments, rng)
    losses, ious = [], []
    for feature, ids, square in zip(features, segments, squares, strict=True):
        with _watched_attention(model) as attention:
            masks, predicted, target, ignored = predict_masks(model, feature, ids, square, device)
        loss, iou = _mask_loss(masks, predicted, target, stage)
        losses.append(loss + ATTENTION_WEIGHT * _attention_loss(attention, target, ignored))
        ious.append(iou)
    return torch.stack(losses).mean() + PAIR_WEIGHT * pair_loss, float(torch.stack(ious).mean())


def _pair_loss(model: "Sam", features: Tensor, segments: Tensor, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Return the loss of predicting from features whether two pixels share a segment, and the accuracy.

    The prediction is the cosine of the two pixels' features: once of the encoder's (B, E, h, w), once of the decoder's
    upscaled ones.
    """
    with half_precision(features.device.type):
        fine = model.mask_decoder.output_upscaling(features)
    losses, right = [], []
    for ids, *levels in zip(segments, features.float(), fine.float(), strict=True):
        one, other = _pairs(ids.cpu().numpy(), rng)
        same = (ids[*one] == ids[*other]).float()
        for level in levels:
            stride = ids.shape[-1] // level.shape[-1]
            vectors = functional.normalize(level, dim=0)
            cosine = (vectors[:, *one // stride] * vectors[:, *other // stride]).sum(dim=0)
            entropy = functional.binary_cross_entropy_with_logits(10 * (cosine - 0.5), same, reduction="none")
            losses.append(_balanced(entropy, same))
            right.append(_balanced(((cosine > 0.5) == (same > 0)).float(), same) / 2)
    return torch.stack(losses).mean(), float(torch.stack(right).mean())


def _pairs(ids: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw pairs of pixels of a square (S, S) as two arrays (2, P) of rows and columns; log-uniform in distance."""
    side = len(ids)
    one = np.stack(np.divmod(rng.choice(np.flatnonzero(ids != PADDING), PAIRS_A_SQUARE), side))
    distance = np.exp(rng.uniform(np.log(NEAREST_PAIR_PX), np.log(side / 2), PAIRS_A_SQUARE))
    angle = rng.uniform(0, 2 * np.pi, PAIRS_A_SQUARE)
    step = distance * np.stack([np.sin(angle), np.cos(angle)])
    other = np.clip(one + np.rint(step).astype(np.int64), 0, side - 1)
    shown = ids[*other] != PADDING
    return one[:, shown], other[:, shown]


def _mask_loss(masks: Tensor, predicted: Tensor, target: Tensor, stage: Stage) -> tuple[Tensor, Tensor]:
    """Return the loss of the best of three masks (P, 3, m, m) and of all three predicted IoUs, and the mean best IoU.

    The best mask is the one nearest to its target (P, m, m).
    """
    with torch.no_grad():
        on, truth = masks > 0, (target > 0.5)[:, None]
        iou = (on & truth).sum((2, 3)) / (on | truth).sum((2, 3)).clamp(min=1)
    best = masks[torch.arange(len(masks), device=masks.device), best_mask(masks, target)]
    entropy = functional.binary_cross_entropy_with_logits(best, target, reduction="none")
    weighed = _by_area(entropy, best, target) if stage.even else _balanced(entropy.flatten(1), target.flatten(1))
    loss = _dice(best, target).mean() + 0.5 * weighed + stage.iou_weight * functional.mse_loss(predicted, iou)
    return loss, iou.max(dim=1).values.mean()


@torch.no_grad()
def best_mask(masks: Tensor, target: Tensor) -> Tensor:
    """Return the index (P,) of the mask (P, 3, m, m) with the least dice loss against its target (P, m, m)."""
    return _dice(masks, target[:, None]).argmin(dim=1)


def _dice(masks: Tensor, target: Tensor) -> Tensor:
    """Return the soft dice loss of mask logits against targets (.., m, m)."""
    probability = masks.sigmoid()
    overlap, total = (probability * target).sum((-2, -1)), probability.sum((-2, -1)) + target.sum((-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)


def _by_area(entropy: Tensor, masks: Tensor, target: Tensor) -> Tensor:
    """Return cross-entropies (P, m, m) summed over each mask and divided by the areas of mask and segment; the mean."""
    area = (masks.detach().sigmoid() + target).sum((1, 2))
    return (entropy.sum((1, 2)) / area.clamp(min=LEAST_AREA_PX)).mean()


@contextmanager
def _watched_attention(model: "Sam") -> Iterator[list[Tensor]]:
    """Collect for each block how much image tokens attend to the point's token: (P, N), the mean over heads."""
    found: list[Tensor] = []

    def watch(attention: Any, _: tuple[()], inputs: dict[str, Tensor]) -> None:
        heads = (attention.num_heads, -1)
        query = attention.q_proj(inputs["q"]).unflatten(-1, heads).transpose(1, 2)
        key = attention.k_proj(inputs["k"]).unflatten(-1, heads).transpose(1, 2)
        weights = (query @ key.mT * query.shape[-1] ** -0.5).float().softmax(dim=-1)
        found.append(weights[..., POINT_TOKEN].mean(dim=1))

    blocks: Any = model.mask_decoder.transformer.layers  # PyTorch has no types for a module's submodules
    hooks = [b.cross_attn_image_to_token.register_forward_pre_hook(watch, with_kwargs=True) for b in blocks]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _attention_loss(attention: list[Tensor], target: Tensor, ignored: Tensor) -> Tensor:
    """Return the balanced cross-entropy of attention to the point (P, N) against its segment (P, m, m)."""
    grid = int(attention[0].shape[-1] ** 0.5)
    step = target.shape[-1] // grid
    share = functional.avg_pool2d(target, step).flatten(1)
    shown = (~ignored[:, ::step, ::step]).float().flatten(1)
    losses = [
        _balanced(functional.binary_cross_entropy(a.clamp(1e-4, 1 - 1e-4), share, reduction="none"), share, shown)
        for a in attention
    ]
    return torch.stack(losses).mean()


def _balanced(values: Tensor, inside: Tensor, shown: Tensor | None = None) -> Tensor:
    """Return the mean of values (.., N) weighted by `inside`, plus the mean weighted by `shown` minus `inside`."""
    outside = (1 if shown is None else shown) - inside
    both = [(values * w).sum(dim=-1) / w.sum(dim=-1).clamp(min=1) for w in (inside, outside)]
    return torch.stack(both).sum(dim=0).mean()
