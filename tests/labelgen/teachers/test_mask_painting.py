"""Overlapping masks to mask ids, and nearest-neighbour resampling."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelgen.teachers.sam.mask_painting import paint_ids
from labelgen.teachers.sam.resampling import nearest_pixels
from tests.labelgen.teachers.sam_reference import paint_pixel_by_pixel


def block(size: tuple[int, int], rows: slice, cols: slice) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[rows, cols] = True
    return mask


def paint_resized(masks: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Paint native masks at another size."""
    inside = np.array([nearest_pixels(mask, size) for mask in masks], bool).reshape(-1, *size)
    return paint_ids(torch.from_numpy(inside), torch.tensor([mask.sum() for mask in masks])).numpy()


def test_a_mask_inside_another_shows_whichever_came_first() -> None:
    large = block((3, 4), slice(0, 3), slice(0, 3))
    small = block((3, 4), slice(1, 2), slice(1, 3))
    expected = [[1, 1, 1, 0], [1, 2, 2, 0], [1, 1, 1, 0]]
    assert paint_resized([large, small], (3, 4)).tolist() == expected
    assert paint_resized([small, large], (3, 4)).tolist() == expected


def test_masks_of_equal_area_keep_the_order_they_came_in() -> None:
    left = block((1, 4), slice(0, 1), slice(0, 2))
    middle = block((1, 4), slice(0, 1), slice(1, 3))
    right = block((1, 4), slice(0, 1), slice(2, 4))
    assert paint_resized([left, middle, right], (1, 4)).tolist() == [[1, 2, 3, 3]]
    assert paint_resized([right, middle, left], (1, 4)).tolist() == [[3, 3, 2, 1]]


def test_areas_count_at_native_size_not_at_the_painted_one() -> None:
    # Both masks fill the one painted pixel of the left half; the wide one is larger where it was found.
    wide = block((4, 8), slice(0, 4), slice(0, 4))
    narrow = block((4, 8), slice(1, 3), slice(1, 3))
    assert paint_resized([narrow, wide], (1, 2)).tolist() == [[2, 0]]


def test_downsampling_takes_the_native_pixel_under_each_centre() -> None:
    # From 6 to 3 columns the centres 0.5, 1.5, 2.5 lie at native 1, 3, 5; from 5 to 2 at 1.25 and 3.75.
    assert nearest_pixels(np.arange(6)[None], (1, 3)).tolist() == [[1, 3, 5]]
    assert nearest_pixels(np.arange(5)[None], (1, 2)).tolist() == [[1, 3]]
    assert nearest_pixels(np.arange(6).reshape(3, 2), (1, 2)).tolist() == [[2, 3]]
    only_odd = np.array([[False, True, False, True, False, False]])
    assert paint_resized([only_odd], (1, 3)).tolist() == [[1, 1, 0]]


def test_upsampling_repeats_pixels() -> None:
    assert nearest_pixels(np.array([[7, 9]]), (2, 4)).tolist() == [[7, 7, 9, 9], [7, 7, 9, 9]]


def test_no_masks_leave_every_pixel_at_0() -> None:
    assert paint_resized([], (2, 3)).tolist() == [[0, 0, 0], [0, 0, 0]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_ids_equal_a_pixel_by_pixel_painter(seed: int, masks: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    chosen = [rng.random((5, 7)) < rng.choice([0.1, 0.4, 0.5, 0.9]) for _ in range(masks)]
    np.testing.assert_array_equal(paint_resized(chosen, size), paint_pixel_by_pixel(chosen, size))
