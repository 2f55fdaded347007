"""How sure a voted label is, from 0 to 1: the share of the vote that it won, and for points the agreement of the views.

Axes: B images, C classes, h x w the grid of patches, H x W the training size, P points, N pixel-point pairs.
"""

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE
from labelgen.labelling import ImageLabels, Labels, Scores, upsample_scores
from labelgen.teachers.clip.refinements import TEMPERATURE

SCALE = 255
"""A stored confidence is this times the confidence, rounded."""

WITHOUT_VOTE = 0.5
"""Factor on CLIP's probability at a pixel in no mask, where no other pixel confirms the label.

Without it, labels at these pixels are right half as often as their probability says (docs/results/labels.md).
"""


def confidence_of_images(images: ImageLabels, mask_ids: NDArray[np.uint16], logits: NDArray[np.floating]) -> Scores:
    """Return the confidence (B, H, W) f32, 0..1, of the voted labels.

    All pixels of a mask have the share of the mask's pixels that had its label before the vote. A pixel in no mask has
    half of CLIP's probability of its label. The probability at a patch is softmax(100 * cosine) over the classes; it is
    resized to pixels as scores are (eq 1). `mask_ids` are (B, H, W), `logits` (B, C, h, w) are the cosines.
    """
    of_image = zip(images.raw, images.refined, mask_ids, logits, strict=True)
    return np.stack([_confidence_of_image(*image) for image in of_image])


def _confidence_of_image(
    raw: Labels, voted: Labels, mask_ids: NDArray[np.uint16], logits: NDArray[np.floating]
) -> Scores:
    """Return the confidence (H, W) of one image: labels and mask ids (H, W), cosines (C, h, w)."""
    masks = mask_ids.ravel()
    share = np.bincount(masks, (raw == voted).ravel()) / np.maximum(np.bincount(masks), 1)
    found: Scores = share.astype(np.float32).take(mask_ids)
    alone = mask_ids == 0
    scaled = TEMPERATURE * logits.astype(np.float32)
    probabilities = np.exp(scaled - scaled.max(axis=0))
    probabilities *= WITHOUT_VOTE / probabilities.sum(axis=0)
    for label in np.flatnonzero(np.bincount(voted[alone])):
        own = upsample_scores(probabilities[None, [label]], voted.shape)[0, 0]
        np.copyto(found, own, where=alone & (voted == label))
    return found


def confidence_of_points(
    points: Labels,
    images: Labels,
    confidence: Scores,
    point: NDArray[np.integer],
    image: NDArray[np.integer],
    row: NDArray[np.integer],
    col: NDArray[np.integer],
) -> Scores:
    """Return the confidence (P,) f32, 0..1, of the voted labels of points (P,): the agreement of the views.

    It is the mean over the pixels that see the point; a pixel with another label than the point counts 0. A point
    without a label has 0. `images` (B, H, W) are the voted labels of pixels, `confidence` (B, H, W) is theirs. Each row
    of `point`, `image`, `row` and `col`, (N,) each, is one pixel-point pair.
    """
    pixel = np.ravel_multi_index((image, row, col), images.shape)
    agreeing = np.where(images.ravel().take(pixel) == points[point], confidence.ravel().take(pixel), 0)
    views = np.bincount(point, minlength=len(points))
    mean = np.bincount(point, agreeing, len(points)) / np.maximum(views, 1)
    return np.where(points == IGNORE, 0, mean).astype(np.float32)


def as_bytes(confidence: Scores) -> NDArray[np.uint8]:
    """Return confidence (...) f32, 0..1, as it is stored: 0..255."""
    return np.rint(confidence * SCALE).astype(np.uint8)
