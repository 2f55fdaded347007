"""How often labels of pixels in no mask are right, by CLIP's probability, for docs/results/labels.md.

python -m benchmarks.label_studies out/world-0.zarr
"""

import sys

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE
from labelgen.comparison.calibration import Calibration
from labelgen.confidence import WITHOUT_VOTE, as_bytes, confidence_of_images
from labelgen.labelling import label_images


def without_masks(cache: Cache, key: str) -> Calibration:
    """Return the calibration of CLIP's probabilities at pixels in no mask."""
    logits = cache.read(GroupPath(key, "clip"), "logits")["logits"]
    mask_ids = cache.read(GroupPath(key, "sam"), "mask_ids")["mask_ids"]
    truth = cache.read(GroupPath(key, "truth"), "image")["image"]
    images = label_images(logits, mask_ids)
    probability = confidence_of_images(images, mask_ids, logits) / WITHOUT_VOTE
    chosen = (mask_ids == 0) & (truth != IGNORE)
    return Calibration.of(as_bytes(probability[chosen]), images.refined[chosen] == truth[chosen])


def main(url: str) -> None:
    """Print the study of a cache with truth of pixels."""
    cache = Cache(url)
    keys = cache.shard_keys()
    alone = [without_masks(cache, key) for key in keys]
    total = sum(alone[1:], alone[0])
    for count, confidence, right in zip(total.counts, total.confidence, total.right, strict=True):
        if count:
            print(f"no mask: probability {confidence / count:.2f}, right {right / count:.2f}, {count:,.0f} pixels")


if __name__ == "__main__":
    main(sys.argv[1])
