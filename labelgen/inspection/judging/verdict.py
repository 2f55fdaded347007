"""Say what speaks against a cache being complete, whole and plausible."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from cache_schemas.names import printable
from cache_schemas.problems import Problem
from labelgen.inspection.counting.measures import ratio
from labelgen.inspection.formatting import percent
from labelgen.inspection.report import DamagedShard, Outlier, SampleCounts, ShardCounts
from labelgen.inspection.report_statistics import LabelStatistics

_LARGEST_CLASS_SHARE = 0.6
"""A class with a larger share of all pixels is unlikely."""

_SMALLEST_MASKED_SHARE = 0.2
"""Masks that cover a smaller share of the pixels are unlikely."""

STALE = "hold groups made with other settings or from groups that were redone since; rerun `labelgen run`"


def judge_completeness(shards: ShardCounts, samples: SampleCounts) -> tuple[str, ...]:
    """Return what is missing in the cache."""
    found = {
        f"unfinished shards: {shards.unfinished}; rerun `labelgen run`": shards.unfinished > 0,
        f"stale shards: {shards.stale}, which {STALE}": shards.stale > 0,
        f"quarantined samples: {samples.quarantined}; fix their files, then rerun `labelgen run`": (
            samples.quarantined > 0
        ),
        "nothing is labelled yet; run `labelgen run`": shards.sealed == 0,
    }
    return _that_hold(found)


def judge_wholeness(broken: Collection[Problem], damaged: Sequence[DamagedShard]) -> tuple[str, ...]:
    """Return what could not be read, and what documents and file sizes show to be broken."""
    return (*map(str, broken), *(printable(shard.message) for shard in damaged))


def judge_plausibility(
    statistics: LabelStatistics | None,
    outliers: Sequence[Outlier],
    *,
    untrained: bool,
    foreign: Sequence[str],
    all_samples: bool,
    counts_misses: bool,
    smallest_seen_share: float,
) -> tuple[str, ...]:
    """Return what is unlikely about the labels.

    `foreign` says of each teacher that was made for other data sets what it is. `all_samples` tells whether all samples
    of the cache were counted, and `counts_misses` whether elements without a label are wrong. Cameras that see less
    than `smallest_seen_share` of the points are suspicious.
    """
    if statistics is None:
        return ("there are no labels to judge",)
    counts = {name: count for name, count in statistics.labels.image.refined.items() if name != "ignore"}
    largest, pixels = max(counts, key=lambda name: counts[name]), sum(counts.values())
    absent = [name for name, count in counts.items() if not count]
    truth = statistics.truth.image or statistics.truth.point
    seen, masked = statistics.points.seen_share, statistics.masks.covered_share
    shards = {outlier.shard for outlier in outliers}
    found = {
        "the teachers are untrained: the labels mean nothing": untrained,
        **dict.fromkeys(foreign, True),
        f"{percent(ratio(counts[largest], pixels))} of all pixels have the label {largest}": (
            counts[largest] > _LARGEST_CLASS_SHARE * pixels
        ),
        f"no pixel has the label {', '.join(absent)}": bool(absent) and all_samples,
        f"cameras see only {percent(seen)} of the points": seen is not None and seen < smallest_seen_share,
        f"masks cover only {percent(masked)} of the pixels": (masked or 0) < _SMALLEST_MASKED_SHARE,
        "the vote in masks lowers the accuracy of the labels": (
            truth is not None and (truth.refined.accuracy or 0) < (truth.raw.accuracy or 0)
        ),
        f"shards that are outliers: {len(shards)}, see below": bool(shards),
    }
    no_better = () if untrained else _no_better_than_chance(statistics, counts_misses)
    return (*_that_hold(found), *no_better)


def _no_better_than_chance(statistics: LabelStatistics, counts_misses: bool) -> Iterator[str]:
    """Yield a sentence for pixels, and one for points, if a guess without looking would score as well."""
    for unit, truth in statistics.truth.by_unit:
        if truth is None:
            continue
        scores, names = truth.refined, list(truth.refined.iou)
        accuracy, miou = scores.accuracy, scores.miou
        if accuracy is None or miou is None:
            continue
        by_class = np.array(scores.confusion).sum(axis=1)
        if counts_misses:
            by_class += np.array(list(scores.unlabelled.values()))
        share = ratio(by_class.max(), by_class.sum())
        found = {
            f"{percent(accuracy)} are right, and {percent(share)} would be if all were called "
            f"{names[by_class.argmax()]}": accuracy <= share,
            f"mIoU {percent(miou)} is not above 1 / {len(names)}": miou <= 1 / len(names),
        }
        if len(names) > 1 and (reasons := _that_hold(found)):
            yield f"labels of {unit} are no better than chance: {'; '.join(reasons)}"


def _that_hold(found: dict[str, bool]) -> tuple[str, ...]:
    return tuple(sentence for sentence, holds in found.items() if holds)
