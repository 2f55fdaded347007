"""The benchmark of a SAM without errors: its masks of hand-made segments."""

import numpy as np

from benchmarks.flawless_masks import answer
from labelgen.inspection.counting.statistics import best_ious


def test_segments_under_a_grid_point_are_found_whole_and_others_are_not() -> None:
    truth = np.ones((96, 160), np.uint16)
    truth[:, 80:] = 2
    truth[40:56, 0:16] = 3
    iou, _ = best_ious(truth, answer(truth, grid=2, mask_width=160))
    assert iou.tolist() == [1, 1, 0]
    iou, _ = best_ious(truth, answer(truth, grid=20, mask_width=160))
    assert iou.tolist() == [1, 1, 1]


def test_small_segments_blur_where_masks_are_coarse() -> None:
    truth = np.ones((96, 160), np.uint16)
    truth[41:55, 41:55] = 2
    fine, coarse = (best_ious(truth, answer(truth, grid=20, mask_width=width))[0][1] for width in (160, 20))
    assert fine == 1
    assert 0.3 < coarse < 0.95
