"""SAM's automatic masks: what the stock SamAutomaticMaskGenerator returns, without the work that it throws away.

The stock generator makes all three masks of every prompt, brings them to the native size in two interpolations, and
encodes those that pass its filters as run lengths in Python. Here only masks of good predicted IoU are made at all;
both interpolations are one product with two small matrices; and survivors of the non-maximum suppression are painted
straight at the size that is asked for. Same filters, same order, same masks up to rounding.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labelgen.settings import SamSettings
from labelgen.teachers.masks import MaskProposal, nearest_index
from labelgen.teachers.prompt_decoder import PromptDecoder

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor

MASKS_AT_ONCE = 4
BAND_ROWS = 64
"""Masks, and rows of them, brought to native size together: few stay in a CPU's cache."""


@dataclass(frozen=True)
class Band:
    """Some rows of the native image, and the weights (n, k) with which they take the decoder's rows `low`."""

    native: slice
    low: slice
    weights: "Tensor"


@dataclass(frozen=True)
class Candidates:
    """M masks that pass the stock filters.

    `logits` (M, h, w) of the decoder, `predicted_iou` and `stability` (M,), `boxes` (M, 4) and `area` (M,) in native
    pixels.
    """

    logits: "Tensor"
    predicted_iou: "Tensor"
    stability: "Tensor"
    boxes: "Tensor"
    area: "Tensor"


