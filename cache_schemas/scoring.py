"""Agreement of label ids with ground truth: confusion matrix, IoU, accuracy, and the rules by which they count."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE


@dataclass(frozen=True)
class Scores:
    """The scores of a confusion matrix.

    `iou` and `recall` are (C,) f64. `iou` is NaN for a class that is in neither truth nor prediction, `recall` for a
    class that is not in the truth. `miou` is the mean of the `iou` that are not NaN, `accuracy` the fraction of correct
    labels, and `scored` the number of elements. All scores are NaN if nothing was scored. Under a `ScoringRule` that
    counts absent classes as 0, their `iou` is 0.
    """

    miou: float
    accuracy: float
    iou: NDArray[np.float64]
    recall: NDArray[np.float64]
    scored: int

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the scores as a JSON-ready object, with the IoU by class name; NaN becomes null."""
        return {
            "miou": json_number(self.miou),
            "accuracy": json_number(self.accuracy),
            "scored": self.scored,
            "iou": {name: json_number(value) for name, value in zip(names, self.iou, strict=True)},
        }


Unlabelled = Literal["ignore", "miss"]
Absent = Literal["leave", "zero"]

RULE_NAMES: dict[tuple[Unlabelled, Absent], str] = {
    ("ignore", "leave"): "labelgen's rule",
    ("miss", "leave"): "ScanNet's rule",
    ("miss", "zero"): "SemanticKITTI's rule",
}
"""Names of the rules that somebody uses; by which each data set is scored is in docs/guides/export.md."""


@dataclass(frozen=True)
class ScoringRule:
    """What counts when labels are scored.

    Attributes:
        unlabelled: an element with truth and without a label is left out (ignore), or is wrong (miss).
        absent: a class in neither truth nor labels leaves the mean of IoU (leave), or has IoU 0 (zero).
    """

    unlabelled: Unlabelled = "ignore"
    absent: Absent = "leave"

    @property
    def name(self) -> str:
        """The name of the rule and what it does, for tables and reports."""
        what = {"ignore": "no label: left out", "miss": "no label: a miss"}[self.unlabelled]
        what += {"leave": "; absent class: not in the mean", "zero": "; absent class: IoU 0"}[self.absent]
        known = RULE_NAMES.get((self.unlabelled, self.absent))
        return f"{known} ({what})" if known else what

    def counted(self, confusion: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what the rule counts of a confusion matrix (C, C+1) whose last column has no label."""
        kept = confusion.copy()
        if self.unlabelled == "ignore":
            kept[:, -1] = 0
        return kept

    def score(self, confusion: NDArray[np.int64]) -> Scores:
        """Return the scores of a confusion matrix (C, C+1) whose last column has no label."""
        return score(self.counted(confusion), self.absent)


def json_number(value: float | np.floating[Any]) -> float | None:
    """Return the value for JSON: None if it is not finite."""
    return float(value) if np.isfinite(value) else None


def confusion_matrix(truth: NDArray[np.uint8], label: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Return the number of each pair of (truth, label) ids, (C, C) i64: rows are truth, columns are labels.

    Elements whose truth or label is the ignore index are left out.

    Raises:
        ValueError: if an id is neither a class nor the ignore index, or the shapes differ.
    """
    return confusion_with_unlabelled(truth, label, classes)[:, :classes]


def confusion_with_unlabelled(truth: NDArray[np.uint8], label: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Return the number of each pair of (truth, label) ids, (C, C+1) i64; the last column counts the ignore index.

    Elements whose truth is the ignore index are left out.

    Raises:
        ValueError: if an id is neither a class nor the ignore index, or the shapes differ.
    """
    if truth.shape != label.shape:
        raise ValueError(f"truth has shape {truth.shape}, labels {label.shape}")
    counted = truth != IGNORE
    rows, columns = truth[counted].astype(np.int64), label[counted].astype(np.int64)
    for name, ids in (("truth", rows), ("label", columns[columns != IGNORE])):
        if ids.size and ids.max() >= classes:
            raise ValueError(f"{name} id {ids.max()} is neither below {classes} nor {IGNORE}")
    places = rows * (classes + 1) + np.where(columns == IGNORE, classes, columns)
    return np.bincount(places, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def score(confusion: NDArray[np.int64], absent: Absent = "leave") -> Scores:
    """Return IoU = TP / (TP + FP + FN) and recall = TP / (TP + FN) by class, mIoU and accuracy.

    `confusion` is (C, C): rows are truth, columns are labels. If it is (C, C+1), the last column counts elements
    without a label, which are wrong. `absent` says what counts for a class in neither truth nor labels.
    """
    correct = np.diag(confusion).astype(np.float64)
    truth_count, label_count = confusion.sum(axis=1), confusion.sum(axis=0)[: len(confusion)]
    iou = _ratio(correct, truth_count + label_count - correct)
    if absent == "zero" and confusion.any():
        iou = np.nan_to_num(iou)
    return Scores(
        miou=float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan"),
        accuracy=float(_ratio(correct.sum(keepdims=True), confusion.sum(keepdims=True).reshape(1))[0]),
        iou=iou,
        recall=_ratio(correct, truth_count),
        scored=int(confusion.sum()),
    )


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    ratio = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
