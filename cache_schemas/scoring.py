"""Agreement of label ids with ground truth: confusion matrix, IoU, accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says.

    `iou` and `recall` are (C,) f64, NaN for a class that is in neither truth nor prediction (`iou`), or not in
    the truth (`recall`). `miou` is the mean of the `iou` that are numbers; `accuracy` the share of right labels.
    All are NaN when nothing was scored.
    """

    miou: float
    accuracy: float
    iou: NDArray[np.float64]
    recall: NDArray[np.float64]
    scored: int

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the scores as a JSON-ready object, IoU by class name; what is not a number becomes null."""
        return {
            "miou": json_number(self.miou),
            "accuracy": json_number(self.accuracy),
            "scored": self.scored,
            "iou": {name: json_number(value) for name, value in zip(names, self.iou, strict=True)},
        }


def json_number(value: float | np.floating[Any]) -> float | None:
    """Return the value as JSON can hold it: None where it is not a finite number."""
    return float(value) if np.isfinite(value) else None


def confusion_matrix(truth: NDArray[np.uint8], label: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count pairs of (truth, label) ids: (C, C) i64, rows truth, columns label.

    Elements whose truth or label is "ignore" are left out.

    Raises:
        ValueError: if an id is neither a class nor "ignore", or the shapes differ.
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
    """Derive IoU = TP / (TP + FP + FN) by class, their mean, and accuracy from a (C, C) confusion matrix."""
    right = np.diag(confusion).astype(np.float64)
    of_truth, of_label = confusion.sum(axis=1), confusion.sum(axis=0)
    iou = _ratio(right, of_truth + of_label - right)
    return Scores(
        miou=float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan"),
        accuracy=float(_ratio(right.sum(keepdims=True), confusion.sum(keepdims=True).reshape(1))[0]),
        iou=iou,
        recall=_ratio(right, of_truth),
        scored=int(confusion.sum()),
    )


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    ratio = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
