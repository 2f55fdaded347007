"""Instances to pixels: each instance selects pixels by its visible points, and gets the mean CLIP score of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelgen.labelling import upsample_scores

AGREEMENT = 0.5
"""An instance and a SAM mask agree if more than this share of the pixels of each, seen by points, is in the other."""


@dataclass(frozen=True)
class PairedPixels:
    """Pixels that see points, (N,) each: the point's index, the image's index, row and column at training size."""

    point: NDArray[np.integer]
    image: NDArray[np.integer]
    row: NDArray[np.integer]
    col: NDArray[np.integer]


@dataclass(frozen=True)
class RegionScores:
    """CLIP scores of K instances.

    `scores` (K, C) f32 are cosines to the classes, averaged over all pixels that see the instance, 0 if none does.
    `pixels` (K,) i64 counts these pixels.
    """

    scores: NDArray[np.float32]
    pixels: NDArray[np.int64]


def score_regions(
    instance: NDArray[np.integer],
    count: int,
    pairs: PairedPixels,
    logits: NDArray[np.floating],
    mask_ids: NDArray[np.uint16],
) -> RegionScores:
    """Average CLIP scores over the pixels of each instance, and over its views (CLIPInstance).

    A view where the instance agrees with a SAM mask has the mean score of the whole mask, with the weight of the
    instance's own pixels. A pixel that sees an instance by several points counts once.

    Args:
        instance: (P,) the instance of each point, 1..K; 0 for none.
        count: K.
        pairs: pixel-point pairs.
        logits: (I, C, h, w) scores of patches.
        mask_ids: (I, H, W) masks; 0 for none.
    """
    scores, pixels = np.zeros((count, logits.shape[1])), np.zeros(count, np.int64)
    of_pair = instance[pairs.point]
    for number, (patches, masks) in enumerate(zip(logits, mask_ids, strict=True)):
        own = np.flatnonzero((pairs.image == number) & (of_pair > 0))
        if not own.size:
            continue
        seen = np.unique(np.stack([of_pair[own], pairs.row[own], pairs.col[own]], axis=1).astype(np.int64), axis=0)
        owner, mask = seen[:, 0] - 1, masks[seen[:, 1], seen[:, 2]].astype(np.int64)
        upsampled = upsample_scores(patches[None], (masks.shape[0], masks.shape[1]))[0]
        np.add.at(scores, owner, _view_scores(owner, mask, upsampled, seen, masks))
        pixels += np.bincount(owner, minlength=count)
    return RegionScores((scores / np.maximum(pixels, 1)[:, None]).astype(np.float32), pixels)


def _view_scores(
    owner: NDArray[np.int64],
    mask: NDArray[np.int64],
    upsampled: NDArray[np.float32],
    seen: NDArray[np.int64],
    masks: NDArray[np.uint16],
) -> NDArray[np.float64]:
    """Return the scores (N, C) of one view's pixels (N,): those of the mask that their instance agrees with, or own."""
    per_pixel = upsampled[:, seen[:, 1], seen[:, 2]].T.astype(np.float64)
    cells, _cell, shared = np.unique(np.stack([owner, mask], axis=1), axis=0, return_inverse=True, return_counts=True)
    of_instance, of_mask = np.bincount(owner)[cells[:, 0]], np.bincount(mask)[cells[:, 1]]
    agrees = (cells[:, 1] > 0) & (shared > AGREEMENT * of_instance) & (shared > AGREEMENT * of_mask)
    agreed = np.full(int(owner.max()) + 1, 0)
    agreed[cells[agrees, 0]] = cells[agrees, 1]
    wanted = np.unique(cells[agrees, 1])
    if wanted.size:
        area = np.bincount(masks.ravel(), minlength=int(wanted.max()) + 1)
        sums = np.stack([np.bincount(masks.ravel(), plane.ravel(), len(area)) for plane in upsampled], axis=1)
        chosen = agreed[owner]
        per_pixel[chosen > 0] = (sums / np.maximum(area, 1)[:, None])[chosen[chosen > 0]]
    return per_pixel
