"""What SAM found in pictures, brought to the grid of CLIP's patches."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.stored_features import decode_features

if TYPE_CHECKING:
    from torch import Tensor


def masks_at_patches(mask_ids: NDArray[np.uint16], grid: tuple[int, int]) -> "Tensor":
    """Return the mask at the centre of each patch, (B, h, w) i64, from the id maps (B, H, W) of the same pictures."""
    import torch

    rows, cols = (
        ((np.arange(patches) + 0.5) * pixels / patches).astype(np.intp)
        for patches, pixels in zip(grid, mask_ids.shape[1:], strict=True)
    )
    return torch.from_numpy(mask_ids[:, rows[:, None], cols].astype(np.int64))


def embedding_at_patches(sam: dict[str, NDArray[Any]], grid: tuple[int, int]) -> "Tensor":
    """Return SAM's image embedding at the patches, (B, E, h, w) f32, averaged over each patch where it is finer.

    Args:
        sam: rows of the arrays of the group `sam`: `features` (B, hf, wf, E), and `features_scale` (B, E) and
            `features_valid` (B, 2) where they are stored.
        grid: (h, w).
    """
    import torch
    from torch.nn import functional

    embeddings = []
    for number, features in enumerate(decode_features(sam["features"], sam.get("features_scale"), channel_axis=3)):
        rows, cols = sam["features_valid"][number] if "features_valid" in sam else features.shape[:2]
        channels_first = torch.from_numpy(features[:rows, :cols]).permute(2, 0, 1)[None]
        embeddings.append(functional.interpolate(channels_first, grid, mode="bilinear", antialias=True))
    return torch.cat(embeddings)
