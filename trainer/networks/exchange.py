"""Moves features between points and the voxels that they lie in, at any stride."""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional


class VoxelTable:
    """Finds voxels by their coordinates."""

    def __init__(self, voxels: Tensor) -> None:
        """Index at least one voxel (V, 4) i32 as (sample, z, y, x), all different, none below 0."""
        self._extent = voxels[:, 1:].amax(dim=0).long() + 3  # a margin of one voxel on both sides
        self._keys, self._row = self._key(voxels.long()).sort()

    def find(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows (N,) i64 of voxels, and whether each exists (N,) bool; a row that does not is any row.

        Args:
            cells: (N, 4) i64 as (sample, z, y, x), at most one voxel beyond those of the table.
        """
        keys = self._key(cells)
        place = torch.searchsorted(self._keys, keys).clamp(max=len(self._keys) - 1)
        return self._row[place], self._keys[place] == keys

    def _key(self, cells: Tensor) -> Tensor:
        sample, z, y, x = cells.unbind(dim=1)
        depth, height, width = self._extent.unbind()
        return ((sample * depth + z + 1) * height + y + 1) * width + x + 1


@dataclass(frozen=True)
class Interpolation:
    """Weighted sums of voxels: rows (P, 8) i64 and weights (P, 8) f32."""

    rows: Tensor
    weights: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Return features (P, K) of points from those of voxels (V, K)."""
        return functional.embedding_bag(self.rows, features, per_sample_weights=self.weights, mode="sum")


def trilinear(table: VoxelTable, sample: Tensor, position: Tensor, stride: int) -> Interpolation:
    """Return the trilinear interpolation of points between the centres of the voxels of a stride.

    Weights of voxels that do not exist go to the others in proportion. SPVNAS interpolates between the lowest corners
    of voxels instead, which shifts features by half a voxel.

    Args:
        table: of the voxels of this stride, their coordinates in units of the stride; each point lies in one.
        sample: (P,) i64, the sample of each point.
        position: (P, 3) f32 as z, y, x in units of voxels of stride 1.
        stride: of the voxels.
    """
    exact = position / stride - 0.5
    low = exact.floor()
    share = exact - low
    rows, weights = [], []
    for corner in product((0, 1), repeat=3):
        step = torch.tensor(corner, device=position.device)
        row, found = table.find(torch.cat([sample[:, None], low.long() + step], dim=1))
        rows.append(row)
        weights.append(torch.where(step.bool(), share, 1 - share).prod(dim=1) * found)
    weight = torch.stack(weights, dim=1)
    return Interpolation(torch.stack(rows, dim=1), weight / weight.sum(dim=1, keepdim=True))


def mean_of_rows(values: Tensor, row: Tensor, rows: int, weight: Tensor | None = None) -> Tensor:
    """Return the means (rows, K) of the values (N, K) of each row, weighted by `weight` (N,) if given.

    Args:
        values: (N, K) f32.
        row: (N,) i64; each row has at least one value.
        rows: their number.
        weight: above 0.
    """
    weight = values.new_ones(len(values)) if weight is None else weight
    total = values.new_zeros(rows).index_add(0, row, weight)
    return values.new_zeros(rows, values.shape[1]).index_add(0, row, values * weight[:, None]) / total[:, None]


def halve(voxels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the voxels (W, 4) i32 of twice the stride that contain voxels (V, 4) i32, and the row (V,) i64 of each.

    Args:
        voxels: as (sample, z, y, x), none below 0; at least one.
    """
    cells = torch.cat([voxels[:, :1], voxels[:, 1:] // 2], dim=1).long()
    extent = cells.amax(dim=0) + 1
    keys = ((cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]) * extent[3] + cells[:, 3]
    keys, row = keys.unique(return_inverse=True)
    columns = []
    for side in (extent[3], extent[2], extent[1]):
        columns.append(keys % side)
        keys = keys // side
    return torch.stack([keys, *reversed(columns)], dim=1).int(), row
