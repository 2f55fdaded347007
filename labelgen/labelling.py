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


def classify(logits: NDArray[np.floating], size: tuple[int, int]) -> tuple[Labels, Scores]:
    """Eq 1: the class of the highest score at full size, and that score; (B, H, W) each, from patches (B, C, h, w).

    Of equal scores the lower id wins. Classes are brought to full size one at a time: a picture's share of one stays
    in the processor's cache, scores of all (B, C, H, W) would not.
    """
    rows, columns = _bilinear_weights(logits.shape[2], size[0]), _bilinear_weights(logits.shape[3], size[1])
    labels, best = np.zeros((len(logits), *size), np.uint8), np.empty((len(logits), *size), np.float32)
    for wide, label, top in zip(logits.astype(np.float32) @ columns.T, labels, best, strict=True):
        np.matmul(rows, wide[0], out=top)
        for number in range(1, len(wide)):
            score = rows @ wide[number]
            # Ids come in rising order, so the higher of two is the later: a maximum sets them without a branch a pixel.
            np.maximum(label, (score > top).view(np.uint8) * np.uint8(number), out=label)
            np.maximum(top, score, out=top)
    return labels, best


def vote_in_masks(labels: Labels, mask_ids: NDArray[np.uint16], logits: NDArray[np.floating]) -> Labels:
    """Eq 3-4: give all pixels of a mask the class that most of them have; (B, H, W) in and out.

    Of classes with equal votes, the one with the higher score summed over the mask's pixels wins, then the lower
    id; `logits` (B, C, h, w) are brought to full size where that is asked. Pixels under no mask (id 0) keep their
    own label.
    """
    return np.stack([_vote_in_image(*image) for image in zip(labels, mask_ids, logits, strict=True)])


def _vote_in_image(labels: Labels, mask_ids: NDArray[np.uint16], logits: NDArray[np.floating]) -> Labels:
    """Vote in one image: labels and mask ids (H, W), scores (C, h, w). One at a time stays in the processor's cache."""
    classes, masks = len(logits), int(mask_ids.max(initial=0)) + 1
    # A pixel's ballot says its mask and its label in one number, the smallest kind of number that can hold it.
    ballots = np.multiply(mask_ids, classes, dtype=np.min_scalar_type(masks * classes)) + labels
    ballots = ballots.astype(np.intp)
    votes = np.bincount(ballots.ravel(), minlength=masks * classes).reshape(masks, classes)
    outcome = np.repeat(_winners(votes, mask_ids, logits), classes)
    outcome[:classes] = np.arange(classes)
    return outcome.astype(np.uint8).take(ballots)


def _winners(votes: NDArray[np.intp], mask_ids: NDArray[np.uint16], logits: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the class (M,) that each mask elects, from its `votes` (M, C); the one of mask 0 means nothing."""
    winners = votes.argmax(axis=1)
    leading = votes == votes.max(axis=1, keepdims=True)
    tied = (leading.sum(axis=1) > 1) & votes.any(axis=1)
    tied[0] = False
    if tied.any():
        inside = np.flatnonzero(tied.take(mask_ids))
        masks, sums = mask_ids.ravel()[inside], np.full(votes.shape, -np.inf)
        rivals = np.flatnonzero(leading[tied].any(axis=0))
        for rival, scores in zip(rivals, upsample_scores(logits[None, rivals], mask_ids.shape)[0], strict=True):
            sums[:, rival] = np.bincount(masks, scores.ravel()[inside], len(votes))
        winners[tied] = np.where(leading, sums, -np.inf)[tied].argmax(axis=1)
    return winners


@dataclass(frozen=True)
class ImageLabels:
    """`raw` and `refined` (B, H, W) ids, and `best` (B, H, W) f32, the score of the raw label."""

    raw: Labels
    refined: Labels
    best: Scores


def label_images(logits: NDArray[np.floating], mask_ids: NDArray[np.uint16]) -> ImageLabels:
    """Label images from patch scores (B, C, h, w) and mask ids (B, H, W)."""
    raw, best = classify(logits, (mask_ids.shape[1], mask_ids.shape[2]))
    return ImageLabels(raw, vote_in_masks(raw, mask_ids, logits), best)


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
    pixel = np.ravel_multi_index((image, row, col), images.best.shape)
    score = images.best.ravel().take(pixel)
    highest = np.full(points, -np.inf, np.float32)
    np.maximum.at(highest, point, score)
    best = np.flatnonzero(score == highest.take(point))
    earliest = np.full(points, np.iinfo(pixel.dtype).max)
    np.minimum.at(earliest, point[best], pixel[best])
    seen = np.flatnonzero(np.isfinite(highest))
    raw, refined = np.full((2, points), IGNORE, np.uint8)
    for labels, pictures in ((raw, images.raw), (refined, images.refined)):
        labels[seen] = pictures.ravel().take(earliest[seen])
    return raw, refined
