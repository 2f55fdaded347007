"""The benchmark that says how far masks can come: what a flawless SAM makes of segments, against hand-made pictures."""

import numpy as np

from benchmarks.flawless_masks import answer
from labelgen.inspection.counting.statistics import best_ious


def test_segments_that_the_grid_meets_come_out_whole_and_others_not_at_all() -> None:
    truth = np.ones((96, 160), np.uint16)
    truth[:, 80:] = 2
    truth[40:56, 0:16] = 3
    iou, _ = best_ious(truth, answer(truth, grid=2, masks=160))
    assert iou.tolist() == [1, 1, 0]
    iou, _ = best_ious(truth, answer(truth, grid=20, masks=160))
    assert iou.tolist() == [1, 1, 1]


def test_small_segments_blur_where_masks_are_coarse() -> None:
    truth = np.ones((96, 160), np.uint16)
    truth[41:55, 41:55] = 2
    fine, coarse = (best_ious(truth, answer(truth, grid=20, masks=masks))[0][1] for masks in (160, 20))
    assert fine == 1
    assert 0.3 < coarse < 0.95
