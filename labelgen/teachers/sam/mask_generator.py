"""SAM's automatic masks: those of the stock SamAutomaticMaskGenerator, without the work that it throws away.

The stock generator computes all three masks of every prompt, brings them to the native size in two interpolations, and
encodes those that pass its filters as run lengths in Python. Here:

- only masks of good predicted IoU are computed at all;
- of these, only those are measured that a better mask may not have suppressed already (`mask_suppression`);
- both interpolations are combined into one, computed only at the edges of masks (`mask_measures`);
- surviving masks are computed directly at the requested size; small regions are removed within their boxes.

The filters and their order are the same, and the masks are equal up to rounding.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from labelgen.settings import SamSettings
from labelgen.teachers.sam.box_bounds import divide_into_gaps
from labelgen.teachers.sam.compilation import Compile, leave_uncompiled
from labelgen.teachers.sam.mask_measures import divide_into_cells
from labelgen.teachers.sam.mask_painting import Masks
from labelgen.teachers.sam.mask_suppression import Survivors, find_survivors
from labelgen.teachers.sam.prompt_decoder import PromptDecoder
from labelgen.teachers.sam.resampling import nearest_index, nearest_pixels
from labelgen.teachers.sam.small_regions import remove_small_regions

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import Tensor


class Candidates(NamedTuple):
    """M masks of good predicted IoU, image after image.

    `logits` (M, h, w) of the decoder, `predicted_iou` (M,), `image` (M,) the index of the image, on the host.
    """

    logits: "Tensor"
    predicted_iou: "Tensor"
    image: "Tensor"


class MaskGenerator:
    """Generates the masks of images of one native size, from a grid of point prompts.

    A batch of prompts is the grids of as many images as `points_per_batch` allows, or a part of one image's grid. The
    host waits for the device once in each batch, to learn how many masks pass the predicted IoU, and twice for each
    image: for the number of cells at the edges of masks, and for the surviving masks. So a GPU needs batches that take
    much longer than such a wait.
    """

    def __init__(
        self,
        model: "Sam",
        native_size: tuple[int, int],
        settings: SamSettings,
        compile_function: Compile = leave_uncompiled,
    ) -> None:
        """Compute what all images of `native_size` (height, width) in pixels share."""
        rows, cols = native_weights(model, native_size)
        token_rows = -(-int(rows.any(dim=0).nonzero().max() + 1) // 4)
        rows = rows[:, : 4 * token_rows]
        self._settings = settings
        self._threshold = model.mask_threshold
        self._decoder = PromptDecoder(model, token_rows, compile_function)
        self._native_size = native_size
        self._weights = rows.to(model.device), cols.to(model.device)
        self._cells = divide_into_cells(rows).to(model.device), divide_into_cells(cols).to(model.device)
        self._gaps = divide_into_gaps(rows).to(model.device), divide_into_gaps(cols).to(model.device)
        self._points = _point_grid(model, native_size, settings).to(model.device)

    def generate(self, embeddings: "Tensor", size: tuple[int, int]) -> list[Masks]:
        """Return the masks of B images, best first, at `size` (height, width).

        Args:
            embeddings: (B, E, h, w) from SAM's image encoder.
            size: size of the returned masks in pixels.
        """
        images_at_once = max(1, self._settings.points_per_batch // len(self._points))
        return [masks for batch in embeddings.split(images_at_once) for masks in self._generate(batch, size)]

    def _generate(self, embeddings: "Tensor", size: tuple[int, int]) -> list[Masks]:
        import torch

        points_at_once = max(1, self._settings.points_per_batch // len(embeddings))
        batches = [self._find_candidates(embeddings, points) for points in self._points.split(points_at_once)]
        candidates = Candidates(*map(torch.cat, zip(*batches, strict=True)))
        counts = candidates.image.bincount(minlength=len(embeddings)).tolist()
        by_image = zip(candidates.logits.split(counts), candidates.predicted_iou.split(counts), strict=True)
        return [self._filter(logits, predicted_iou, size) for logits, predicted_iou in by_image]

    def _find_candidates(self, embeddings: "Tensor", points: "Tensor") -> Candidates:
        """Prompt each image with all points (P, 2), and return the masks of good predicted IoU."""
        import torch

        answers = self._decoder.answer(embeddings, points)
        threshold = self._settings.pred_iou_thresh if self._settings.pred_iou_thresh > 0 else -torch.inf
        is_good = answers.predicted_iou > threshold
        prompt, which = is_good.cpu().nonzero().unbind(dim=1)
        logits = self._decoder.masks(answers, prompt, which)
        predicted_iou = answers.predicted_iou.flatten()[(3 * prompt + which).to(is_good.device)]
        return Candidates(logits, predicted_iou, prompt // len(points))

    def _filter(self, logits: "Tensor", predicted_iou: "Tensor", size: tuple[int, int]) -> Masks:
        """Return the masks of one image that survive the filters, best first."""
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
        if self._settings.min_mask_region_area > 0:
            return self._remove_small_regions(logits, survivors, size)
        rows, cols = self._weights
        row, col = (
            torch.from_numpy(nearest_index(native, target)).to(logits.device)
            for native, target in zip(self._native_size, size, strict=True)
        )
        inside = rows[row] @ (logits @ cols[col].T) > 0
        return Masks(inside, survivors.area, survivors.predicted_iou, survivors.stability_score)

    def _remove_small_regions(self, logits: "Tensor", survivors: Survivors, size: tuple[int, int]) -> Masks:
        """Remove small regions of the surviving masks (S, h, w), then masks that now repeat another.

        As in the stock generator, masks that did not change take precedence over those that did.
        """
        import torch
        from torchvision.ops import batched_nms

        cleaned = [
            remove_small_regions(mask, box, *self._weights, self._settings.min_mask_region_area)
            for mask, box in zip(logits, survivors.boxes.cpu(), strict=True)
        ]
        predicted_iou, stability_score = survivors.predicted_iou, survivors.stability_score
        if not cleaned:
            return Masks(torch.zeros(0, *size, dtype=torch.bool), torch.zeros(0), predicted_iou, stability_score)
        boxes = torch.from_numpy(np.stack([mask.box for mask in cleaned]))
        precedence = torch.tensor([float(not mask.changed) for mask in cleaned])
        kept = batched_nms(boxes, precedence, torch.zeros_like(precedence), self._settings.small_region_nms_thresh)
        inside = [cleaned[index].inside for index in kept.tolist()]
        return Masks(
            torch.from_numpy(np.stack([nearest_pixels(mask, size) for mask in inside])),
            torch.tensor([mask.sum() for mask in inside]),
            predicted_iou.cpu()[kept],
            stability_score.cpu()[kept],
        )


def native_weights(model: "Sam", native_size: tuple[int, int]) -> "tuple[Tensor, Tensor]":
    """Return the weights that interpolate native rows (H0, h) and columns (W0, w) from the decoder's logits (h, w).

    They combine the steps of the stock Sam.postprocess_masks: bilinear interpolation to SAM's square input, removal of
    the padding, bilinear interpolation to the native size.
    """
    from segment_anything.utils.transforms import ResizeLongestSide

    side = model.image_encoder.img_size
    decoder_side = 4 * model.prompt_encoder.image_embedding_size[0]
    resized_size = ResizeLongestSide.get_preprocess_shape(*native_size, side)
    rows, cols = (
        _bilinear_weights(native, resized) @ _bilinear_weights(side, decoder_side)[:resized]
        for native, resized in zip(native_size, resized_size, strict=True)
    )
    return rows, cols


def _bilinear_weights(target: int, source: int) -> "Tensor":
    """Return the matrix (target, source) of bilinear interpolation along one axis."""
    import torch

    identity = torch.eye(source)[None, None]
    return torch.nn.functional.interpolate(identity, (target, source), mode="bilinear", align_corners=False)[0, 0]


def _point_grid(model: "Sam", native_size: tuple[int, int], settings: SamSettings) -> "Tensor":
    """Return the regular grid of prompts (P, 2), x and y in pixels of SAM's input."""
    import torch
    from segment_anything.utils.amg import build_point_grid
    from segment_anything.utils.transforms import ResizeLongestSide

    points = build_point_grid(settings.points_per_side) * np.array(native_size[::-1])
    return torch.as_tensor(ResizeLongestSide(model.image_encoder.img_size).apply_coords(points, native_size))
