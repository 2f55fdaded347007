"""Overlapping windows of a picture, and the mean of what a network finds in each of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from labelgen.teachers.clip.attention import Guides

if TYPE_CHECKING:
    from torch import Tensor

WINDOWS_AT_ONCE = 64
"""Windows that the network reads at once, also of several pictures; this number bounds the memory."""

Dense = Callable[["Tensor", Guides], "tuple[Tensor, Tensor]"]
"""Images (B, 3, H, W) and their guides -> features (B, D, h, w) of unit norm and keys (B, K, h, w)."""


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return where windows start along one side; the last one ends where the side ends."""
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


def dense_in_windows(
    dense: Dense, images: "Tensor", guides: Guides, window: int, stride: int, patch: int
) -> "tuple[Tensor, Tensor]":
    """Return the mean features of all windows over each patch, of unit norm again, and the mean keys.

    Args:
        dense: the network.
        images: (B, 3, H, W); H, W, `window` and `stride` are multiples of `patch`.
        guides: of whole images.
        window: side of a window in pixels; a shorter side of the images limits it.
        stride: distance of neighbouring windows in pixels.
        patch: side of a patch in pixels.

    Returns:
        Features (B, D, h, w) and keys (B, K, h, w).
    """
    import torch

    size = images.shape[2:]
    sums: list[Tensor] = []
    seen = images.new_zeros(len(images), 1, size[0] // patch, size[1] // patch)
    windows = _windows(len(images), (size[0], size[1]), window, stride)
    for first in range(0, len(windows), WINDOWS_AT_ONCE):
        together = windows[first : first + WINDOWS_AT_ONCE]
        crops = torch.cat([images[image : image + 1, :, rows, cols] for image, rows, cols in together])
        patches = [(image, _shrunk(rows, patch), _shrunk(cols, patch)) for image, rows, cols in together]
        found = dense(crops, _joined([guides.crop(*place) for place in patches]))
        if not sums:
            sums = [part.new_zeros(len(images), part.shape[1], *seen.shape[2:]) for part in found]
        for number, (image, rows, cols) in enumerate(patches):
            seen[image, :, rows, cols] += 1
            for total, part in zip(sums, found, strict=True):
                total[image, :, rows, cols] += part[number]
    features, keys = (total / seen for total in sums)
    return torch.nn.functional.normalize(features, dim=1), keys


def _windows(images: int, size: tuple[int, int], window: int, stride: int) -> list[tuple[int, slice, slice]]:
    """Return image, rows and columns of each window, in pixels."""
    rows, cols = (
        [slice(start, min(start + window, side)) for start in window_starts(side, window, stride)] for side in size
    )
    return [(image, of_rows, of_cols) for image in range(images) for of_rows in rows for of_cols in cols]


def _shrunk(pixels: slice, patch: int) -> slice:
    return slice(pixels.start // patch, pixels.stop // patch)


def _joined(guides: list[Guides]) -> Guides:
    import torch

    masks = [part.masks for part in guides if part.masks is not None]
    embeddings = [part.embedding for part in guides if part.embedding is not None]
    return Guides(torch.cat(masks) if masks else None, torch.cat(embeddings) if embeddings else None)
