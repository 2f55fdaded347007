"""Count one sample: labels before and after the vote, scores, masks, points, agreement with truth.

All counts add up, so that a shard's, a selection's or a cache's statistics are the sum of its samples'.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE
from labelgen.inspection.samples import Arrays, Sample

Counts = NDArray[np.int64]

COUNTED = {"labels": (), "clip": ("logits",), "sam": ("mask_ids",)}
"""What `count_sample` needs of a sample: arrays by group."""

FOUND_IOU = 0.5
SMALLEST_SEGMENT_PX = 100
"""Truth segments with fewer pixels at training size are not asked of the masks."""

SEGMENT_SHARES = (0.05, 0.01, 0.003, 0.0)
"""Truth segments are scored by the share of the picture that they cover; each class starts at one of these."""

LOGIT_SCALE = 100.0
"""CLIP's own inverse temperature: cosines times this are the logits of its softmax."""

UNIT_BINS = 50
"""Bins from 0 to 1, of entropy and of margin."""

MOST_MASKS = 512
"""Images with more visible masks than this are counted with it."""

MASK_SHARES = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Edges of the classes of mask size, as the share of the picture that a mask's visible part covers."""


@dataclass(frozen=True)
class Statistics:
    """Sums over samples; C classes, and index C stands for "ignore".

    `image_flow` and `point_flow` (C+1, C+1) count (raw, voted) label pairs; `*_truth_raw` and `*_truth_voted` (C+1,
    C+1) count (truth, label) pairs, all zero without truth. `entropy` and `margin` (50,) count CLIP patches by the
    entropy of their class probabilities over log C, and by the lead of the best class; `*_sum` are their sums.
    `mask_counts` (513,) counts images by visible masks, `mask_sizes` (9,) masks by `MASK_SHARES`. `cameras` (3,)
    counts points seen by 0, 1, and 2 or more cameras; `disagreeing` those of the last whose pixels differ in voted
    label; `pairs_agreeing` pairs whose pixel and point have one voted label. `segments` (4,) counts truth segments by
    `SEGMENT_SHARES`, `segment_iou` (4,) sums their best IoU with a mask, `segments_found` (4,) counts those where it is
    at least 0.5.
    """

    samples: Counts
    images: Counts
    image_flow: Counts
    point_flow: Counts
    image_truth_raw: Counts
    image_truth_voted: Counts
    point_truth_raw: Counts
    point_truth_voted: Counts
    entropy: Counts
    margin: Counts
    entropy_sum: NDArray[np.float64]
    margin_sum: NDArray[np.float64]
    masked_pixels: Counts
    masks: Counts
    mask_counts: Counts
    mask_sizes: Counts
    cameras: Counts
    disagreeing: Counts
    pairs: Counts
    pairs_agreeing: Counts
    segments: Counts
    segments_found: Counts
    segment_iou: NDArray[np.float64]

    def __add__(self, other: "Statistics") -> "Statistics":
        """Sum field by field."""
        return Statistics(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def count_sample(sample: Sample) -> Statistics:
    """Count one sample, read with the arrays `COUNTED`.

    Raises:
        ValueError: if a label is neither a class nor "ignore".
    """
    labels, truth = sample["labels"], sample["truth"]
    logits, mask_ids = sample["clip"]["logits"], sample["sam"]["mask_ids"]
    classes = logits.shape[1]
    none = np.zeros((classes + 1, classes + 1), np.int64)
    agreement = {
        f"{target}_truth_{kind}": count_together(truth[target], labels[name], classes) if target in truth else none
        for target in ("image", "point")
        for kind, name in (("raw", f"{target}_raw"), ("voted", target))
    }
    return Statistics(
        samples=np.array(1),
        images=np.array(len(mask_ids)),
        image_flow=count_together(labels["image_raw"], labels["image"], classes),
        point_flow=count_together(labels["point_raw"], labels["point"], classes),
        **agreement,
        **_count_scores(logits),
        **_count_masks(mask_ids),
        **_count_views(labels, sample["pairs"]),
        **_count_segments(truth, mask_ids),
    )


def count_together(rows: NDArray[np.uint8], columns: NDArray[np.uint8], classes: int) -> Counts:
    """Count pairs of ids of two label arrays of one shape: (C+1, C+1), the last index for "ignore".

    Raises:
        ValueError: if an id is neither a class nor "ignore".
    """
    keys = rows.astype(np.uint16) << 8 | columns
    counts = np.bincount(keys.ravel(), minlength=65536).reshape(256, 256)
    kept = [*range(classes), IGNORE]
    folded = counts[np.ix_(kept, kept)]
    if folded.sum() != rows.size:
        ids = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
        wrong = next(int(i) for i in ids if i not in kept)
        raise ValueError(f"label id {wrong} is neither below {classes} nor {IGNORE}")
    return folded


def _count_scores(logits: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Count patches by how sure CLIP is: entropy over log C, and lead of the best class, of softmax(100 cos)."""
    scaled = LOGIT_SCALE * logits.astype(np.float32)
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    chance = weights / weights.sum(axis=1, keepdims=True)
    entropy = -(chance * np.log(np.maximum(chance, 1e-12))).sum(axis=1) / np.log(max(2, logits.shape[1]))
    best = np.partition(chance, -2, axis=1)[:, -2:] if logits.shape[1] > 1 else np.repeat(chance, 2, axis=1)
    margin = best[:, 1] - best[:, 0]
    return {
        "entropy": _unit_histogram(entropy),
        "margin": _unit_histogram(margin),
        "entropy_sum": np.array(entropy.sum(dtype=np.float64)),
        "margin_sum": np.array(margin.sum(dtype=np.float64)),
    }


def _unit_histogram(values: NDArray[np.float32]) -> Counts:
    return np.bincount(np.clip(values.ravel() * UNIT_BINS, 0, UNIT_BINS - 1).astype(np.intp), minlength=UNIT_BINS)


def _count_masks(mask_ids: NDArray[np.uint16]) -> dict[str, NDArray[Any]]:
    images, pixels = len(mask_ids), mask_ids[0].size if len(mask_ids) else 1
    stride = int(mask_ids.max(initial=0)) + 1
    keyed = mask_ids.reshape(images, -1) + stride * np.arange(images, dtype=np.int32)[:, None]
    areas = np.bincount(keyed.ravel(), minlength=stride * images).reshape(images, stride)
    visible = (areas[:, 1:] > 0).sum(axis=1)
    shares = areas[:, 1:][areas[:, 1:] > 0] / pixels
    classes = len(MASK_SHARES) - 1
    size = np.clip(np.digitize(shares, MASK_SHARES) - 1, 0, classes - 1)
    return {
        "masked_pixels": np.array(areas[:, 1:].sum()),
        "masks": np.array(visible.sum()),
        "mask_counts": np.bincount(np.minimum(visible, MOST_MASKS), minlength=MOST_MASKS + 1),
        "mask_sizes": np.bincount(size, minlength=classes),
    }


def _count_views(labels: Arrays, pairs: Arrays) -> dict[str, NDArray[Any]]:
    """Count how many cameras see each point, and how far their pixels' voted labels agree."""
    point, points = pairs["point"], len(labels["point"])
    at_pixel = labels["image"][pairs["image"], pairs["row"], pairs["col"]]
    seen_by = np.bincount(point, minlength=points)
    last = np.empty(points, np.uint8)
    last[point] = at_pixel
    differs = np.zeros(points, bool)
    differs[point[at_pixel != last[point]]] = True
    return {
        "cameras": np.bincount(np.minimum(seen_by, 2), minlength=3),
        "disagreeing": np.array(differs.sum()),
        "pairs": np.array(len(point)),
        "pairs_agreeing": np.array((at_pixel == labels["point"][point]).sum()),
    }


def _count_segments(truth: Arrays, mask_ids: NDArray[np.uint16]) -> dict[str, NDArray[Any]]:
    scored = [best_ious(s, m) for s, m in zip(truth.get("segments", []), mask_ids, strict=False)]
    best, share = np.concatenate(scored, axis=1) if scored else np.zeros((2, 0))
    size = np.digitize(share, SEGMENT_SHARES)
    return {
        "segments": np.bincount(size, minlength=len(SEGMENT_SHARES)),
        "segments_found": np.bincount(size[best >= FOUND_IOU], minlength=len(SEGMENT_SHARES)),
        "segment_iou": np.bincount(size, best, minlength=len(SEGMENT_SHARES)),
    }


def best_ious(segments: NDArray[np.uint16], mask_ids: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Return, for each truth segment of an image (H, W) that is large enough, two numbers (2, N).

    They are its best IoU with a mask id's pixels, and the share of the image that it covers.
    """
    segment_ids, segment = np.unique(segments, return_inverse=True)
    masks, mask = np.unique(mask_ids, return_inverse=True)
    both = np.bincount(segment.ravel() * len(masks) + mask.ravel(), minlength=len(segment_ids) * len(masks))
    both = both.reshape(len(segment_ids), len(masks))
    area = both.sum(axis=1)
    union = area[:, None] + both.sum(axis=0) - both
    counted = (segment_ids > 0) & (area >= SMALLEST_SEGMENT_PX)
    return np.stack([(both / union)[counted][:, masks > 0].max(axis=1, initial=0), area[counted] / segments.size])
