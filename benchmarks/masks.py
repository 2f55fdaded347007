"""SAM's masks and decoder against the stock code on equal weights."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, SamPredictor

from benchmarks.measure import Row, compare, share_equal
from labelgen.settings import SamSettings
from labelgen.teachers.sam.mask_generator import native_weights
from labelgen.teachers.sam.mask_painting import paint_ids
from labelgen.teachers.sam.preprocessing import resize_for_sam
from labelgen.teachers.sam.prompt_decoder import PromptDecoder
from labelgen.teachers.sam.resampling import nearest_pixels
from labelgen.teachers.sam.teacher import SamTeacher

SIZE = (224, 416)
STOCK_BATCH = 64
"""Prompts that the stock generator takes at once unless told otherwise."""


def compare_masks(picture: NDArray[np.uint8], settings: SamSettings, larger: tuple[int, int]) -> Iterator[Row]:
    """Compare on one native picture (H0, W0, 3), and on the same one at a `larger` (height, width).

    The stock generator takes prompts in batches of its own default, and in those of our settings, which suit it better.
    """
    teacher, prompts = SamTeacher(settings), settings.points_per_batch
    yield _compare_generator(teacher, picture, STOCK_BATCH, rounds=3)
    yield _compare_generator(teacher, picture, prompts, rounds=3)
    yield _compare_generator(teacher, np.asarray(Image.fromarray(picture).resize(larger[::-1])), prompts, rounds=2)
    yield _compare_decoder(teacher, picture)


def _compare_generator(teacher: SamTeacher, picture: NDArray[np.uint8], stock_batch: int, rounds: int) -> Row:
    settings = teacher.settings
    stock = SamAutomaticMaskGenerator(
        teacher.model,
        points_per_side=settings.points_per_side,
        points_per_batch=stock_batch,
        pred_iou_thresh=settings.pred_iou_thresh,
        stability_score_thresh=settings.stability_score_thresh,
        box_nms_thresh=settings.box_nms_thresh,
    )

    def painted() -> NDArray[np.uint16]:
        records = stock.generate(picture)
        inside = np.stack([nearest_pixels(record["segmentation"], SIZE) for record in records])
        area = torch.tensor([record["area"] for record in records])
        return paint_ids(torch.from_numpy(inside), area).numpy().astype(np.uint16)

    return compare(
        "automatic masks",
        lambda: teacher.run([resize_for_sam(picture, settings.architecture)], SIZE).mask_ids[0],
        f"SamAutomaticMaskGenerator, {stock_batch} prompts a batch, painted",
        painted,
        share_equal,
        _sizes(teacher, picture),
        rounds,
    )


def _sizes(teacher: SamTeacher, picture: NDArray[np.uint8]) -> str:
    height, width = picture.shape[:2]
    return f"{teacher.settings.architecture}, {width}x{height}, {teacher.settings.points_per_side}^2 points"


def _compare_decoder(teacher: SamTeacher, picture: NDArray[np.uint8]) -> Row:
    predictor = SamPredictor(teacher.model)
    predictor.set_image(picture)
    embedding = predictor.get_image_embedding()
    rows, _ = native_weights(teacher.model, picture.shape[:2])
    tokens = -(-int(rows.any(dim=0).nonzero().max() + 1) // 4)
    side = teacher.model.image_encoder.img_size
    points = torch.rand(64, 2, generator=torch.manual_seed(0)) * torch.tensor([side, 4 * tokens / rows.shape[1] * side])
    labels = torch.ones(64, 1, dtype=torch.int)

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        decoder = PromptDecoder(teacher.model, tokens)
        every = torch.ones(64, 3, dtype=torch.bool).nonzero().unbind(dim=1)
        return decoder.masks(decoder.answer(embedding, points), *every).view(64, 3, 4 * tokens, -1)

    @torch.inference_mode()
    def stock() -> torch.Tensor:
        sparse, dense = teacher.model.prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
        masks, _ = teacher.model.mask_decoder(
            image_embeddings=embedding,
            image_pe=teacher.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return masks[:, :, : 4 * tokens]

    def difference(mine: torch.Tensor, theirs: torch.Tensor) -> str:
        return f"largest difference {float((mine - theirs).abs().max() / theirs.abs().max()):.1e} of the range"

    return compare(
        "mask decoder, all masks",
        ours,
        "stock mask decoder",
        stock,
        difference,
        f"{_sizes(teacher, picture)}, 64 prompts",
    )
