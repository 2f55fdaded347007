"""Bounds of boxes at native size against the boxes of interpolated masks."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelgen.teachers.sam.box_bounds import bound_boxes, divide_into_gaps


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    low=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    middle=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    native=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    threshold=st.floats(-1, 1),
)
def test_a_box_lies_between_its_bounds(
    seed: int, low: tuple[int, int], middle: tuple[int, int], native: tuple[int, int], threshold: float
) -> None:
    """Two interpolations, the first cut off as SAM's padding is, so that some decoder pixels show in no native one."""

    def interpolation(to: int, length: int) -> torch.Tensor:
        resized = torch.nn.functional.interpolate(torch.eye(length)[None, None], (to, length), mode="bilinear")
        return resized[0, 0]

    rows, cols = (
        interpolation(whole, -(-2 * side // 3)) @ interpolation(side, n)[: -(-2 * side // 3)]
        for whole, side, n in zip(native, middle, low, strict=True)
    )
    logits = torch.randn(6, *low, generator=torch.Generator().manual_seed(seed))
    inner, outer = bound_boxes(logits, divide_into_gaps(rows), divide_into_gaps(cols), threshold)
    for mask, within, around in zip(rows @ logits @ cols.T > threshold, inner.tolist(), outer.tolist(), strict=True):
        if not mask.any():
            assert within == [np.inf, np.inf, -np.inf, -np.inf]
            continue
        (top, left), (bottom, right) = (bound.tolist() for bound in (mask.nonzero().amin(0), mask.nonzero().amax(0)))
        box = [left, top, right, bottom]
        assert all(out <= edge <= true for out, edge, true in zip(around[:2], box[:2], within[:2], strict=True))
        assert all(out >= edge >= true for out, edge, true in zip(around[2:], box[2:], within[2:], strict=True))
