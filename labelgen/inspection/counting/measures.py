"""Turn counts into numbers that can be compared between samples, shards and caches."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_schemas.scoring import ScoringRule
from labelgen.inspection.counting.statistics import Counts, Statistics


@dataclass(frozen=True)
class Measure:
    """A number of a sample, a shard or a cache: its title, and the smallest difference that is worth a report."""

    title: str
    smallest_difference: float
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
    "pair_agreement": Measure("visible pairs whose pixel and point agree", 0.03),
    "main_class": Measure("pixels of the most frequent class", 0.15),
    "pixel_accuracy": Measure("pixels whose voted label is the true one", 0.15),
    "point_accuracy": Measure("points whose voted label is the true one", 0.15),
}
"""What is measured of each sample and shard, in the order of `compute_measures`."""


@dataclass(frozen=True)
class Measurements:
    """The measures of one sample, or of one shard (`sample` is None).

    `values` (K,) f32 are the `MEASURES` in order, NaN where there is nothing to measure. The others are by class (C,):

    - `pixel_shares` f32: share of pixels with the voted label;
    - `occurs`: whether a pixel or point has the class as a label or as truth;
    - `iou` f32: IoU of the voted labels, NaN where truth has none of the class;
    - `errors` i64: pixels that have the class as truth or as label, but not as both;
    - `main_error` (C, 2) i16: true class and label of most of these pixels, -1 if there are none.

    `iou`, `errors` and `main_error` are of points where only points have truth.
    """

    shard: str
    sample: str | None
    sample_count: int
    values: NDArray[np.float32]
    pixel_shares: NDArray[np.float32]
    occurs: NDArray[np.bool_]
    iou: NDArray[np.float32]
    errors: NDArray[np.int64]
    main_error: NDArray[np.int16]

    def value(self, measure: str) -> float:
        """Return one of the `MEASURES`."""
        return float(self.values[list(MEASURES).index(measure)])

    @property
    def accuracy(self) -> float:
        """Share of pixels with the right label, or of points where only they have truth; NaN without truth."""
        of_pixels = self.value("pixel_accuracy")
        return of_pixels if np.isfinite(of_pixels) else self.value("point_accuracy")


def compute_measures(counts: Statistics, rule: ScoringRule) -> dict[str, float]:
    """Return the `MEASURES` of some statistics by name; NaN where there is nothing to measure.

    `rule` says which points and pixels count for accuracies.
    """
    pixels = int(counts.image_flow.sum())
    points = int(counts.cameras.sum())
    patches = int(counts.entropy.sum())
    voted = counts.image_flow.sum(axis=0)[:-1]
    return {
        "entropy": ratio(counts.entropy_sum, patches),
        "margin": ratio(counts.margin_sum, patches),
        "changed": changed_share(counts.image_flow),
        "masks_per_image": ratio(counts.masks, counts.images),
        "masked": ratio(counts.masked_pixels, pixels),
        "seen": ratio(counts.cameras[1:].sum(), points),
        "seen_twice": ratio(counts.cameras[2], points),
        "camera_disagreement": ratio(counts.disagreeing, counts.cameras[2]),
        "pair_agreement": ratio(counts.pairs_agreeing, counts.pairs - counts.pairs_hidden),
        "main_class": ratio(voted.max(initial=0), pixels),
        "pixel_accuracy": rule.score(with_truth(counts.image_truth_voted)).accuracy,
        "point_accuracy": rule.score(with_truth(counts.point_truth_voted)).accuracy,
    }


def measurements_of(shard: str, sample: str | None, counts: Statistics, rule: ScoringRule) -> Measurements:
    """Return the measures of one sample, or of a whole shard (`sample` is None), scored by a rule."""
    tables = (counts.image_flow, counts.point_flow, counts.image_truth_voted, counts.point_truth_voted)
    occurs = np.any([table.any(axis=0) | table.any(axis=1) for table in tables], axis=0)
    voted = counts.image_flow.sum(axis=0)
    table = with_truth(counts.image_truth_voted if counts.image_truth_voted.any() else counts.point_truth_voted)
    counted = rule.counted(table)
    confusion = counted[:, :-1]
    return Measurements(
        shard=shard,
        sample=sample,
        sample_count=int(counts.samples),
        values=np.array(list(compute_measures(counts, rule).values()), np.float32),
        pixel_shares=(voted[:-1] / max(1, voted.sum())).astype(np.float32),
        occurs=occurs[:-1],
        iou=np.where(counted.any(axis=1), rule.score(table).iou, np.nan).astype(np.float32),
        errors=confusion.sum(axis=0) + counted.sum(axis=1) - 2 * np.diag(confusion),
        main_error=_main_errors(confusion),
    )


def _main_errors(confusion: Counts) -> NDArray[np.int16]:
    """Return the (truth, label) pair of each class's most frequent error: (C, 2), -1 if it has none."""
    classes = len(confusion)
    errors = confusion * (1 - np.eye(classes, dtype=np.int64))
    both = np.concatenate([errors, errors.T], axis=1)  # own class as truth, then as label
    place: NDArray[np.intp] = both.argmax(axis=1)
    other, own = place % classes, np.arange(classes)
    pairs = np.where((place < classes)[:, None], np.stack([own, other], 1), np.stack([other, own], 1))
    return np.where(both.any(axis=1, keepdims=True), pairs, -1).astype(np.int16)


def with_truth(counts: Counts) -> Counts:
    """Return the (C, C+1) part with truth of a (C+1, C+1) table whose last row and column stand for "ignore"."""
    return counts[:-1]


def changed_share(flow: Counts) -> float:
    """Return the share of a square table of (before, after) counts that is off its diagonal, NaN of nothing."""
    return ratio(flow.sum() - np.trace(flow), flow.sum())


def ratio(part: float | NDArray[np.generic], whole: float | NDArray[np.generic]) -> float:
    """Return part / whole, NaN if the whole is 0."""
    return float(part) / float(whole) if whole else float("nan")
