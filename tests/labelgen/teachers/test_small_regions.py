"""Removal of small regions within a mask's box against the stock function on the whole mask."""

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from segment_anything.utils.amg import remove_small_regions as stock_small_regions

from labelgen.teachers.sam.small_regions import remove_small_regions


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), side=st.integers(2, 24), fill=st.floats(0.02, 0.98), min_area_px=st.integers(1, 300))
def test_removal_within_the_box_equals_the_stock_removal_in_the_whole_mask(
    seed: int, side: int, fill: float, min_area_px: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((side, 20), bool)
    top, left = rng.integers(0, side), rng.integers(0, 20)
    part = mask[top : rng.integers(top, side) + 1, left : rng.integers(left, 20) + 1]
    part[...] = rng.random(part.shape) < fill
    if not mask.any():
        return
    (rows, cols) = np.nonzero(mask)
    box = torch.tensor([cols.min(), rows.min(), cols.max(), rows.max()]).float()
    logits = torch.from_numpy(np.where(mask, 1.0, -1.0)).float()
    found = remove_small_regions(logits, box, torch.eye(side), torch.eye(20), min_area_px)
    filled, with_holes = stock_small_regions(mask, min_area_px, "holes")
    islands = np.sort(np.bincount(ndimage.label(filled, np.ones((3, 3)))[0].ravel())[1:])
    assume(
        len(islands) < 2 or islands[-1] >= min_area_px or islands[-1] > islands[-2]
    )  # which of two equally large islands stays is not defined
    expected, with_islands = stock_small_regions(filled, min_area_px, "islands")
    np.testing.assert_array_equal(found.inside, expected)
    assert found.changed == (with_holes or with_islands)
