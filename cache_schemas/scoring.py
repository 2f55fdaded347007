"""Agreement of label ids with ground truth: confusion matrix, IoU, accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE


@dataclass(frozen=True)
class Scores:
    """The scores of a confusion matrix.

    `iou` and `recall` are (C,) f64. `iou` is NaN for a class that is in neither truth nor prediction, `recall` for a
    class that is not in the truth. `miou` is the mean of the `iou` that are not NaN, `accuracy` the fraction of correct
    labels, and `scored` the number of elements. All scores are NaN if nothing was scored.
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


def json_number(value: float | np.floating[Any]) -> float | None:
    """Return the value for JSON: None if it is not finite."""
    return float(value) if np.isfinite(value) else None


def confusion_matrix(truth: NDArray[np.uint8], label: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Return the number of each pair of (truth, label) ids, (C, C) i64: rows are truth, columns are labels.

    Elements whose truth or label is the ignore index are left out.

    Raises:
        ValueError: if an id is neither a class nor the ignore index, or the shapes differ.
    """
    if truth.shape != label.shape:
        raise ValueError(f"truth has shape {truth.shape}, labels {label.shape}")
    counted = (truth != IGNORE) & (label != IGNORE)
    rows, columns = truth[counted].astype(np.int64), label[counted].astype(np.int64)
    for name, ids in (("truth", rows), ("label", columns)):
        if ids.size and ids.max() >= classes:
            raise ValueError(f"{name} id {ids.max()} is neither below {classes} nor {IGNORE}")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


def score(confusion: NDArray[np.int64]) -> Scores:
    """Return IoU = TP / (TP + FP + FN) and recall = TP / (TP + FN) by class, mIoU and accuracy.

    `confusion` is (C, C): rows are truth, columns are labels.
    """
    correct = np.diag(confusion).astype(np.float64)
    truth_count, label_count = confusion.sum(axis=1), confusion.sum(axis=0)
    iou = _ratio(correct, truth_count + label_count - correct)
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
