"""SAM's automatic masks: what the stock SamAutomaticMaskGenerator returns, without the work that it throws away.

The stock generator brings all three masks of every prompt to the native size, encodes those that pass its filters
as run lengths in Python, and decodes the few that survive. Here masks are filtered by predicted IoU while they are
still small, and only survivors of the final non-maximum suppression are made at native size. Same filters, same
order, same masks.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from labelgen.settings import SamSettings
from labelgen.teachers.masks import MaskProposal

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

MASKS_AT_ONCE = 64
"""Masks brought to native size together: bounds memory."""


def propose_masks(
    model: "Sam", embedding: "Tensor", native: tuple[int, int], settings: SamSettings
) -> list[MaskProposal]:
    """Return the automatic masks of an image of `native` (height, width) whose embedding (256, h, w) is known."""
    import torch
    from torchvision.ops import batched_nms

    small, scores = _good_small_masks(model, embedding[None], native, settings)
    stability, boxes, kept = [], [], []
    for start, masks in _at_native_size(model, small, native):
        stable = _stability(masks, model.mask_threshold, settings.stability_score_offset)
        off = settings.stability_score_thresh <= 0
        keep = torch.ones_like(stable, dtype=torch.bool) if off else stable >= settings.stability_score_thresh
        stability.append(stable[keep])
        boxes.append(_boxes(masks[keep] > model.mask_threshold))
        kept.append(keep.nonzero()[:, 0] + start)
    if not kept:
        return []
    index, stable = torch.cat(kept), torch.cat(stability)
    order = batched_nms(
        torch.cat(boxes).float(), scores[index], torch.zeros_like(scores[index]), settings.box_nms_thresh
    )
    winners = index[order]
    inside = [masks > model.mask_threshold for _, masks in _at_native_size(model, small[winners], native)]
    return [
        MaskProposal(mask.numpy(), float(score), float(steadiness))
        for mask, score, steadiness in zip(
            torch.cat(inside).cpu() if inside else [], scores[winners], stable[order], strict=True
        )
    ]


def _good_small_masks(
    model: "Sam", embedding: "Tensor", native: tuple[int, int], settings: SamSettings
) -> "tuple[Tensor, Tensor]":
    """Prompt with the point grid; return decoder masks (M, h, w) and predicted IoU (M,) above the threshold."""
    import torch
    from segment_anything.utils.amg import build_point_grid
    from segment_anything.utils.transforms import ResizeLongestSide

    grid = build_point_grid(settings.points_per_side) * [native[1], native[0]]
    points = ResizeLongestSide(model.image_encoder.img_size).apply_coords(grid, native)
    masks, scores = [], []
    for start in range(0, len(points), settings.points_per_batch):
        prompts = torch.as_tensor(points[start : start + settings.points_per_batch], device=embedding.device)[:, None]
        ones = torch.ones(len(prompts), 1, dtype=torch.int, device=embedding.device)
        sparse, dense = model.prompt_encoder(points=(prompts, ones), boxes=None, masks=None)
        low, predicted = model.mask_decoder(
            image_embeddings=embedding,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        low, predicted = low.flatten(0, 1), predicted.flatten(0, 1)
        keep = predicted > settings.pred_iou_thresh if settings.pred_iou_thresh > 0 else slice(None)
        masks.append(low[keep])
        scores.append(predicted[keep])
    return torch.cat(masks), torch.cat(scores)


def _at_native_size(model: "Sam", small: "Tensor", native: tuple[int, int]) -> "Iterator[tuple[int, Tensor]]":
    """Yield (index of the first, logits (m, H0, W0)) of decoder masks (M, h, w), some at a time."""
    from segment_anything.utils.transforms import ResizeLongestSide

    resized = ResizeLongestSide.get_preprocess_shape(*native, model.image_encoder.img_size)
    for start in range(0, len(small), MASKS_AT_ONCE):
        yield start, model.postprocess_masks(small[start : start + MASKS_AT_ONCE, None], resized, native)[:, 0]


def _stability(masks: "Tensor", threshold: float, offset: float) -> "Tensor":
    from segment_anything.utils.amg import calculate_stability_score

    stability: Tensor = calculate_stability_score(masks, threshold, offset)
    return stability


def _boxes(masks: "Tensor") -> "Tensor":
    from segment_anything.utils.amg import batched_mask_to_box

    boxes: Tensor = batched_mask_to_box(masks)
    return boxes
