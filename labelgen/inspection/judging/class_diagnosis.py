"""Say for each class what is wrong with its voted labels, in which shards, and why, as far as truth shows it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cache_schemas.scoring import ScoringRule, json_number, score
from labelgen.inspection.counting.measures import Measurements, ratio, with_truth
from labelgen.inspection.counting.statistics import Counts, Statistics
from labelgen.inspection.formatting import percent
from labelgen.inspection.report import ClassDiagnosis, ClassShare, ShardErrors

_MOST_NAMED = 2
"""So many other classes and shards are named for a class."""

NO_LABEL = "no label"
"""What the missing label of an element is called, where it counts as a miss."""

_SMALLEST_SHARE = 0.05
"""Confusions with a smaller share are not mentioned in the sentence."""

_SMALLEST_LOSS = 0.005
"""The vote is mentioned as a cause if it costs a class more IoU than this."""


def diagnose_classes(
    total: Statistics, shards: Sequence[Measurements], names: Sequence[str], rule: ScoringRule
) -> tuple[ClassDiagnosis, ...]:
    """Return a diagnosis of each class that occurs in truth or labels, lowest IoU first; none without truth.

    Pixels are judged, or points where only they have truth. `rule` says which count.
    """
    on_pixels = bool(total.image_truth_voted.any())
    raw = rule.counted(with_truth(total.image_truth_raw if on_pixels else total.point_truth_raw))
    voted = rule.counted(with_truth(total.image_truth_voted if on_pixels else total.point_truth_voted))
    occurring = np.flatnonzero(np.isfinite(score(voted).iou)).tolist()
    found = [_diagnose(class_id, raw, voted, shards, names) for class_id in occurring]
    return tuple(sorted(found, key=lambda diagnosis: (diagnosis.voted_iou or 0.0, diagnosis.name)))


def _diagnose(
    class_id: int, raw: Counts, voted: Counts, shards: Sequence[Measurements], names: Sequence[str]
) -> ClassDiagnosis:
    before, after = score(raw), score(voted)
    taken_for = _largest_confusions(voted[class_id], class_id, [*names, NO_LABEL])
    takes = _largest_confusions(voted[:, class_id], class_id, names)
    return ClassDiagnosis(
        name=names[class_id],
        true_share=json_number(ratio(voted[class_id].sum(), voted.sum())),
        raw_iou=json_number(before.iou[class_id]),
        voted_iou=json_number(after.iou[class_id]),
        precision=json_number(ratio(voted[class_id, class_id], voted[:, class_id].sum())),
        recall=json_number(after.recall[class_id]),
        taken_for=taken_for,
        takes=takes,
        shards=_shards_with_most_errors(shards, class_id, names),
        reason=_reason(voted, class_id, taken_for, takes, float(before.iou[class_id] - after.iou[class_id])),
    )


def _largest_confusions(counts: NDArray[np.int64], own: int, names: Sequence[str]) -> tuple[ClassShare, ...]:
    """Return the other classes with the largest counts (C,), and their shares of the sum of all counts."""
    shares = np.where(np.arange(len(counts)) == own, 0, counts) / max(1, counts.sum())
    largest = np.argsort(-shares, kind="stable")[:_MOST_NAMED].tolist()
    return tuple(ClassShare(names[i], float(shares[i])) for i in largest if shares[i] > 0)


def _shards_with_most_errors(
    shards: Sequence[Measurements], class_id: int, names: Sequence[str]
) -> tuple[ShardErrors, ...]:
    errors = np.array([shard.errors[class_id] for shard in shards])
    most = np.argsort(-errors, kind="stable")[:_MOST_NAMED].tolist()
    return tuple(
        ShardErrors(
            shard=shards[i].shard,
            iou=json_number(shards[i].iou[class_id]),
            share=float(errors[i] / errors.sum()),
            confusion=" labelled ".join(names[k] for k in shards[i].main_error[class_id].tolist()),
        )
        for i in most
        if errors[i]
    )


def _reason(
    voted: Counts, class_id: int, taken_for: Sequence[ClassShare], takes: Sequence[ClassShare], iou_loss: float
) -> str:
    """Describe low recall and low precision, what concerns more pixels first, then the vote if it costs IoU."""
    right, true, labelled = voted[class_id, class_id], voted[class_id].sum(), voted[:, class_id].sum()
    low_recall = _fault(f"recall {percent(ratio(right, true), 0)}, labelled as", taken_for)
    low_precision = _fault(f"precision {percent(ratio(right, labelled), 0)}, confused with", takes)
    sentences = [low_recall, low_precision] if true >= labelled else [low_precision, low_recall]
    sentences = [sentence for sentence in sentences if sentence]
    if iou_loss > _SMALLEST_LOSS:
        sentences.append(
            f"the vote lowers its IoU by {100 * iou_loss:.1f} points: its masks mostly cover other classes"
        )
    return "; ".join(sentences) or "no large confusion"


def _fault(fault: str, confusions: Sequence[ClassShare]) -> str:
    named = [f"{name} ({share:.0%})" for name, share in confusions if share >= _SMALLEST_SHARE]
    return f"{fault} {', '.join(named)}" if named else ""
