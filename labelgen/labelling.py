"""Where labels are decided: equations 1 to 4 of the CNS paper, from class scores, masks and pixel-point pairs.

Everything here is deterministic and needs only arrays that the cache stores, so labels can be redone from the cache.
Axes: B images, C classes, h x w the grid of patches, H x W the training size, P points, N pixel-point pairs.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE

Scores = NDArray[np.float32]
Labels = NDArray[np.uint8]

Vote = Literal["counts", "mean"]
"""How the pixels of a mask choose its class: by the number of their labels (eq 4), or by the mean of their scores."""


def upsample_scores(logits: NDArray[np.floating], size: tuple[int, int]) -> Scores:
    """Resample scores (B, C, h, w) to `size`, (B, C, H, W), bilinearly as torch does with align_corners=False."""
    rows = _bilinear_weights(logits.shape[2], size[0])
    columns = _bilinear_weights(logits.shape[3], size[1])
    scores: Scores = np.matmul(rows, logits.astype(np.float32) @ columns.T)
    return scores


def _bilinear_weights(source: int, target: int) -> NDArray[np.float32]:
    """Return the (target, source) matrix of bilinear sampling along one axis, clamped at the borders."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.minimum(position.astype(np.intp), source - 1)
    high = np.minimum(low + 1, source - 1)
    weights = np.zeros((target, source), np.float32)
    share = (position - low).astype(np.float32)
    np.add.at(weights, (np.arange(target), low), 1 - share)
    np.add.at(weights, (np.arange(target), high), share)
    return weights


def classify(logits: NDArray[np.floating], size: tuple[int, int]) -> tuple[Labels, Scores]:
    """Eq 1: argmax over classes at full size; returns class ids and their scores, (B, H, W) each.

    `logits` are patch scores (B, C, h, w). If scores are equal, the lower id wins. Classes are resampled one at a
    time, because one class of one picture fits in the cache of the processor.
    """
    rows, columns = _bilinear_weights(logits.shape[2], size[0]), _bilinear_weights(logits.shape[3], size[1])
    labels, best = np.zeros((len(logits), *size), np.uint8), np.empty((len(logits), *size), np.float32)
    for wide, label, top in zip(logits.astype(np.float32) @ columns.T, labels, best, strict=True):
        np.matmul(rows, wide[0], out=top)
        for number in range(1, len(wide)):
            score = rows @ wide[number]
            # Ids rise, so the maximum of the old and the new id is the new one. It needs no branch for each pixel.
            np.maximum(label, (score > top).view(np.uint8) * np.uint8(number), out=label)
            np.maximum(top, score, out=top)
    return labels, best


def vote_in_masks(
    labels: Labels, mask_ids: NDArray[np.uint16], logits: NDArray[np.floating], vote: Vote = "counts"
) -> Labels:
    """Eq 3 and 4: give all pixels of a mask the class that most of them have; labels (B, H, W) in and out.

    With `vote` "mean" they get the class whose score has the highest mean over the mask, of equal ones the lower id.

    With "counts", if classes have equal votes, the one with the larger score summed over the pixels of the mask wins,
    then the lower id. Only for these ties `logits` (B, C, h, w) are resampled to full size. Pixels under no mask (id 0)
    keep their label. The vote of the trainer breaks ties by the lower id alone; trainer/vote.py says why.
    """
    of_image = {"counts": _count_in_image, "mean": _average_in_image}[vote]
    return np.stack([of_image(*image) for image in zip(labels, mask_ids, logits, strict=True)])


def _average_in_image(labels: Labels, mask_ids: NDArray[np.uint16], logits: NDArray[np.floating]) -> Labels:
    """Vote in one image by mean scores: labels and mask ids (H, W), patch scores (C, h, w)."""
    masks = mask_ids.ravel()
    # One class at a time, as in `classify`. Classes of a mask are compared, so the sums do as well as the means.
    sums = np.stack([np.bincount(masks, upsample_scores(own[None, None], mask_ids.shape).ravel()) for own in logits])
    winners = sums.argmax(axis=0).astype(np.uint8)
    return np.where(mask_ids > 0, winners.take(mask_ids), labels)


def _count_in_image(labels: Labels, mask_ids: NDArray[np.uint16], logits: NDArray[np.floating]) -> Labels:
    """Vote in one image by counts: labels and mask ids (H, W), patch scores (C, h, w)."""
    classes, mask_count = len(logits), int(mask_ids.max(initial=0)) + 1
    # Index of each pixel's (mask, label) in the flat table of votes, in the smallest dtype that can hold it.
    cell = np.multiply(mask_ids, classes, dtype=np.min_scalar_type(mask_count * classes)) + labels
    cell = cell.astype(np.intp)
    votes = np.bincount(cell.ravel(), minlength=mask_count * classes).reshape(mask_count, classes)
    label_of_cell = np.repeat(_winners(votes, mask_ids, logits), classes)
    label_of_cell[:classes] = np.arange(classes)  # no mask: each label stays
    return label_of_cell.astype(np.uint8).take(cell)


def _winners(votes: NDArray[np.intp], mask_ids: NDArray[np.uint16], logits: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the winning class (M,) of each mask from its `votes` (M, C); that of mask 0 has no meaning."""
    winners: NDArray[np.intp] = votes.argmax(axis=1)
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
    """Class ids before and after the vote, `raw` and `refined` (B, H, W) u8; `best` (B, H, W) f32 scores of `raw`."""

    raw: Labels
    refined: Labels
    best: Scores


def label_images(logits: NDArray[np.floating], mask_ids: NDArray[np.uint16], vote: Vote = "counts") -> ImageLabels:
    """Label images from patch scores (B, C, h, w) and mask ids (B, H, W)."""
    raw, best = classify(logits, (mask_ids.shape[1], mask_ids.shape[2]))
    return ImageLabels(raw, vote_in_masks(raw, mask_ids, logits, vote), best)


def transfer_to_points(
    images: ImageLabels,
    points: int,
    point: NDArray[np.integer],
    image: NDArray[np.integer],
    row: NDArray[np.integer],
    col: NDArray[np.integer],
) -> tuple[Labels, Labels]:
    """Eq 2: give points the labels of their pixels; returns raw and refined class ids, (P,) u8 each.

    `points` is P. Each row of `point`, `image`, `row` and `col`, (N,) each, is one pixel-point pair.

    If several cameras see a point, the pixel with the highest score of its raw label decides, then the earlier camera.
    Points that no camera sees get the ignore index, 255.
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
