"""What the pictures of a shard say about its points: each visible pair, its mask, and the scores of this mask."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelgen.labelling import upsample_scores

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Views:
    """The N visible pairs of a shard, and its masks, numbered over all pictures.

    Attributes:
        point, image, row, col: (N,) the pairs, as in the group `pairs`.
        first_mask: (I + 1,) the masks of picture i are `first_mask[i]:first_mask[i + 1]`. The first one of each picture
            stands for its pixels in no mask.
        mask: (N,) the mask of each pair.
        in_mask: (N,) whether it is a real one.
        scores: (N, C) f32 cosines to the classes: the mean over the mask's pixels, or those of a pixel in no mask.
    """

    point: Ids
    image: Ids
    row: Ids
    col: Ids
    first_mask: Ids
    mask: Ids
    in_mask: NDArray[np.bool_]
    scores: NDArray[np.float32]


def find_views(
    pairs: Mapping[str, NDArray[np.integer]], logits: NDArray[np.floating], mask_ids: NDArray[np.uint16]
) -> Views:
    """Return the views of pairs: `point`, `image`, `row`, `col`, (N,) each, the images in rising order.

    `logits` (I, C, h, w) are the scores of patches, `mask_ids` (I, H, W) the masks, 0 for none.
    """
    point, image, row, col = (pairs[name].astype(np.int64) for name in ("point", "image", "row", "col"))
    counts = mask_ids.max(axis=(1, 2), initial=0).astype(np.int64) + 1
    first = np.concatenate([[0], np.cumsum(counts)])
    own = mask_ids[image, row, col].astype(np.int64)
    scores = np.empty((len(point), logits.shape[1]), np.float32)
    ends = np.searchsorted(image, np.arange(len(mask_ids) + 1))
    for number, (patches, masks) in enumerate(zip(logits, mask_ids, strict=True)):
        here = slice(ends[number], ends[number + 1])
        if here.stop > here.start:
            scores[here] = _scores_of_pixels(patches, masks, row[here], col[here])
    return Views(point, image, row, col, first, first[image] + own, own > 0, scores)


def _scores_of_pixels(
    patches: NDArray[np.floating], masks: NDArray[np.uint16], row: Ids, col: Ids
) -> NDArray[np.float32]:
    """Return the scores (N, C) of some pixels of one picture: patch scores (C, h, w), masks (H, W)."""
    flat, mask = masks.ravel(), masks[row, col]
    area = np.maximum(np.bincount(flat), 1)
    found = np.empty((len(row), len(patches)), np.float32)
    for number, own in enumerate(patches):  # one class at a time fits in the cache of the processor
        plane = upsample_scores(own[None, None], masks.shape)[0, 0]
        means = (np.bincount(flat, plane.ravel()) / area).astype(np.float32)
        found[:, number] = np.where(mask > 0, means[mask], plane[row, col])
    return found
