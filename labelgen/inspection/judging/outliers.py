"""Find shards that are far from the others: robust z-scores by median and median absolute deviation (MAD)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labelgen.inspection.counting.measures import MEASURES, Measure, Measurements
from labelgen.inspection.report import Outlier

FEWEST_SHARDS = 8
"""With fewer shards there are no outliers: the median says too little."""

THRESHOLD = 5.0
"""An outlier is further than this many robust standard deviations from the median."""

_MAD_TO_STD = 1.4826
"""Ratio of standard deviation and median absolute deviation of a normal distribution."""

CLASS_MIX = Measure("pixels whose class would have to change for the usual mix of classes", 0.25)
"""A measure of whole shards: total variation distance between its class frequencies and the mean over shards."""

SHARD_MEASURES = {**MEASURES, "class_mix": CLASS_MIX}


def find_outliers(shards: Sequence[Measurements]) -> list[Outlier]:
    """Return outliers, furthest first: |value - median| > max(5 x 1.4826 x MAD, smallest difference of the measure)."""
    if len(shards) < FEWEST_SHARDS:
        return []
    values_by_measure = dict(zip(MEASURES, np.stack([shard.values for shard in shards]).T, strict=True))
    values_by_measure["class_mix"] = _class_mix_distances(shards)
    outliers = []
    for name, values in values_by_measure.items():
        measure = SHARD_MEASURES[name]
        median, deviations = robust_deviations(values, measure)
        outliers += [
            Outlier(
                shard=shards[int(i)].shard,
                measure=name,
                title=measure.title,
                value=float(values[i]),
                usual=median,
                deviations=float(deviations[i]),
                is_share=measure.is_share,
            )
            for i in np.flatnonzero(np.abs(deviations) > THRESHOLD)
        ]
    return sorted(outliers, key=lambda outlier: (-abs(outlier.deviations), outlier.shard, outlier.measure))


def robust_deviations(values: NDArray[np.float32], measure: Measure) -> tuple[float, NDArray[np.float64]]:
    """Return the median, and the distance of each value from it in robust standard deviations.

    The standard deviation is at least `smallest_difference` / `THRESHOLD`. A value that is NaN has distance 0.
    """
    known = np.isfinite(values)
    if not known.any():
        return float("nan"), np.zeros(len(values))
    median = float(np.median(values[known]))
    robust_std = _MAD_TO_STD * float(np.median(np.abs(values[known] - median)))
    std = max(measure.smallest_difference / THRESHOLD, robust_std)
    return median, np.where(known, (values - median) / std, 0.0)


def _class_mix_distances(shards: Sequence[Measurements]) -> NDArray[np.float32]:
    """Return the total variation distance of each shard's class frequencies from their mean over shards."""
    frequencies = np.stack([shard.pixel_shares for shard in shards])
    distances: NDArray[np.float32] = 0.5 * np.abs(frequencies - frequencies.mean(axis=0)).sum(axis=1)
    return distances
