"""What is in a cache: counts, class shares before and after voting, coverage, masks, agreement with truth.

Statistics are summed shard by shard through dask, so that memory holds a few shards whatever the cache's size.
"""

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.documents import CacheManifest, GroupSeal, ShardRecord
from cache_schemas.layout import OPTIONAL_GROUPS, ROOT_GROUPS, SHARD_GROUPS
from cache_schemas.scoring import confusion_matrix, json_number, score
from cache_schemas.store import Cache
from cache_schemas.validate import stale_groups
from labelgen.teachers.checkpoints import UNTRAINED

Counts = NDArray[np.int64]
KINDS = ("raw", "refined")
FOUND_IOU = 0.5
SMALLEST_SEGMENT_PX = 100
"""Truth segments with fewer pixels at training size are not asked of the masks."""

SEGMENT_SHARES = (0.05, 0.01, 0.003, 0.0)
"""Truth segments are scored by the share of the picture that they cover; each class starts at one of these."""

LABEL_ARRAYS = {"image": {"raw": "image_raw", "refined": "image"}, "point": {"raw": "point_raw", "refined": "point"}}
"""The label arrays of the cache, by what they label and by whether masks have voted."""


@dataclass(frozen=True)
class ShardStatistics:
    """Sums over one shard, or over many.

    `image_raw` to `point_refined` (256,) count label ids; the confusions (C, C) count (truth, label) pairs;
    `mask_counts` (65536,) counts images by their number of visible masks. `segments` (S,) counts truth segments by
    `SEGMENT_SHARES`, and `segment_iou` (S,) sums, over them, the best IoU with a mask; `segments_found` (S,) counts
    those where it is at least 0.5.
    """

    image_raw: Counts
    image_refined: Counts
    point_raw: Counts
    point_refined: Counts
    image_raw_confusion: Counts
    image_refined_confusion: Counts
    point_raw_confusion: Counts
    point_refined_confusion: Counts
    image_truth_pixels: Counts
    point_truth_points: Counts
    pairs: Counts
    masked_pixels: Counts
    mask_counts: Counts
    segments: Counts
    segments_found: Counts
    segment_iou: NDArray[np.float64]

    def __add__(self, other: "ShardStatistics") -> "ShardStatistics":
        """Sum field by field."""
        return ShardStatistics(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def inspect_cache(url: str) -> dict[str, Any]:
    """Return everything that `labelgen inspect` reports, as one JSON-ready object; see docs/inspect.md for its keys.

    Raises:
        CacheError: if there is no readable cache at `url`.
    """
    import dask

    cache, manifest = Cache.open(url)
    keys = cache.shard_keys()
    records = cache.shard_records(keys)
    seals = cache.seals([*ROOT_GROUPS, *(f"shards/{key}/{group}" for key in keys for group in SHARD_GROUPS)])
    finished = [key for key in keys if key in records and records[key].samples and _is_finished(key, seals)]
    classes = len(manifest.taxonomy.classes)
    parts = [dask.delayed(shard_statistics)(url, key, classes) for key in finished]
    while len(parts) > 1:
        parts = [dask.delayed(sum)(parts[i : i + 8][1:], parts[i]) for i in range(0, len(parts), 8)]
    total = dask.compute(*parts, scheduler="threads")[0] if parts else None
    return {
        **_provenance(url, manifest, seals),
        **_inventory(manifest, keys, finished, records, seals),
        **(_statistics(total, manifest.taxonomy.names) if total else {}),
        "bytes": _bytes(cache, seals),
    }


def shard_statistics(url: str, key: str, classes: int) -> ShardStatistics:
    """Read one finished shard and count."""
    cache = Cache(url)
    labels = cache.read(f"shards/{key}/labels")
    truth = cache.read(f"shards/{key}/truth") if f"shards/{key}/truth" in cache.seals([f"shards/{key}/truth"]) else {}
    mask_ids = cache.read(f"shards/{key}/sam", "mask_ids")["mask_ids"]
    histograms, confusions = {}, {}
    for target, arrays in LABEL_ARRAYS.items():
        for kind, name in arrays.items():
            histograms[f"{target}_{kind}"] = np.bincount(labels[name].ravel(), minlength=256)
            confusions[f"{target}_{kind}_confusion"] = (
                confusion_matrix(truth[target], labels[name], classes)
                if target in truth
                else np.zeros((classes, classes), np.int64)
            )
    scored = [best_ious(s, m) for s, m in zip(truth.get("segments", []), mask_ids, strict=False)]
    best, share = np.concatenate(scored, axis=1) if scored else np.zeros((2, 0))
    size = np.digitize(share, SEGMENT_SHARES)
    return ShardStatistics(
        **histograms,
        **confusions,
        image_truth_pixels=np.array((truth["image"] != 255).sum() if "image" in truth else 0),
        point_truth_points=np.array((truth["point"] != 255).sum() if "point" in truth else 0),
        pairs=np.array(cache.arrays(f"shards/{key}/pairs")["point"].shape[0]),
        masked_pixels=np.array((mask_ids > 0).sum()),
        mask_counts=np.bincount(_visible_masks(mask_ids), minlength=65536),
        segments=np.bincount(size, minlength=len(SEGMENT_SHARES)),
        segments_found=np.bincount(size[best >= FOUND_IOU], minlength=len(SEGMENT_SHARES)),
        segment_iou=np.bincount(size, best, minlength=len(SEGMENT_SHARES)),
    )


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


def _visible_masks(mask_ids: NDArray[np.uint16]) -> NDArray[np.intp]:
    """Return how many ids other than 0 each image shows, (I,)."""
    stride = int(mask_ids.max(initial=0)) + 1
    keyed = mask_ids.reshape(len(mask_ids), -1) + stride * np.arange(len(mask_ids), dtype=np.int64)[:, None]
    present = np.bincount(keyed.ravel(), minlength=stride * len(mask_ids)).reshape(-1, stride)[:, 1:] > 0
    return present.sum(axis=1)


def _is_finished(key: str, seals: dict[str, GroupSeal]) -> bool:
    return all(f"shards/{key}/{group}" in seals for group in set(SHARD_GROUPS) - OPTIONAL_GROUPS)


def _seals_of(key: str, seals: dict[str, GroupSeal]) -> dict[str, GroupSeal]:
    """Return a shard's seals and that of `text`, by group name."""
    paths = {"text": "text", **{group: f"shards/{key}/{group}" for group in SHARD_GROUPS}}
    return {name: seals[path] for name, path in paths.items() if path in seals}


def _provenance(url: str, manifest: CacheManifest, seals: dict[str, GroupSeal]) -> dict[str, Any]:
    teachers = manifest.teachers
    used = [teachers.clip, teachers.sam, *(seal.teacher for seal in seals.values() if seal.teacher)]
    return {
        "cache": url,
        "schema_version": manifest.schema_version,
        "dataset": manifest.dataset,
        "split": manifest.split,
        "taxonomy": manifest.taxonomy.name,
        "prompts": manifest.prompts.name,
        "teachers": {
            **teachers.to_attrs(),
            "untrained": any(teacher.weights.startswith(UNTRAINED) for teacher in used),
        },
        "config_digest": manifest.config_digest,
        "software": manifest.software,
    }


def _inventory(
    manifest: CacheManifest,
    keys: list[str],
    finished: list[str],
    records: dict[str, ShardRecord],
    seals: dict[str, GroupSeal],
) -> dict[str, Any]:
    empty = [key for key in keys if key in records and not records[key].samples]
    quarantined = [entry for record in records.values() for entry in record.quarantined]
    stale = [key for key in finished if stale_groups(_seals_of(key, seals), manifest.recipes)]
    return {
        "shards": {
            "sealed": len(finished),
            "stale": len(stale),
            "quarantined": len(empty),
            "unfinished": len(keys) - len(finished) - len(empty),
        },
        "groups_sealed": dict(
            sorted(Counter(path.rsplit("/", 1)[-1] for path in seals if path not in ROOT_GROUPS).items())
        ),
        "samples": {
            "labelled": sum(len(records[key].samples) for key in finished),
            "quarantined": len(quarantined),
            "reasons": [{"sample": e.sample, "stage": e.stage, "reason": e.reason} for e in quarantined],
        },
    }


def _statistics(total: ShardStatistics, names: tuple[str, ...]) -> dict[str, Any]:
    points = int(total.point_raw.sum())
    pixels = int(total.image_raw.sum())
    images = int(total.mask_counts.sum())
    masks = int((total.mask_counts * np.arange(len(total.mask_counts))).sum())
    visible = np.flatnonzero(total.mask_counts)
    seen = points - int(total.point_raw[255])
    return {
        "labels": {
            target: {kind: _histogram(getattr(total, f"{target}_{kind}"), names) for kind in KINDS}
            for target in LABEL_ARRAYS
        },
        "points": {"total": points, "seen": seen, "seen_share": _share(seen, points), "pairs": int(total.pairs)},
        "masks": {
            "images": images,
            "per_image": {
                "mean": _share(masks, images),
                "min": int(visible.min(initial=65535)),
                "max": int(visible.max(initial=0)),
            },
            "covered_share": _share(int(total.masked_pixels), pixels),
        },
        "truth": {
            "masks": _mask_agreement(total),
            "image": _agreement(total, "image", int(total.image_truth_pixels), names),
            "point": _agreement(total, "point", int(total.point_truth_points), names),
        },
    }


def _histogram(counts: Counts, names: tuple[str, ...]) -> dict[str, int]:
    return {**{name: int(counts[i]) for i, name in enumerate(names)}, "ignore": int(counts[255])}


def _agreement(total: ShardStatistics, target: str, labelled: int, names: tuple[str, ...]) -> dict[str, Any] | None:
    """Score labels against truth; elements whose label is "ignore" (points that no camera sees) are left out."""
    if not labelled:
        return None
    agreement: dict[str, Any] = {"truth": labelled}
    for kind in KINDS:
        confusion = getattr(total, f"{target}_{kind}_confusion")
        scores = score(confusion)
        agreement[kind] = {
            **scores.to_dict(names),
            "class_accuracy": {name: json_number(value) for name, value in zip(names, scores.recall, strict=True)},
            "confusion": confusion.tolist(),
        }
    return agreement


def _mask_agreement(total: ShardStatistics) -> dict[str, Any] | None:
    """Say how well masks cover the truth's segments, as far as the id map shows them."""
    if not total.segments.any():
        return None
    sums = total.segments, total.segment_iou, total.segments_found
    return {
        **_segment_scores(*(column.sum() for column in sums)),
        "by_share": [
            {"from": least, **_segment_scores(*(column[size] for column in sums))}
            for size, least in enumerate(SEGMENT_SHARES)
        ],
    }


def _segment_scores(segments: int, iou: float, found: int) -> dict[str, Any]:
    return {
        "segments": int(segments),
        "mean_best_iou": json_number(iou / segments) if segments else None,
        "recall_at_half": json_number(found / segments) if segments else None,
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _bytes(cache: Cache, seals: dict[str, GroupSeal]) -> dict[str, int]:
    """Return bytes on disk by array, such as `sam/features`, summed over shards."""
    sizes: Counter[str] = Counter()
    for path in seals:
        group = path.rsplit("/", 1)[-1]
        for array, size in cache.stored_bytes(path).items():
            sizes[f"{group}/{array}"] += size
    return dict(sorted(sizes.items()))
