"""Turn counts into numbers that can be compared between samples, shards and caches."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_schemas.scoring import score
from labelgen.inspection.statistics import Counts, Statistics


@dataclass(frozen=True)
class Measure:
    """One number of a sample, a shard or a cache: what it says, and the least difference that means anything."""

    title: str
    floor: float
    is_share: bool = True


MEASURES = {
    "entropy": Measure("entropy of CLIP's class probabilities, of 1", 0.03, is_share=False),
    "margin": Measure("lead of CLIP's best class", 0.05),
    "changed": Measure("pixels whose label the vote changed", 0.05),
    "masks_per_image": Measure("masks an image", 5, is_share=False),
    "masked": Measure("pixels under a mask", 0.05),
    "seen": Measure("points seen by a camera", 0.05),
    "seen_twice": Measure("points seen by two or more cameras", 0.03),
    "camera_disagreement": Measure("points seen twice whose cameras disagree", 0.1),
    "pair_agreement": Measure("pairs whose pixel and point agree", 0.03),
    "main_class": Measure("pixels of the most frequent class", 0.15),
    "pixel_accuracy": Measure("pixels whose voted label is the true one", 0.15),
    "point_accuracy": Measure("points whose voted label is the true one", 0.15),
}
"""What is measured of each sample and shard, in the order of `measure`."""


@dataclass(frozen=True)
class Row:
    """The measures of one sample, or of one shard (`sample` is None).

    `values` (K,) f32 are `MEASURES` in order, NaN where there is nothing to measure. By class (C,): `pixels` the
    share of pixels with the voted label; `occurs` whether a pixel or point has it as a label or as truth; `iou` f32 of
    the voted labels, NaN where truth has none of the class; `wrong` how many pixels have it as truth or as label, but
    not as both; `mixed_up` (C, 2) the true class and the label of the largest part of these, -1 of none. `iou`, `wrong`
    and `mixed_up` are of points where only points have truth.
    """

    shard: str
    sample: str | None
    samples: int
    values: NDArray[np.float32]
    pixels: NDArray[np.float32]
    occurs: NDArray[np.bool_]
    iou: NDArray[np.float32]
    wrong: NDArray[np.int64]
    mixed_up: NDArray[np.int16]

    def value(self, measure: str) -> float:
        """Return one of `MEASURES`."""
        return float(self.values[list(MEASURES).index(measure)])


def measure(counted: Statistics) -> dict[str, float]:
    """Return `MEASURES` of some statistics, by name; NaN where there is nothing to measure."""
    pixels = int(counted.image_flow.sum())
    points = int(counted.cameras.sum())
    patches = int(counted.entropy.sum())
    voted = counted.image_flow.sum(axis=0)[:-1]
    return {
        "entropy": share(counted.entropy_sum, patches),
        "margin": share(counted.margin_sum, patches),
        "changed": moved_share(counted.image_flow),
        "masks_per_image": share(counted.masks, counted.images),
        "masked": share(counted.masked_pixels, pixels),
        "seen": share(counted.cameras[1:].sum(), points),
        "seen_twice": share(counted.cameras[2], points),
        "camera_disagreement": share(counted.disagreeing, counted.cameras[2]),
        "pair_agreement": share(counted.pairs_agreeing, counted.pairs),
        "main_class": share(voted.max(initial=0), pixels),
        "pixel_accuracy": score(confusion(counted.image_truth_voted)).accuracy,
        "point_accuracy": score(confusion(counted.point_truth_voted)).accuracy,
    }


def row(shard: str, sample: str | None, counted: Statistics) -> Row:
    """Return the measures of one sample, or of a whole shard."""
    tables = (counted.image_flow, counted.point_flow, counted.image_truth_voted, counted.point_truth_voted)
    occurs = sum(table.sum(axis=0) + table.sum(axis=1) for table in tables)[:-1] > 0
    voted = counted.image_flow.sum(axis=0)
    agreement = confusion(counted.image_truth_voted if counted.image_truth_voted.any() else counted.point_truth_voted)
    return Row(
        shard=shard,
        sample=sample,
        samples=int(counted.samples),
        values=np.array(list(measure(counted).values()), np.float32),
        pixels=(voted[:-1] / max(1, voted.sum())).astype(np.float32),
        occurs=occurs,
        iou=np.where(agreement.any(axis=1), score(agreement).iou, np.nan).astype(np.float32),
        wrong=agreement.sum(axis=0) + agreement.sum(axis=1) - 2 * np.diag(agreement),
        mixed_up=_largest_mix_up(agreement),
    )


def _largest_mix_up(agreement: Counts) -> NDArray[np.int16]:
    """Return, for each class, the (truth, label) pair of its most frequent error in a confusion matrix: (C, 2)."""
    classes = len(agreement)
    errors = agreement * (1 - np.eye(classes, dtype=np.int64))
    both = np.concatenate([errors, errors.T], axis=1)
    place = both.argmax(axis=1)
    other, own = place % classes, np.arange(classes)
    pairs = np.where((place < classes)[:, None], np.stack([own, other], 1), np.stack([other, own], 1))
    return np.where(both.any(axis=1)[:, None], pairs, -1).astype(np.int16)


def confusion(together: Counts) -> Counts:
    """Return the (C, C) confusion matrix in a (C+1, C+1) table of (truth, label) counts: "ignore" is left out."""
    return together[:-1, :-1]


def moved_share(flow: Counts) -> float:
    """Return how much of a (C, C) table of (before, after) counts is off its diagonal, NaN of nothing."""
    return share(flow.sum() - np.trace(flow), flow.sum())


def share(part: float | NDArray[np.generic], whole: float | NDArray[np.generic]) -> float:
    """Return part / whole, NaN of nothing."""
    return float(part) / float(whole) if whole else float("nan")
