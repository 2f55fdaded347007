"""Random changes of pictures and clouds, with labels, masks and pairs following exactly.

Pictures are only ever enlarged (a crop is brought back to the full size): then a pixel of the crop always lies under
some pixel of the result, and a pair that stays in the crop lands on its own content.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Crop:
    """A part of a picture of `size` (H, W), from (`top`, `left`), `height` x `width` large, maybe mirrored."""

    size: tuple[int, int]
    top: int
    left: int
    height: int
    width: int
    mirrored: bool

    def sources(self) -> tuple[Indices, Indices]:
        """Return the rows (H,) and columns (W,) of the picture that the result's pixels show, nearest neighbours."""
        rows = self.top + _nearest(self.height, self.size[0])
        columns = self.left + _nearest(self.width, self.size[1])
        return rows, columns[::-1] if self.mirrored else columns

    def move(self, row: Indices, col: Indices) -> tuple[Indices, Indices, NDArray[np.bool_]]:
        """Return where pixels (N,) of the picture lie in the result, and which of them still do."""
        inside = (
            (row >= self.top) & (row < self.top + self.height) & (col >= self.left) & (col < self.left + self.width)
        )
        new_row = _enlarge(row - self.top, self.height, self.size[0])
        new_col = _enlarge(col - self.left, self.width, self.size[1])
        return new_row, self.size[1] - 1 - new_col if self.mirrored else new_col, inside


def draw_crop(size: tuple[int, int], min_crop: float, rng: np.random.Generator) -> Crop:
    """Draw a part of at least `min_crop` of each side, of the picture's shape, mirrored half of the time."""
    scale = rng.uniform(min_crop, 1)
    height, width = (max(1, round(scale * side)) for side in size)
    top, left = (int(rng.integers(side - part + 1)) for side, part in zip(size, (height, width), strict=True))
    return Crop(size, top, left, height, width, bool(rng.integers(2)))


def draw_turn(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a (3, 3) turn about z by any angle, after mirroring x and y half of the time each."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return (turn * [*rng.choice([-1, 1], 2), 1]).astype(np.float32)


def _nearest(part: int, full: int) -> Indices:
    """Return the pixel of `part` that lies under the centre of each of `full` pixels."""
    return ((np.arange(full) * 2 + 1) * part) // (2 * full)


def _enlarge(pixel: Indices, part: int, full: int) -> Indices:
    """Return the pixel of `full` in which the centre of a pixel of `part` lies."""
    return ((2 * pixel + 1) * full) // (2 * part)
