"""SAM's automatic masks: what the stock SamAutomaticMaskGenerator returns, without the work that it throws away.

The stock generator makes all three masks of every prompt, brings them to the native size in two interpolations, and
encodes those that pass its filters as run lengths in Python. Here only masks of good predicted IoU are made at all, and
of these only the few are measured that a better one may not have ousted; both interpolations are one, done only where a
mask has its edge; and survivors of the non-maximum suppression are painted straight at the size that is asked for,
small regions removed in each survivor's own box. Same filters, same order, same masks up to rounding.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from labelgen.settings import SamSettings
from labelgen.teachers.sam.box_bounds import cut_gaps
from labelgen.teachers.sam.compilation import Fuse, as_it_is
from labelgen.teachers.sam.mask_measures import cut_cells
from labelgen.teachers.sam.mask_painting import Masks
from labelgen.teachers.sam.mask_suppression import find_survivors
from labelgen.teachers.sam.prompt_decoder import PromptDecoder
from labelgen.teachers.sam.resampling import nearest_index, nearest_pixels
from labelgen.teachers.sam.small_regions import remove_small_regions

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor


class Candidates(NamedTuple):
    """M masks of good predicted IoU, image after image.

    `logits` (M, h, w) of the decoder, `predicted_iou` (M,); `image` (M,) on the host.
    """

    logits: "Tensor"
    predicted_iou: "Tensor"
    image: "Tensor"


class MaskMaker:
    """Makes automatic masks of images of one native size.

    A batch of prompts is the grid of as many images as `points_per_batch` allows, or a part of one image's. The host
    waits for the device once a batch, to learn how many masks pass, and twice an image, for how many cells have an edge
    and which masks survive; a GPU wants batches that take much longer than that.
    """

    def __init__(self, model: "Sam", native: tuple[int, int], settings: SamSettings, fuse: Fuse = as_it_is) -> None:
        """Work out what all images of `native` (height, width) pixels share."""
        rows, cols = native_weights(model, native)
        tokens = -(-int(rows.any(dim=0).nonzero().max() + 1) // 4)
        rows = rows[:, : 4 * tokens]
        self._settings = settings
        self._threshold = model.mask_threshold
        self._decoder = PromptDecoder(model, tokens, fuse)
        self._native = native
        self._weights = rows.to(model.device), cols.to(model.device)
        self._cells = cut_cells(rows).to(model.device), cut_cells(cols).to(model.device)
        self._gaps = cut_gaps(rows).to(model.device), cut_gaps(cols).to(model.device)
        self._points = _grid(model, native, settings).to(model.device)

    def propose(self, embeddings: "Tensor", size: tuple[int, int]) -> list[Masks]:
        """Return the masks, as seen at `size`, of images that SAM's encoder made `embeddings` (B, E, h, w) of."""
        images = max(1, self._settings.points_per_batch // len(self._points))
        return [masks for some in embeddings.split(images) for masks in self._propose(some, size)]

    def _propose(self, embeddings: "Tensor", size: tuple[int, int]) -> list[Masks]:
        import torch

        points = max(1, self._settings.points_per_batch // len(embeddings))
        batches = [self._candidates(embeddings, some) for some in self._points.split(points)]
        found = Candidates(*map(torch.cat, zip(*batches, strict=True)))
        counts = found.image.bincount(minlength=len(embeddings)).tolist()
        each = zip(found.logits.split(counts), found.predicted_iou.split(counts), strict=True)
        return [self._paint(logits, predicted_iou, size) for logits, predicted_iou in each]

    def _candidates(self, embeddings: "Tensor", points: "Tensor") -> Candidates:
        """Prompt with points (P, 2); keep the masks of good predicted IoU."""
        import torch

        answers = self._decoder.answer(embeddings, points)
        lowest = self._settings.pred_iou_thresh if self._settings.pred_iou_thresh > 0 else -torch.inf
        good = answers.predicted_iou > lowest
        prompt, which = good.cpu().nonzero().unbind(dim=1)
        logits = self._decoder.masks(answers, prompt, which)
        iou = answers.predicted_iou.flatten()[(3 * prompt + which).to(good.device)]
        return Candidates(logits, iou, prompt // len(points))

    def _paint(self, logits: "Tensor", predicted_iou: "Tensor", size: tuple[int, int]) -> Masks:
        """Return the masks of one image that survive, best first."""
        import torch

        survivors = find_survivors(
            logits,
            predicted_iou,
            self._cells,
            self._gaps,
            self._threshold,
            self._settings.stability_score_offset,
            self._settings.stability_score_thresh,
            self._settings.box_nms_thresh,
        )
        logits = logits[survivors.index].float() - self._threshold
        scores = survivors.predicted_iou, survivors.stability
        if self._settings.min_mask_region_area > 0:
            return self._tidy(logits, survivors.boxes, size, *scores)
        rows, cols = self._weights
        row, col = (
            torch.from_numpy(nearest_index(*pair)).to(logits.device) for pair in zip(self._native, size, strict=True)
        )
        return Masks(rows[row] @ (logits @ cols[col].T) > 0, survivors.area, *scores)

    def _tidy(
        self, logits: "Tensor", boxes: "Tensor", size: tuple[int, int], iou: "Tensor", stability: "Tensor"
    ) -> Masks:
        """Remove small regions of surviving masks, and masks that then repeat another: unchanged ones come first."""
        import torch
        from torchvision.ops import batched_nms

        least = self._settings.min_mask_region_area
        tidy = [
            remove_small_regions(mask, box, *self._weights, least)
            for mask, box in zip(logits, boxes.cpu(), strict=True)
        ]
        if not tidy:
            return Masks(torch.zeros(0, *size, dtype=torch.bool), torch.zeros(0), iou, stability)
        new_boxes = torch.from_numpy(np.stack([mask.box for mask in tidy]))
        unchanged = torch.tensor([float(not mask.changed) for mask in tidy])
        order = batched_nms(new_boxes, unchanged, torch.zeros_like(unchanged), self._settings.box_nms_thresh)
        kept = [tidy[i].inside for i in order.tolist()]
        inside = torch.from_numpy(np.stack([nearest_pixels(mask, size) for mask in kept]))
        return Masks(inside, torch.tensor([mask.sum() for mask in kept]), iou.cpu()[order], stability.cpu()[order])


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
