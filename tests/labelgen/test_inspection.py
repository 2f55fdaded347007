"""Statistics that inspection computes from arrays, against hand counts."""

import numpy as np
import pytest

from labelgen import inspection


def test_best_iou_of_each_truth_segment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "SMALLEST_SEGMENT_PX", 2)
    segments = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 3, 2]], np.uint16)
    masks = np.array([[7, 7, 0, 5], [7, 0, 0, 5], [7, 7, 5, 5]], np.uint16)
    # Segment 1: 4 px, mask 7 has 5, 3 shared: 3/6. Segment 2: 5 px, mask 5 has 4, 3 shared: 3/6. Segment 3: too small.
    assert inspection.best_ious(segments, masks).tolist() == [[0.5, 0.5], [4 / 12, 5 / 12]]


def test_a_segment_under_no_mask_scores_nothing() -> None:
    segments = np.ones((20, 20), np.uint16)
    assert inspection.best_ious(segments, np.zeros((20, 20), np.uint16)).tolist() == [[0.0], [1.0]]
    assert inspection.best_ious(segments, segments).tolist() == [[1.0], [1.0]]
    assert inspection.best_ious(np.zeros((20, 20), np.uint16), segments).tolist() == [[], []]
