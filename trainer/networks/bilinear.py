"""Bilinear sampling of feature grids at many positions."""

import torch
from torch import Tensor
from torch.nn import functional


def sample_bilinear(grid: Tensor, image: Tensor, position: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return features (N, K) f32 of grids (B, h, w, K), sampled bilinearly in the part of each grid that is valid.

    The values are those of `functional.grid_sample` with `align_corners=False` and `padding_mode="border"`, but each
    position names its image, and no (N, K, 4) intermediate is made.

    Args:
        grid: (B, h, w, K), features of each image; cell (i, j) has its centre at ((i + 0.5) / h, (j + 0.5) / w), where
            h x w is the valid part.
        image: (N,) i64, the image of each position.
        position: (N, 2) f32, row and column as shares 0..1 of the image's height and width.
        valid: (B, 2) i64, first rows and columns of each grid that show the image; all, if None.
    """
    height, width = grid.shape[1:3]
    size = torch.tensor([height, width], device=position.device) if valid is None else valid[image]
    exact = position * size - 0.5
    exact = torch.minimum(exact.clamp(min=0), size - 1)
    low = torch.minimum(exact.long(), (size - 2).clamp(min=0))
    high = torch.minimum(low + 1, size - 1)
    share = exact - low
    corners, weights = [], []
    for row, down in ((low[:, 0], 1 - share[:, 0]), (high[:, 0], share[:, 0])):
        for col, right in ((low[:, 1], 1 - share[:, 1]), (high[:, 1], share[:, 1])):
            corners.append((image * height + row) * width + col)
            weights.append(down * right)
    return functional.embedding_bag(
        torch.stack(corners, dim=1),
        grid.float().flatten(0, 2),
        per_sample_weights=torch.stack(weights, dim=1),
        mode="sum",
    )
