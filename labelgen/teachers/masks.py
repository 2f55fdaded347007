"""From overlapping mask proposals to one mask id a pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MaskProposal:
    """A binary mask `inside` (H0, W0) of the native image, with SAM's own two scores."""

    inside: NDArray[np.bool_]
    predicted_iou: float
    stability_score: float


def paint_ids(proposals: Sequence[MaskProposal], size: tuple[int, int]) -> NDArray[np.uint16]:
    """Paint proposals into one id map (H, W) of `size`: larger masks first, smaller on top; 0 is no mask.

    Ids count in painting order from 1, so a higher id is a smaller mask; masks of equal area keep the order they
    came in. Each target pixel takes the native pixel under its centre.
    """
    ids = np.zeros(size, np.uint16)
    areas = [int(proposal.inside.sum()) for proposal in proposals]
    order = sorted(range(len(proposals)), key=lambda index: -areas[index])
    for rank, index in enumerate(order, start=1):
        ids[nearest_pixels(proposals[index].inside, size)] = rank
    return ids


def nearest_pixels(image: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.generic]:
    """Return the image (H0, W0) at `size`, each target pixel the native pixel under its centre."""
    rows, cols = (
        ((np.arange(target) + 0.5) * native / target).astype(np.intp)
        for native, target in zip(image.shape[:2], size, strict=True)
    )
    return image[rows[:, None], cols]
