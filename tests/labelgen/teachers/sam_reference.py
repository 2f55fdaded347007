"""Images, a stock mask generator, and plain reference code that the tests of SAM compare with."""

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from labelgen.teachers.sam.mask_painting import Masks
from labelgen.teachers.sam.preprocessing import resize_for_sam
from labelgen.teachers.sam.teacher import SamTeacher

Refused = Callable[..., AbstractContextManager[None]]
MakeTeacher = Callable[..., SamTeacher]

POINTS = {"points_per_side": 2, "points_per_batch": 3}
EVERY_MASK = {"pred_iou_thresh": -100.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}


def make_image(seed: int) -> np.ndarray:
    """Return an image of soft coloured blobs, 90 x 160."""
    blobs = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), np.uint8)
    return np.asarray(Image.fromarray(blobs).resize((160, 90), Image.Resampling.BICUBIC))


def make_masks_differ(model: Sam) -> None:
    """Make decoder masks smooth and different: an untrained decoder gives the same noise for every prompt."""
    decoder = model.mask_decoder
    with torch.no_grad():
        for index in (0, 3):
            weight = decoder.output_upscaling[index].weight
            weight.copy_(8 * weight.mean(dim=(2, 3), keepdim=True).expand_as(weight))
        for head in decoder.output_hypernetworks_mlps:
            for layer in head.layers:
                layer.weight.mul_(6)
        for layer in decoder.iou_prediction_head.layers:
            layer.weight.mul_(2)
        for parameter in decoder.transformer.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)


def stock_records(model: Sam, image: np.ndarray, thresholds: dict[str, float]) -> list[dict]:
    """Return the records of the stock generator, one for each mask."""
    records: list[dict] = SamAutomaticMaskGenerator(model, **POINTS, **thresholds).generate(image)
    return records


def thresholds_between(records: list[dict]) -> dict[str, float]:
    """Return thresholds that divide the records: each lies halfway between two values that occur."""

    def between(values: list[float], share: float) -> float:
        distinct = sorted(set(values))
        place = max(1, int(share * len(distinct)))
        return (distinct[place - 1] + distinct[place]) / 2 if len(distinct) > 1 else distinct[0]

    iou = between([record["predicted_iou"] for record in records], 0.2)
    scores = [r["stability_score"] for r in records if r["predicted_iou"] > iou and r["stability_score"] >= 0]
    stability = between(scores, 0.2)
    stable = filter_records(records, {**EVERY_MASK, "pred_iou_thresh": iou, "stability_score_thresh": stability})[1]
    boxes = [box_iou(a["segmentation"], b["segmentation"]) for a, b in itertools.combinations(stable, 2)]
    return {
        "pred_iou_thresh": iou,
        "stability_score_thresh": stability,
        "box_nms_thresh": between([*boxes, 0.0], 0.8),
    }


def filter_records(records: list[dict], thresholds: dict[str, float]) -> tuple[list[dict], list[dict], list[dict]]:
    """Return what each of the three thresholds leaves of all masks, which come in falling order of predicted IoU."""
    sure = [record for record in records if record["predicted_iou"] > thresholds["pred_iou_thresh"]]
    stable = [record for record in sure if record["stability_score"] >= thresholds["stability_score_thresh"]]
    kept: list[dict] = []
    for record in stable:
        overlaps = [box_iou(record["segmentation"], other["segmentation"]) for other in kept]
        if all(overlap <= thresholds["box_nms_thresh"] for overlap in overlaps):
            kept.append(record)
    return sure, stable, kept


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the IoU of the boxes around two masks, from their first to their last row and column."""
    (top, left, bottom, right), (top_b, left_b, bottom_b, right_b) = (
        (*np.argwhere(mask).min(axis=0), *np.argwhere(mask).max(axis=0)) if mask.any() else (0, 0, 0, 0)
        for mask in (a, b)
    )
    height, width = min(bottom, bottom_b) - max(top, top_b), min(right, right_b) - max(left, left_b)
    shared = max(height, 0) * max(width, 0)
    return float(shared / max((bottom - top) * (right - left) + (bottom_b - top_b) * (right_b - left_b) - shared, 1))


@torch.inference_mode()
def propose(teacher: SamTeacher, *images: np.ndarray) -> list[Masks]:
    """Return the automatic masks of images of one size at that size."""
    embeddings = teacher.embed(teacher.upload([resize_for_sam(image, "tiny") for image in images]))
    return teacher.propose(embeddings, images[0].shape[:2], images[0].shape[:2])


def assert_same_masks(found: Masks, expected: list[dict]) -> None:
    """Check masks, areas, scores and order. Rounding may change one edge pixel in a hundred thousand.

    A stability score counts pixels at two other thresholds, where processors round a few pixels differently.
    """
    assert len(found.inside) == len(expected)
    differing = found.inside.numpy() != np.array([record["segmentation"] for record in expected])
    assert differing.mean() <= 1e-5
    for values, name, rtol in (
        (found.predicted_iou, "predicted_iou", 1e-4),
        (found.area, "area", 1e-4),
        (found.stability_score, "stability_score", 1e-3),
    ):
        np.testing.assert_allclose(values, [record[name] for record in expected], rtol=rtol, atol=1e-5)


def paint_pixel_by_pixel(masks: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Paint masks one pixel after the other: of the masks at the native pixel under a centre, the last one shows."""
    order = sorted(range(len(masks)), key=lambda index: (-int(masks[index].sum()), index))
    ids = np.zeros(size, np.uint16)
    for row in range(size[0]):
        for col in range(size[1]):
            for rank, index in enumerate(order, start=1):
                height, width = masks[index].shape
                if masks[index][int((row + 0.5) * height / size[0]), int((col + 0.5) * width / size[1])]:
                    ids[row, col] = rank
    return ids
