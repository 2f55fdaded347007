"""Random crops and mirrors of images, random rotations of clouds; labels, masks and pairs are mapped exactly.

A crop is always enlarged to the full image size, never reduced. So every pixel of the crop lies under at least one
pixel of the result, and a pair that stays in the crop is mapped onto its own content.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

DRAWS = 10
"""The most crops that are drawn for an image to find one that keeps enough pairs."""


@dataclass(frozen=True)
class Crop:
    """A rectangle of an image, which is enlarged to the size of that image.

    Attributes:
        size: (H, W) of the image and of the result, in pixels.
        top, left: the first row and column of the rectangle.
        height, width: the size of the rectangle, in pixels.
        mirrored: whether the result is mirrored left to right.
    """

    size: tuple[int, int]
    top: int
    left: int
    height: int
    width: int
    mirrored: bool

    def box(self) -> tuple[float, float, float, float]:
        """Return top, left, height and width as shares of the image; of a mirrored crop the right side and -width."""
        height, width = self.size
        top, tall, wide = self.top / height, self.height / height, self.width / width
        return (
            (top, (self.left + self.width) / width, tall, -wide)
            if self.mirrored
            else (top, self.left / width, tall, wide)
        )

    def source_pixels(self) -> tuple[Indices, Indices]:
        """Return the image row of each result row (H,) and the image column of each result column (W,).

        The nearest pixel is taken.
        """
        rows = self.top + _nearest(self.height, self.size[0])
        columns = self.left + _nearest(self.width, self.size[1])
        return rows, columns[::-1] if self.mirrored else columns

    def map_pixels(self, row: Indices, col: Indices) -> tuple[Indices, Indices, NDArray[np.bool_]]:
        """Return the rows and columns of image pixels (N,) in the result, and which of them lie in the crop.

        Rows and columns of pixels outside the crop have no meaning.
        """
        inside = (
            (row >= self.top) & (row < self.top + self.height) & (col >= self.left) & (col < self.left + self.width)
        )
        new_row = _enlarge(row - self.top, self.height, self.size[0])
        new_col = _enlarge(col - self.left, self.width, self.size[1])
        return new_row, self.size[1] - 1 - new_col if self.mirrored else new_col, inside


def draw_crop(size: tuple[int, int], min_crop: float, rng: np.random.Generator) -> Crop:
    """Draw a crop of an image of `size` (H, W): same aspect ratio, mirrored with probability 1/2.

    Its sides are a share of the image's that is uniform in `min_crop`..1.
    """
    scale = rng.uniform(min_crop, 1)
    height, width = (max(1, round(scale * side)) for side in size)
    top, left = (int(rng.integers(side - part + 1)) for side, part in zip(size, (height, width), strict=True))
    return Crop(size, top, left, height, width, bool(rng.integers(2)))


def draw_crop_with_pairs(
    size: tuple[int, int], min_crop: float, keep_pairs: float, pixels: tuple[Indices, Indices], rng: np.random.Generator
) -> Crop:
    """Draw crops until one keeps at least the share `keep_pairs` of an image's pairs; return it.

    If `DRAWS` crops do not, return the first of those with the most pairs. `pixels` are the rows and columns (N,) of
    the pairs.
    """
    tried: list[tuple[int, Crop]] = []
    while len(tried) < DRAWS:
        crop = draw_crop(size, min_crop, rng)
        kept = int(crop.map_pixels(*pixels)[2].sum())
        if kept >= keep_pairs * len(pixels[0]):
            return crop
        tried.append((kept, crop))
    return max(tried, key=lambda found: found[0])[1]


def draw_rotation(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a (3, 3) rotation about z by a uniform angle, after x and y are each mirrored with probability 1/2."""
    angle = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    mirrored: NDArray[np.float64] = rotation * [*rng.choice([-1, 1], 2), 1]
    return mirrored.astype(np.float32)


def _nearest(part: int, full: int) -> Indices:
    """Return the pixel of `part` that lies under the centre of each of `full` pixels."""
    return ((np.arange(full) * 2 + 1) * part) // (2 * full)


def _enlarge(pixel: Indices, part: int, full: int) -> Indices:
    """Return the pixel of `full` in which the centre of a pixel of `part` lies."""
    return ((2 * pixel + 1) * full) // (2 * part)
