"""COCO's compressed run lengths: which pixels of a picture a mask covers.

Runs count pixels down the columns (index = column * height + row), alternately not covered and covered. The first run
is not covered, and may be empty. Each number is written in groups of 5 bits, the lowest first, one character a group:
its code minus 48 has bit 5 if more groups follow, and bit 4 of the last group is the sign. From the fourth number on,
the difference to the number two places before is written.
"""

import numpy as np
from numpy.typing import NDArray

FIRST_CODE = 48
MORE, SIGN, GROUP_BITS = 32, 16, 5
MAX_GROUPS = 8
"""A number of more groups would be a run of more than 2^39 pixels."""


def covered_pixels(text: str, pixels: int) -> NDArray[np.bool_]:
    """Return which of the `pixels` of a picture a mask covers, column after column: (pixels,).

    Raises:
        ValueError: if the text is not whole, a run is negative, or the runs are not those of `pixels` pixels.
    """
    runs = run_lengths(text)
    if runs.size and runs.min() < 0:
        raise ValueError(f"a run has {runs.min()} pixels")
    if (total := int(runs.sum())) != pixels:
        raise ValueError(f"the runs have {total} pixels, the picture has {pixels}")
    return np.repeat(np.arange(runs.size) % 2 == 1, runs)


def run_lengths(text: str) -> NDArray[np.int64]:
    """Return the runs (R,) of a compressed text.

    Raises:
        ValueError: if a character is not one of the 64 that are used, or the last number is not whole.
    """
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - FIRST_CODE
    if codes.size and (codes.min() < 0 or codes.max() >= 2 * MORE):
        raise ValueError("a character is not one of run lengths")
    ends = np.flatnonzero(codes & MORE == 0)
    if codes.size and (not ends.size or ends[-1] != codes.size - 1):
        raise ValueError("the run lengths are cut short")
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: ends.size]
    groups = ends - starts + 1
    if groups.size and groups.max() > MAX_GROUPS:
        raise ValueError("a run has too many digits")
    place = GROUP_BITS * (np.arange(codes.size) - np.repeat(starts, groups))
    numbers = np.add.reduceat((codes & (MORE - 1)) << place, starts) if ends.size else np.zeros(0, np.int64)
    numbers -= np.where(codes[ends] & SIGN, np.int64(1) << GROUP_BITS * groups, 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
