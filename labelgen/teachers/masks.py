"""From overlapping mask proposals to one mask id a pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MaskProposal:
    """A binary mask `inside` (H, W), its `area` in native pixels, and SAM's own two scores."""

    inside: NDArray[np.bool_]
    area: int
    predicted_iou: float
    stability_score: float


def paint_ids(proposals: Sequence[MaskProposal], size: tuple[int, int]) -> NDArray[np.uint16]:
    """Paint proposals into one id map (H, W), their size: larger masks first, smaller on top; 0 is no mask.

    Ids count in painting order from 1, so a higher id is a smaller mask; masks of equal area keep the order they
    came in.
    """
    ids = np.zeros(size, np.uint16)
    for rank, proposal in enumerate(sorted(proposals, key=lambda proposal: -proposal.area), start=1):
        ids[proposal.inside] = rank
    return ids


def nearest_pixels(image: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.generic]:
    """Return the image (H0, W0) at `size`, each target pixel the native pixel under its centre."""
    rows, cols = (nearest_index(native, target) for native, target in zip(image.shape[:2], size, strict=True))
    return image[rows[:, None], cols]


def nearest_index(native: int, target: int) -> NDArray[np.intp]:
    """Return, for each of `target` pixels along an axis of `native`, the native pixel under its centre."""
    return ((np.arange(target) + 0.5) * native / target).astype(np.intp)
