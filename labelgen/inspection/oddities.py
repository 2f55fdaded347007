"""Which shards and samples stand out, and by what: robust outliers, and the order worst first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelgen.inspection.measures import MEASURES, Measure, Row

FEWEST_SHARDS = 8
"""With fewer there is no telling what is usual."""

FAR = 5.0
"""An outlier is further than this many robust standard deviations from the median."""

_MAD_TO_STD = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""

CLASS_MIX = Measure("pixels whose class would have to change for the usual mix of classes", 0.25)


@dataclass(frozen=True)
class Oddity:
    """One measure of a shard that stands out: its value, the median of all shards, and the distance in `FAR` units."""

    shard: str
    measure: str
    title: str
    value: float
    usual: float
    deviations: float
    is_share: bool


def odd_shards(shards: Sequence[Row]) -> list[Oddity]:
    """Return what stands out, furthest first: |value - median| > max(5 * 1.4826 * MAD, the measure's floor)."""
    if len(shards) < FEWEST_SHARDS:
        return []
    columns = {**dict(zip(MEASURES, np.stack([s.values for s in shards]).T, strict=True)), "class_mix": _mixes(shards)}
    found = []
    for name, values in columns.items():
        kind = {**MEASURES, "class_mix": CLASS_MIX}[name]
        usual, deviations = _deviations(values, kind.floor / FAR)
        found += [
            Oddity(shards[i].shard, name, kind.title, float(values[i]), usual, float(deviations[i]), kind.is_share)
            for i in np.flatnonzero(np.abs(deviations) > FAR)
        ]
    return sorted(found, key=lambda oddity: (-abs(oddity.deviations), oddity.shard, oddity.measure))


def worst_first(samples: Sequence[Row], of_class: int | None = None) -> list[Row]:
    """Return samples in the order in which a person should look at them.

    With truth, those come first where most pixels of the class are wrong, or for all classes those with the lowest
    share of right labels; without truth, those that stand out most.
    """
    if not samples:
        return []
    wrong = np.array([row.wrong.sum() if of_class is None else row.wrong[of_class] for row in samples])
    right = np.array([_accuracy(row) for row in samples])
    if of_class is not None and wrong.any():
        keys = -wrong
    elif np.isfinite(right).any():
        keys = np.where(np.isfinite(right), right, np.inf)
    else:
        columns = zip(MEASURES.values(), np.stack([row.values for row in samples]).T, strict=True)
        keys = -np.max([np.abs(_deviations(values, kind.floor / FAR)[1]) for kind, values in columns], axis=0)
    order = sorted(range(len(samples)), key=lambda i: (keys[i], samples[i].shard, i))
    return [samples[i] for i in order]


def _accuracy(row: Row) -> float:
    pixels = row.value("pixel_accuracy")
    return pixels if np.isfinite(pixels) else row.value("point_accuracy")


def _mixes(shards: Sequence[Row]) -> NDArray[np.float32]:
    """Return each shard's total variation distance from the mean mix of classes."""
    mixes = np.stack([shard.pixels for shard in shards])
    return 0.5 * np.abs(mixes - mixes.mean(axis=0)).sum(axis=1)


def _deviations(values: NDArray[np.float32], least: float) -> tuple[float, NDArray[np.float64]]:
    """Return the median, and each value's distance from it in robust standard deviations of at least `least`."""
    known = np.isfinite(values)
    if not known.any():
        return float("nan"), np.zeros(len(values))
    usual = float(np.median(values[known]))
    spread = max(least, _MAD_TO_STD * float(np.median(np.abs(values[known] - usual))))
    return usual, np.where(known, (values - usual) / spread, 0.0)
