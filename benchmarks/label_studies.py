"""Two studies of a cache with truth of pixels and `clip/features`, for docs/results/labels.md.

Pixels in no mask: how often labels are right, by CLIP's probability. Features as int8 with a scale for each image and
channel, as SAM's are stored: their cosine with the stored ones, and what it does to scores and labels.

    python -m benchmarks.label_studies out/world-0.zarr
"""

import sys

import numpy as np

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE
from labelgen.comparison.calibration import Calibration
from labelgen.confidence import WITHOUT_VOTE, as_bytes, confidence_of_images
from labelgen.labelling import label_images
from labelgen.teachers.clip.cached_features import Features


def without_masks(cache: Cache, key: str) -> Calibration:
    """Return the calibration of CLIP's probabilities at pixels in no mask."""
    logits = cache.read(GroupPath(key, "clip"), "logits")["logits"]
    mask_ids = cache.read(GroupPath(key, "sam"), "mask_ids")["mask_ids"]
    truth = cache.read(GroupPath(key, "truth"), "image")["image"]
    images = label_images(logits, mask_ids)
    probability = confidence_of_images(images, mask_ids, logits) / WITHOUT_VOTE
    chosen = (mask_ids == 0) & (truth != IGNORE)
    return Calibration.of(as_bytes(probability[chosen]), images.refined[chosen] == truth[chosen])


def quantised(features: Features) -> Features:
    """Return features (B, D, h, w) after rounding to int8."""
    scale = np.abs(features).max(axis=(2, 3), keepdims=True) / 127
    rounded: Features = np.rint(features / np.where(scale > 0, scale, 1)) * scale
    return rounded


def as_int8(cache: Cache, key: str) -> tuple[float, float, float]:
    """Return of int8 features the lowest cosine, the largest change of a score, and the share of changed pixels."""
    text = cache.read(GroupPath.root("text"))["embeddings"]
    mask_ids = cache.read(GroupPath(key, "sam"), "mask_ids")["mask_ids"]
    exact = cache.read(GroupPath(key, "clip"), "features")["features"].astype(np.float32)
    both = exact, quantised(exact)
    lengths = np.linalg.norm(both[0], axis=1) * np.linalg.norm(both[1], axis=1)
    scores = [np.einsum("bdhw,cd->bchw", features, text) for features in both]
    labels = [label_images(own.astype(np.float16), mask_ids).refined for own in scores]
    cosine = (both[0] * both[1]).sum(axis=1) / lengths
    return float(cosine.min()), float(np.abs(scores[0] - scores[1]).max()), float((labels[0] != labels[1]).mean())


def main(url: str) -> None:
    """Print both studies."""
    cache = Cache(url)
    keys = cache.shard_keys()
    alone = [without_masks(cache, key) for key in keys]
    total = sum(alone[1:], alone[0])
    for count, confidence, right in zip(total.counts, total.confidence, total.right, strict=True):
        if count:
            print(f"no mask: probability {confidence / count:.2f}, right {right / count:.2f}, {count:,.0f} pixels")
    cosine, change, moved = np.array([as_int8(cache, key) for key in keys]).T
    print(f"int8: lowest cosine {cosine.min():.5f}, largest change of a score {change.max():.4f}, ", end="")
    print(f"voted pixels changed {100 * moved.mean():.2f} %")


if __name__ == "__main__":
    main(sys.argv[1])