def propose_masks(
    model: "Sam", embedding: "Tensor", native: tuple[int, int], size: tuple[int, int], settings: SamSettings
) -> list[MaskProposal]:
    """Return the automatic masks, as seen at `size`, of an image of `native` (height, width) pixels.

    `embedding` (256, h, w) is what SAM's encoder made of the image.
    """
    import torch
    from torchvision.ops import batched_nms

    rows, cols = native_weights(model, native)
    tokens = -(-int(rows.any(dim=0).nonzero().max() + 1) // 4)
    decoder = PromptDecoder(model, embedding, tokens)
    rows, cols = (weights.to(embedding.device) for weights in (rows[:, : 4 * tokens], cols))
    bands = _bands(rows)
    batches = [
        _scan(decoder, points, bands, cols, model.mask_threshold, settings)
        for points in _grid(model, native, settings).to(embedding.device).split(settings.points_per_batch)
    ]
    logits, iou, stability, boxes, area = (
        torch.cat([getattr(batch, name) for batch in batches]) for name in Candidates.__dataclass_fields__
    )
    order = batched_nms(boxes.float(), iou, torch.zeros_like(iou), settings.box_nms_thresh)
    row, col = (torch.from_numpy(nearest_index(*pair)).to(order.device) for pair in zip(native, size, strict=True))
    inside = (rows[row] @ (logits[order] @ cols[col].T) > model.mask_threshold).cpu().numpy()
    return [
        MaskProposal(mask, int(pixels), float(quality), float(steadiness))
        for mask, pixels, quality, steadiness in zip(
            inside, area[order].tolist(), iou[order].tolist(), stability[order].tolist(), strict=True
        )
    ]


def native_weights(model: "Sam", native: tuple[int, int]) -> "tuple[Tensor, Tensor]":
    """Return the weights (H0, h) and (W0, w) with which native rows and columns take decoder rows and columns.

    They compose what the stock postprocess_masks does: bilinear to SAM's square input, cut off the padding, bilinear
    to the native size.
    """
    from segment_anything.utils.transforms import ResizeLongestSide

    side = model.image_encoder.img_size
    low = 4 * model.prompt_encoder.image_embedding_size[0]
    resized = ResizeLongestSide.get_preprocess_shape(*native, side)
    rows, cols = (
        _bilinear(whole, part) @ _bilinear(side, low)[:part] for whole, part in zip(native, resized, strict=True)
    )
    return rows, cols


def _bilinear(to: int, length: int) -> "Tensor":
    """Return the matrix (to, length) of bilinear interpolation along one axis."""
    import torch

    eye = torch.eye(length)[None, None]
    resized: Tensor = torch.nn.functional.interpolate(eye, (to, length), mode="bilinear", align_corners=False)
    return resized[0, 0]


def _bands(rows: "Tensor") -> list[Band]:
    """Cut the weights (H0, h) of all rows into bands of the few decoder rows that each takes."""
    bands = []
    for start in range(0, len(rows), BAND_ROWS):
        weights = rows[start : start + BAND_ROWS]
        taken = weights.any(dim=0).nonzero()
        low = slice(int(taken.min()), int(taken.max()) + 1)
        bands.append(Band(slice(start, start + len(weights)), low, weights[:, low].contiguous()))
    return bands


def _grid(model: "Sam", native: tuple[int, int], settings: SamSettings) -> "Tensor":
    """Return the point grid (P, 2) in pixels of SAM's input."""
    import torch
    from segment_anything.utils.amg import build_point_grid
    from segment_anything.utils.transforms import ResizeLongestSide

    points = build_point_grid(settings.points_per_side) * np.array(native[::-1])
    return torch.as_tensor(ResizeLongestSide(model.image_encoder.img_size).apply_coords(points, native))


def _scan(
    decoder: PromptDecoder, points: "Tensor", bands: list[Band], cols: "Tensor", threshold: float, settings: SamSettings
) -> Candidates:
    """Prompt with points (P, 2); keep the masks of good predicted IoU that are stable at native size."""
    import torch

    answers = decoder.answer(points)
    lowest = settings.pred_iou_thresh if settings.pred_iou_thresh > 0 else -torch.inf
    good = answers.predicted_iou > lowest
    logits = decoder.masks(answers, good)
    parts = [
        _measure(part, bands, cols, threshold, settings.stability_score_offset) for part in logits.split(MASKS_AT_ONCE)
    ]
    stability, boxes, area = (torch.cat(column) for column in zip(*parts, strict=True))
    keep = slice(None) if settings.stability_score_thresh <= 0 else stability >= settings.stability_score_thresh
    return Candidates(logits[keep], answers.predicted_iou[good][keep], stability[keep], boxes[keep], area[keep])


def _measure(
    logits: "Tensor", bands: list[Band], cols: "Tensor", threshold: float, offset: float
) -> "tuple[Tensor, Tensor, Tensor]":
    """Return the stability (M,), box (M, 4) as x0, y0, x1, y1, and area (M,) at native size of logits (M, h, w).

    The stability is the share of the mask at a lower threshold that a higher one leaves; an empty mask's box is zero.
    Interpolation cannot exceed what it takes, so bands that take nothing above the lowest threshold hold nothing.
    """
    import torch

    thresholds = (threshold + offset, threshold, threshold - offset)
    counts = logits.new_zeros(3, len(logits))
    by_row = logits.new_full((len(logits), bands[-1].native.stop), -torch.inf)
    by_col = logits.new_full((len(logits), len(cols)), -torch.inf)
    highest = logits.amax(dim=2)
    for band in bands:
        if not (highest[:, band.low] > min(thresholds)).any():
            continue
        native = band.weights @ (logits[:, band.low] @ cols.T)
        above = torch.empty_like(native)
        for count, level in zip(counts, thresholds, strict=True):
            count += torch.gt(native, level, out=above).sum(dim=(1, 2))
        by_row[:, band.native] = native.amax(dim=2)
        torch.maximum(by_col, native.amax(dim=1), out=by_col)
    edges = []
    for along in (by_col, by_row):
        hit = (along > threshold).int()
        edges += [hit.argmax(dim=1), hit.shape[1] - 1 - hit.flip(1).argmax(dim=1)]
    surely, area, maybe = counts
    boxes = torch.stack([edges[0], edges[2], edges[1], edges[3]], dim=1) * (area > 0)[:, None]
    return surely / maybe, boxes, area
