"""SAM's automatic masks: what the stock SamAutomaticMaskGenerator returns, without the work that it throws away.

The stock generator makes all three masks of every prompt, brings them to the native size in two interpolations, and
encodes those that pass its filters as run lengths in Python. Here only masks of good predicted IoU are made at all;
both interpolations are one, done only where a mask has its edge; and survivors of the non-maximum suppression are
painted straight at the size that is asked for, small regions removed in each survivor's own box. Same filters, same
order, same masks up to rounding.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labelgen.settings import SamSettings
from labelgen.teachers.mask_scan import Cells, cut_cells, measure
from labelgen.teachers.masks import MaskProposal, nearest_index, nearest_pixels
from labelgen.teachers.prompt_decoder import PromptDecoder
from labelgen.teachers.small_regions import remove_small_regions

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor


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
    rows = rows[:, : 4 * tokens]
    cells = cut_cells(rows).to(embedding.device), cut_cells(cols).to(embedding.device)
    rows, cols = rows.to(embedding.device), cols.to(embedding.device)
    batches = [
        _scan(decoder, points, cells, model.mask_threshold, settings)
        for points in _grid(model, native, settings).to(embedding.device).split(settings.points_per_batch)
    ]
    iou, stability, boxes, area = (
        torch.cat([getattr(batch, name) for batch in batches])
        for name in ("predicted_iou", "stability", "boxes", "area")
    )
    order = batched_nms(boxes, iou, torch.zeros_like(iou), settings.box_nms_thresh)
    logits = _gather([batch.logits for batch in batches], order) - model.mask_threshold
    scores = iou[order].tolist(), stability[order].tolist()
    if settings.min_mask_region_area > 0:
        return _tidy(logits, boxes[order], rows, cols, scores, size, settings)
    row, col = (torch.from_numpy(nearest_index(*pair)).to(order.device) for pair in zip(native, size, strict=True))
    inside = (rows[row] @ (logits @ cols[col].T) > 0).cpu().numpy()
    return [
        MaskProposal(mask, int(pixels), quality, steadiness)
        for mask, pixels, quality, steadiness in zip(inside, area[order].tolist(), *scores, strict=True)
    ]


def _tidy(
    logits: "Tensor",
    boxes: "Tensor",
    rows: "Tensor",
    cols: "Tensor",
    scores: tuple[list[float], list[float]],
    size: tuple[int, int],
    settings: SamSettings,
) -> list[MaskProposal]:
    """Remove small regions of surviving masks, and masks that then repeat another: unchanged ones come first."""
    import torch
    from torchvision.ops import batched_nms

    least = settings.min_mask_region_area
    tidy = [remove_small_regions(mask, box, rows, cols, least) for mask, box in zip(logits, boxes, strict=True)]
    new_boxes = torch.from_numpy(np.stack([mask.box for mask in tidy])) if tidy else torch.zeros(0, 4)
    unchanged = torch.tensor([float(not mask.changed) for mask in tidy])
    order = batched_nms(new_boxes, unchanged, torch.zeros_like(unchanged), settings.box_nms_thresh)
    return [
        MaskProposal(nearest_pixels(tidy[i].inside, size), int(tidy[i].inside.sum()), scores[0][i], scores[1][i])
        for i in order.tolist()
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


def _grid(model: "Sam", native: tuple[int, int], settings: SamSettings) -> "Tensor":
    """Return the point grid (P, 2) in pixels of SAM's input."""
    import torch
    from segment_anything.utils.amg import build_point_grid
    from segment_anything.utils.transforms import ResizeLongestSide

    points = build_point_grid(settings.points_per_side) * np.array(native[::-1])
    return torch.as_tensor(ResizeLongestSide(model.image_encoder.img_size).apply_coords(points, native))


def _scan(
    decoder: PromptDecoder, points: "Tensor", cells: tuple[Cells, Cells], threshold: float, settings: SamSettings
) -> Candidates:
    """Prompt with points (P, 2); keep the masks of good predicted IoU that are stable at native size."""
    import torch

    answers = decoder.answer(points)
    lowest = settings.pred_iou_thresh if settings.pred_iou_thresh > 0 else -torch.inf
    good = answers.predicted_iou > lowest
    logits = decoder.masks(answers, good)
    stability, boxes, area = measure(logits, *cells, threshold, settings.stability_score_offset)
    keep = slice(None) if settings.stability_score_thresh <= 0 else stability >= settings.stability_score_thresh
    return Candidates(logits[keep], answers.predicted_iou[good][keep], stability[keep], boxes[keep], area[keep])


def _gather(parts: "list[Tensor]", index: "Tensor") -> "Tensor":
    """Return what `index` picks from the concatenation of `parts`, of which it needs few."""
    import torch

    starts = np.cumsum([0, *(len(part) for part in parts)])
    places = index.cpu().numpy()
    owners = np.searchsorted(starts, places, side="right") - 1
    picked = [parts[owner][place] for owner, place in zip(owners, places - starts[owners], strict=True)]
    return torch.stack(picked) if picked else parts[0][:0]
