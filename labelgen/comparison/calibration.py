"""Calibration of labels: whether those with a confidence of 90 % are right 90 % of the time."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cache_schemas.scoring import json_number
from labelgen.confidence import SCALE

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Labels by confidence: `counts`, sums of `confidence`, and how many are `right`, (BINS,) f64 each."""

    counts: NDArray[np.float64]
    confidence: NDArray[np.float64]
    right: NDArray[np.float64]

    @classmethod
    def of(cls, confidence: NDArray[np.uint8], right: NDArray[np.bool_]) -> Self:
        """Count labels whose stored confidence is `confidence` (N,), and which are `right` (N,) or not."""
        shares = confidence / SCALE
        place = np.minimum((shares * BINS).astype(np.intp), BINS - 1)
        return cls(*(np.bincount(place, weights, BINS).astype(np.float64) for weights in (None, shares, right)))

    def __add__(self, other: "Calibration") -> "Calibration":
        """Return the sum of both."""
        return Calibration(self.counts + other.counts, self.confidence + other.confidence, self.right + other.right)

    @property
    def error(self) -> float:
        """The expected calibration error: |accuracy - mean confidence| by bin, weighted by the counts; NaN of none.

        Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
        """
        total = self.counts.sum()
        return float(np.abs(self.right - self.confidence).sum() / total) if total else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return the error and the bins that are not empty, JSON-ready."""
        bins = [
            {"labels": int(count), "confidence": confidence / count, "accuracy": right / count}
            for count, confidence, right in zip(self.counts, self.confidence, self.right, strict=True)
            if count
        ]
        return {"error": json_number(self.error), "bins": bins}
