"""Nearest-neighbour resampling: each target pixel takes the native pixel under its centre."""

import numpy as np
from numpy.typing import NDArray


def nearest_pixels(image: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.generic]:
    """Return the image (H0, W0) at `size` (height, width)."""
    rows, cols = (nearest_index(native, target) for native, target in zip(image.shape[:2], size, strict=True))
    return image[rows[:, None], cols]


def nearest_index(native: int, target: int) -> NDArray[np.intp]:
    """Return (target,) which of the `native` pixels along an axis lies under the centre of each target pixel."""
    return ((np.arange(target) + 0.5) * native / target).astype(np.intp)
