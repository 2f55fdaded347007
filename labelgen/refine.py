"""From class scores and masks to labels: equations 1 to 4 of the CNS paper, on numpy arrays.

Everything here is deterministic and works from what the cache stores, so labels can be redone from the cache alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE

Scores = NDArray[np.float32]
Labels = NDArray[np.uint8]


def upsample_scores(logits: NDArray[np.floating], size: tuple[int, int]) -> Scores:
    """Bring scores (B, C, h, w) to (B, C, H, W), bilinear with pixel areas aligned (align_corners=False)."""
    rows = _bilinear_weights(logits.shape[2], size[0])
    columns = _bilinear_weights(logits.shape[3], size[1])
    return np.matmul(rows, logits.astype(np.float32) @ columns.T)


def _bilinear_weights(source: int, target: int) -> NDArray[np.float32]:
    """Return the (target, source) matrix of linear interpolation between pixel centres, clamped at the borders."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.minimum(position.astype(np.intp), source - 1)
    high = np.minimum(low + 1, source - 1)
    weights = np.zeros((target, source), np.float32)
    share = (position - low).astype(np.float32)
    np.add.at(weights, (np.arange(target), low), 1 - share)
    np.add.at(weights, (np.arange(target), high), share)
    return weights


def classify(scores: Scores) -> Labels:
    """Eq 1: the class of the highest score, (B, H, W) ids from scores (B, C, H, W)."""
    return scores.argmax(axis=1).astype(np.uint8)


def vote_in_masks(labels: Labels, mask_ids: NDArray[np.uint16], scores: Scores) -> Labels:
    """Eq 3-4: give all pixels of a mask the class that most of them have; (B, H, W) in and out.

    Of classes with equal votes, the one with the higher score summed over the mask's pixels wins, then the lower
    id. Pixels under no mask (id 0) keep their own label.
    """
    return np.stack([_vote_in_image(*image) for image in zip(labels, mask_ids, scores, strict=True)])


def _vote_in_image(labels: Labels, mask_ids: NDArray[np.uint16], scores: Scores) -> Labels:
    """Vote in one image: labels and mask ids (H, W), scores (C, H, W). One at a time stays in the processor's cache."""
    classes, masks = len(scores), int(mask_ids.max(initial=0)) + 1
    ballots = np.multiply(mask_ids, classes, dtype=np.intp) + labels
    votes = np.bincount(ballots.ravel(), minlength=masks * classes).reshape(masks, classes)
    winners = votes.argmax(axis=1)
    tied = np.flatnonzero((votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1)
    tied = tied[(tied != 0) & (votes[tied].sum(axis=1) > 0)]
    if tied.size:
        winners[tied] = _break_ties(tied, votes[tied], mask_ids, scores)
    return np.where(mask_ids == 0, labels, winners.astype(np.uint8).take(mask_ids))


def _break_ties(
    tied: NDArray[np.intp], votes: NDArray[np.intp], mask_ids: NDArray[np.uint16], scores: Scores
) -> NDArray[np.intp]:
    """Return, for each tied mask, the class of highest summed score among those with the most votes."""
    slot = np.full(int(mask_ids.max()) + 1, -1)
    slot[tied] = np.arange(len(tied))
    slots = slot.take(mask_ids)
    inside = slots >= 0
    sums = np.zeros(votes.shape)
    np.add.at(sums, slots[inside], scores[:, inside].T.astype(np.float64))
    return np.where(votes == votes.max(axis=1, keepdims=True), sums, -np.inf).argmax(axis=1)


@dataclass(frozen=True)
class ImageLabels:
    """`raw` and `refined` (B, H, W) ids, and `best` (B, H, W) f32, the score of the raw label."""

    raw: Labels
    refined: Labels
    best: Scores


def label_images(logits: NDArray[np.floating], mask_ids: NDArray[np.uint16], images_at_once: int = 12) -> ImageLabels:
    """Label images from patch scores (B, C, h, w) and mask ids (B, H, W), a few at a time to bound memory."""
    parts = []
    for start in range(0, len(logits), images_at_once):
        ids = mask_ids[start : start + images_at_once]
        scores = upsample_scores(logits[start : start + images_at_once], ids.shape[1:])
        raw = classify(scores)
        parts.append((raw, vote_in_masks(raw, ids, scores), scores.max(axis=1)))
    return ImageLabels(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def transfer_to_points(
    images: ImageLabels,
    points: int,
    point: NDArray[np.integer],
    image: NDArray[np.integer],
    row: NDArray[np.integer],
    col: NDArray[np.integer],
) -> tuple[Labels, Labels]:
    """Eq 2: give points the labels of their pixels; returns raw and refined ids (points,).

    The four pair columns (N,) index points, images and pixels. Of several cameras, the one whose raw label scores
    higher at the point's pixel decides, then the earlier one. Points that no camera sees get 255.
    """
    raw, refined = np.full((2, points), IGNORE, np.uint8)
    best = images.best[image, row, col]
    order = np.lexsort((image, -best, point))
    first = order[np.unique(point[order], return_index=True)[1]]
    raw[point[first]] = images.raw[image[first], row[first], col[first]]
    refined[point[first]] = images.refined[image[first], row[first], col[first]]
    return raw, refined
