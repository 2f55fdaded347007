"""Count one sample: labels before and after the vote, CLIP scores, masks, points, agreement with truth.

All counts are additive: the statistics of a shard, a selection or a cache are the sum over its samples.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE
from labelgen.inspection.counting.samples import Arrays, Sample
from labelgen.visibility import visible_pairs

Counts = NDArray[np.int64]

COUNTED_ARRAYS = {"labels": (), "clip": ("logits",), "sam": ("mask_ids",)}
"""The arrays that `count_sample` needs, by group; no names stand for all arrays of the group."""

FOUND_IOU = 0.5
"""A true segment counts as found if its best IoU with a mask is at least this."""

SMALLEST_SEGMENT_PX = 100
"""True segments with fewer pixels at training size are not counted."""

SEGMENT_SHARES = (0.05, 0.01, 0.003, 0.0)
"""Lower edges of the size bins of true segments, as the share of the picture that a segment covers."""

LOGIT_SCALE = 100.0
"""CLIP's inverse temperature: cosines times this are the logits of its softmax."""

UNIT_BINS = 50
"""Number of bins from 0 to 1 in the histograms of entropy and margin."""

MOST_MASKS = 512
"""Last bin of the histogram of masks per image; it also counts images with more masks."""

MASK_SHARES = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Edges of the size bins of masks, as the share of the picture that a mask's visible part covers."""


NO_VIEWS: dict[str, NDArray[Any]] = {
    "cameras": np.zeros(3, np.int64),
    **{name: np.array(0) for name in ("disagreeing", "pairs", "pairs_hidden", "pairs_agreeing")},
}
"""The counts of views of a sample without points."""


@dataclass(frozen=True)
class Statistics:
    """Sums over samples; C classes, and index C stands for "ignore".

    Labels:
        image_flow, point_flow: (C+1, C+1) counts of (raw, voted) labels.
        image_truth_raw, image_truth_voted, point_truth_raw, point_truth_voted: (C+1, C+1) counts of (truth, label),
            all zero without truth.

    CLIP scores:
        entropy, margin: (50,) counts of patches by the entropy of their class probabilities divided by log C, and by
            the probability of the best class minus that of the second; entropy_sum, margin_sum are their sums.

    Masks:
        masked_pixels, masks: pixels under a mask, and visible masks.
        mask_counts: (513,) counts of images by number of visible masks.
        mask_sizes: (9,) counts of masks by the bins of `MASK_SHARES`.

    Points:
        cameras: (3,) counts of points seen by 0, 1, and 2 or more cameras.
        disagreeing: points seen by 2 or more cameras whose pixels differ in voted label.
        pairs, pairs_hidden: pixel-point pairs, and those whose point is hidden; all other counts leave these out.
        pairs_agreeing: visible pairs whose pixel and point have the same voted label.

    True segments, by the bins of `SEGMENT_SHARES` (4,):
        segments: counts; segments_found: those whose best IoU with a mask is at least 0.5; segment_iou: sums of it.
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
    pairs_hidden: Counts
    pairs_agreeing: Counts
    segments: Counts
    segments_found: Counts
    segment_iou: NDArray[np.float64]

    def __add__(self, other: "Statistics") -> "Statistics":
        """Sum field by field."""
        return Statistics(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def count_sample(sample: Sample) -> Statistics:
    """Count one sample, read with the arrays `COUNTED_ARRAYS`.

    Raises:
        ValueError: if a label is neither a class nor "ignore".
    """
    labels, truth = sample["labels"], sample["truth"]
    logits, mask_ids = sample["clip"]["logits"], sample["sam"]["mask_ids"]
    classes = logits.shape[1]
    zeros = np.zeros((classes + 1, classes + 1), np.int64)
    agreement: dict[str, NDArray[Any]] = {
        f"{target}_truth_{kind}": count_together(truth[target], labels[name], classes) if target in truth else zeros
        for target in ("image", "point")
        for kind, name in (("raw", f"{target}_raw"), ("voted", target))
    }
    return Statistics(
        samples=np.array(1),
        images=np.array(len(mask_ids)),
        image_flow=count_together(labels["image_raw"], labels["image"], classes),
        point_flow=count_together(labels["point_raw"], labels["point"], classes) if sample.has_points else zeros,
        **agreement,
        **_count_scores(logits),
        **_count_masks(mask_ids),
        **(_count_views(labels, sample["pairs"]) if sample.has_points else NO_VIEWS),
        **_count_segments(truth, mask_ids),
    )


def count_together(rows: NDArray[np.uint8], columns: NDArray[np.uint8], classes: int) -> Counts:
    """Count pairs of ids in two label arrays of the same shape: (C+1, C+1), the last index stands for "ignore".

    Raises:
        ValueError: if an id is neither a class nor "ignore".
    """
    keys = rows.astype(np.uint16) << 8 | columns
    counts = np.bincount(keys.ravel(), minlength=65536).reshape(256, 256)
    kept = [*range(classes), IGNORE]
    folded = counts[np.ix_(kept, kept)]
    if folded.sum() != rows.size:
        ids = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
        unknown = next(int(i) for i in ids if i not in kept)
        raise ValueError(f"label id {unknown} is neither below {classes} nor {IGNORE}")
    return folded


def _count_scores(logits: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Count patches by entropy / log C and by margin of softmax(100 x cosine); `logits` (I, C, h, w) are cosines."""
    scaled = LOGIT_SCALE * logits.astype(np.float32)
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probability = exponentials / exponentials.sum(axis=1, keepdims=True)
    entropy = -(probability * np.log(np.maximum(probability, 1e-12))).sum(axis=1) / np.log(max(2, logits.shape[1]))
    if logits.shape[1] > 1:
        two_best = np.partition(probability, -2, axis=1)[:, -2:]
    else:
        two_best = np.repeat(probability, 2, axis=1)
    margin = two_best[:, 1] - two_best[:, 0]
    return {
        "entropy": _unit_histogram(entropy),
        "margin": _unit_histogram(margin),
        "entropy_sum": np.array(entropy.sum(dtype=np.float64)),
        "margin_sum": np.array(margin.sum(dtype=np.float64)),
    }


