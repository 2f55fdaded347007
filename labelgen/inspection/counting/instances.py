"""Count how often the instances of lidar points are right, by affinity's number of steps (Affinity3D, table 1).

The true class of an instance is that of most of its points. An instance counts if it has truth and a pixel sees it.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SOURCE_PREFIX
from cache_schemas.scoring import ScoringRule, confusion_with_unlabelled, json_number
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE
from labelgen.inspection.report import Scoring
from labelgen.inspection.report_instances import InstanceReport, InstanceTruth
from labelgen.instances.affinity import classify

STEPS = tuple(range(1, 8))
"""The values of t in the paper's table."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class InstanceCounts:
    """Sums over shards.

    `counts` (5,): instances, those that a pixel sees, points, points with a label of their pixel, points with a label.
    `truth` (3,): instances that are judged, points of instances with truth, those of their instance's main class.
    `right` (7,): judged instances that are right after t = 1..7 steps; `majority` (2,): right by the most frequent raw
    and refined pixel label. `by_pixels`, `by_instances` (C, C+1): confusion of points by both kinds of labels, the
    last column without a label.
    """

    counts: Counts
    truth: Counts
    right: Counts
    majority: Counts
    by_pixels: Counts
    by_instances: Counts

    def __add__(self, other: "InstanceCounts") -> "InstanceCounts":
        return InstanceCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def count_instances(cache: Cache, keys: Collection[str], classes: int, scoring: Scoring) -> InstanceReport | None:
    """Return what the audit reports of all shards that have labels of instances; None if there is none.

    `scoring` says by which rule points are scored, and which imported labels take the place of truth, if any do.

    Raises:
        CacheError: if a group is damaged.
    """
    sealed = sorted(str(path.shard) for path in cache.seals(GroupPath(key, "instance_labels") for key in keys))
    if not sealed:
        return None
    first, *others = (_count_shard(cache, key, classes, scoring.source) for key in sealed)
    return _report(sum(others, start=first), scoring.rule)


def _count_shard(cache: Cache, key: str, classes: int, source: str | None) -> InstanceCounts:
    found, labels = cache.read(GroupPath(key, "instances")), cache.read(GroupPath(key, "instance_labels"))
    pixel = cache.read(GroupPath(key, "labels"), "point_raw", "point")
    truth = np.full(len(labels["point"]), IGNORE, np.uint8)
    of_truth = GroupPath(key, "truth" if source is None else SOURCE_PREFIX + source)
    if cache.seals([of_truth]):
        truth = cache.read(of_truth, "point")["point"]
    ends = cache.read(GroupPath(key, "points"), "offsets")["offsets"]
    instance = np.where(found["point"] > 0, found["point"] + np.repeat(found["offsets"][:-1], np.diff(ends)), 0)
    instances = len(labels["instance"])
    votes, raw_votes, refined_votes = (
        _votes(instance, ids, instances, classes) for ids in (truth, pixel["point_raw"], pixel["point"])
    )
    judged = (labels["pixels"] > 0) & votes.any(axis=1)
    true_class = votes.argmax(axis=1)

    def right(predicted: NDArray[np.integer]) -> int:
        return int((predicted == true_class)[judged].sum())

    by_steps = (classify(labels["scores"], labels["pixels"], found["extent"], t, IGNORE) for t in STEPS)
    return InstanceCounts(
        counts=np.array(
            [
                instances,
                (labels["pixels"] > 0).sum(),
                len(instance),
                (pixel["point"] != IGNORE).sum(),
                (labels["point"] != IGNORE).sum(),
            ]
        ),
        truth=np.array([judged.sum(), votes.sum(), votes.max(axis=1, initial=0).sum()]),
        right=np.array([right(predicted) for predicted in by_steps]),
        majority=np.array([right(raw_votes.argmax(axis=1)), right(refined_votes.argmax(axis=1))]),
        by_pixels=confusion_with_unlabelled(truth, pixel["point"], classes),
        by_instances=confusion_with_unlabelled(truth, labels["point"], classes),
    )


def _votes(instance: NDArray[np.integer], ids: NDArray[np.uint8], instances: int, classes: int) -> Counts:
    """Return how many points of each instance have each class, (K, C)."""
    counted = (instance > 0) & (ids < classes)
    cell = (instance[counted].astype(np.int64) - 1) * classes + ids[counted]
    return np.bincount(cell, minlength=instances * classes).reshape(instances, classes)


def _report(total: InstanceCounts, rule: ScoringRule) -> InstanceReport:
    instances, seen, points, by_pixels, labelled = total.counts.tolist()
    judged, with_truth, of_main_class = total.truth.tolist()
    truth = None
    if judged:
        raw, refined = (total.majority / judged).tolist()
        truth = InstanceTruth(
            judged=judged,
            one_class=of_main_class / with_truth,
            right_by_steps=dict(zip(map(str, STEPS), (total.right / judged).tolist(), strict=True)),
            right_by_majority_raw=raw,
            right_by_majority_refined=refined,
            point_miou_by_pixels=json_number(rule.score(total.by_pixels).miou),
            point_miou_by_instances=json_number(rule.score(total.by_instances).miou),
        )
    return InstanceReport(
        instances=instances,
        seen=seen,
        points_labelled_by_pixels=by_pixels / max(1, points),
        points_labelled=labelled / max(1, points),
        truth=truth,
    )
