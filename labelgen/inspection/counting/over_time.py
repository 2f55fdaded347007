"""Count how often labels on which keyframes agree are right, beside the voted labels of pixels and points."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SOURCE_PREFIX, AnyArray
from cache_schemas.scoring import Scores, confusion_with_unlabelled, json_number
from cache_schemas.store import Cache
from cache_schemas.taxonomy import IGNORE
from labelgen.inspection.report import Scoring
from labelgen.inspection.report_over_time import KindScores, OverTime, OverTimeReport
from labelgen.inspection.report_statistics import ByTarget

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class OverTimeCounts:
    """Sums over shards, of pixels or of points.

    `elements` (3,): all, those with a voted label, those with a label over time. `confusions` (4, C, C+1) against
    truth: voted labels, labels over time, and both of them where the element has both.
    """

    elements: Counts
    confusions: Counts

    def __add__(self, other: "OverTimeCounts") -> "OverTimeCounts":
        """Return the sum of both."""
        return OverTimeCounts(self.elements + other.elements, self.confusions + other.confusions)

    @classmethod
    def of(cls, voted: AnyArray, over_time: AnyArray, truth: AnyArray, classes: int) -> "OverTimeCounts":
        """Count class ids of the same elements, 255 for none."""
        has_voted, has_time = voted != IGNORE, over_time != IGNORE
        both = np.where(has_voted & has_time, truth, IGNORE)
        compared = ((truth, voted), (truth, over_time), (both, voted), (both, over_time))
        return cls(
            np.array([voted.size, has_voted.sum(), has_time.sum()]),
            np.stack([confusion_with_unlabelled(*ids, classes) for ids in compared]),
        )


def count_over_time(cache: Cache, keys: Collection[str], classes: int, scoring: Scoring) -> OverTimeReport | None:
    """Return the report on the group `time` of the shards that have it; None if none has."""
    sealed = sorted(str(path.shard) for path in cache.seals(GroupPath(key, "time") for key in keys))
    if not sealed:
        return None
    found = [{target: _count(cache, key, target, classes, scoring) for target in ("image", "point")} for key in sealed]
    image, point = (_report([of_shard[target] for of_shard in found], scoring) for target in ("image", "point"))
    return OverTimeReport(shards=len(sealed), labels=ByTarget(image=image, point=point))


def _count(cache: Cache, key: str, target: str, classes: int, scoring: Scoring) -> OverTimeCounts:
    voted, over_time = (cache.read(GroupPath(key, group), target)[target] for group in ("labels", "time"))
    path = GroupPath(key, "truth" if scoring.source is None else SOURCE_PREFIX + scoring.source)
    seal = cache.seals([path]).get(path)
    known = seal is not None and target in seal.arrays
    truth = cache.read(path, target)[target] if known else np.full_like(voted, IGNORE)
    return OverTimeCounts.of(voted, over_time, truth, classes)


def _report(shards: Collection[OverTimeCounts], scoring: Scoring) -> OverTime:
    first, *others = shards
    total = sum(others, start=first)
    elements, voted, over_time = total.elements.tolist()
    scores = [scoring.rule.score(confusion) for confusion in total.confusions]
    return OverTime(
        labelled=KindScores(voted=voted / max(1, elements), over_time=over_time / max(1, elements)),
        miou=_kinds(scores[:2], "miou"),
        accuracy=_kinds(scores[:2], "accuracy"),
        common_miou=_kinds(scores[2:], "miou"),
        common_accuracy=_kinds(scores[2:], "accuracy"),
    )


def _kinds(scores: list[Scores], name: str) -> KindScores:
    voted, over_time = (json_number(getattr(found, name)) for found in scores)
    return KindScores(voted=voted, over_time=over_time)