def _unit_histogram(values: NDArray[np.float32]) -> Counts:
    return np.bincount(np.clip(values.ravel() * UNIT_BINS, 0, UNIT_BINS - 1).astype(np.intp), minlength=UNIT_BINS)


def _count_masks(mask_ids: NDArray[np.uint16]) -> dict[str, NDArray[Any]]:
    """Count visible masks and the pixels that they cover; `mask_ids` (I, H, W), 0 is no mask."""
    images, pixels = len(mask_ids), mask_ids[0].size if len(mask_ids) else 1
    stride = int(mask_ids.max(initial=0)) + 1
    unique_ids = mask_ids.reshape(images, -1) + stride * np.arange(images, dtype=np.int32)[:, None]
    areas = np.bincount(unique_ids.ravel(), minlength=stride * images).reshape(images, stride)
    visible = (areas[:, 1:] > 0).sum(axis=1)
    shares = areas[:, 1:][areas[:, 1:] > 0] / pixels
    bins = len(MASK_SHARES) - 1
    size_bin = np.clip(np.digitize(shares, MASK_SHARES) - 1, 0, bins - 1)
    return {
        "masked_pixels": np.array(areas[:, 1:].sum()),
        "masks": np.array(visible.sum()),
        "mask_counts": np.bincount(np.minimum(visible, MOST_MASKS), minlength=MOST_MASKS + 1),
        "mask_sizes": np.bincount(size_bin, minlength=bins),
    }


def _count_views(labels: Arrays, pairs: Arrays) -> dict[str, NDArray[Any]]:
    """Count how many cameras see each point, and whether the voted labels of its pixels agree."""
    total, pairs = len(pairs["point"]), visible_pairs(pairs)
    point, points = pairs["point"], len(labels["point"])
    at_pixel = labels["image"][pairs["image"], pairs["row"], pairs["col"]]
    seen_by = np.bincount(point, minlength=points)
    last_label = np.empty(points, np.uint8)
    last_label[point] = at_pixel
    differs = np.zeros(points, bool)
    differs[point[at_pixel != last_label[point]]] = True
    return {
        "cameras": np.bincount(np.minimum(seen_by, 2), minlength=3),
        "disagreeing": np.array(differs.sum()),
        "pairs": np.array(total),
        "pairs_hidden": np.array(total - len(point)),
        "pairs_agreeing": np.array((at_pixel == labels["point"][point]).sum()),
    }


def _count_segments(truth: Arrays, mask_ids: NDArray[np.uint16]) -> dict[str, NDArray[Any]]:
    """Count true segments by size, and how well masks (I, H, W) cover them; nothing without segment truth."""
    scored = [best_ious(s, m) for s, m in zip(truth.get("segments", []), mask_ids, strict=False)]
    best, share = np.concatenate(scored, axis=1) if scored else np.zeros((2, 0))
    size_bin, bins = np.digitize(share, SEGMENT_SHARES), len(SEGMENT_SHARES)
    return {
        "segments": np.bincount(size_bin, minlength=bins),
        "segments_found": np.bincount(size_bin[best >= FOUND_IOU], minlength=bins),
        "segment_iou": np.bincount(size_bin, best, minlength=bins),
    }


def best_ious(segments: NDArray[np.uint16], mask_ids: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Return best IoU and size of the N true segments of an image that have at least `SMALLEST_SEGMENT_PX` pixels.

    Both arguments are ids (H, W); 0 is no segment, or no mask. Row 0 of the result (2, N) is the IoU of the segment
    with the mask that fits best, row 1 is the share of the image that the segment covers.
    """
    unique_segments, segment = np.unique(segments, return_inverse=True)
    unique_masks, mask = np.unique(mask_ids, return_inverse=True)
    shape = len(unique_segments), len(unique_masks)
    overlap = np.bincount(segment.ravel() * shape[1] + mask.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    area = overlap.sum(axis=1)
    union = area[:, None] + overlap.sum(axis=0) - overlap
    counted = (unique_segments > 0) & (area >= SMALLEST_SEGMENT_PX)
    best_iou = (overlap / union)[counted][:, unique_masks > 0].max(axis=1, initial=0)
    return np.stack([best_iou, area[counted] / segments.size])
