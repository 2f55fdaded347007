"""SPVCNN on spconv: a MinkUNet that exchanges features with a branch of points, which keeps detail below a voxel.

The network of Tang et al., "Searching Efficient 3D Architectures with Sparse Point-Voxel Convolution" (ECCV 2020), in
the form that CLIP2Scene trains: points meet voxels at strides 1, 16, 4 and 1 again, and the features of points after
the last three are concatenated.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.networks.exchange import VoxelTable, mean_of_rows, trilinear
from trainer.networks.norms import BatchNorm1d
from trainer.networks.point_cloud import Cloud, CloudNetwork, PointFeatures
from trainer.networks.residual import convolution, doubling, halving_stage, join, residual_blocks, sparse_tensor
from trainer.networks.sparse import spconv

STEM = 32
ENCODER, DECODER = (32, 64, 128, 256), (256, 128, 96, 96)
BLOCKS = 2
POINT_WIDTHS = (STEM, 256, 128, 96)


class SPVCNN(CloudNetwork):
    """Returns features (P, 480) of points; needs `point_position`."""

    def __init__(self, inputs: int) -> None:
        """Build the network with random weights for voxels with `inputs` features."""
        super().__init__()
        self.channels = (sum(POINT_WIDTHS[1:]),)
        first, second = convolution(inputs, STEM, 3, "level0"), convolution(STEM, STEM, 3, "level0")
        relu = nn.ReLU(inplace=True)
        self.stem = spconv.SparseSequential(first, BatchNorm1d(STEM), relu, second, BatchNorm1d(STEM), relu)
        widths = (STEM, *ENCODER)
        self.down = nn.ModuleList(
            halving_stage(widths[level], width, BLOCKS, level, BatchNorm1d) for level, width in enumerate(ENCODER)
        )
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        width = widths[-1]
        for level, after in zip(reversed(range(len(DECODER))), DECODER, strict=True):
            self.up.append(doubling(width, after, level, BatchNorm1d))
            merge = residual_blocks(after + widths[level], after, BLOCKS, f"level{level}", BatchNorm1d)
            self.merge.append(spconv.SparseSequential(*merge))
            width = after
        self.points = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), BatchNorm1d(after), nn.ReLU(inplace=True))
            for before, after in pairwise(POINT_WIDTHS)
        )

    def compute(self, cloud: Cloud) -> tuple[PointFeatures, ...]:
        """Return the concatenated features (P, 480) of points at strides 16, 4 and 1."""
        exchange = _Exchange(cloud)
        fine = self.stem(sparse_tensor(cloud.voxel_features, cloud.voxels, cloud.batch_size, len(self.down)))
        points = exchange.to_points(fine, 1)
        skips, x = [fine], exchange.to_voxels(points, fine, 1)
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()
        found = []
        for transform, stride, stages in zip(self.points, (16, 4, 1), ((0, 1), (2, 3), ()), strict=True):
            points = exchange.to_points(x, stride) + transform(points)
            found.append(points)
            if stages:
                x = exchange.to_voxels(points, x, stride)
            for stage in stages:
                x = self.merge[stage](join(self.up[stage](x), skips.pop()))
        rows = torch.arange(len(points), device=points.device)
        return (PointFeatures(torch.cat(found, dim=1), rows),)


class _Exchange:
    """Moves features between the points of clouds and voxels of several strides."""

    def __init__(self, cloud: Cloud) -> None:
        assert cloud.point_position is not None, "SPVCNN needs the positions of points"
        self._position = cloud.point_position
        self._cell = cloud.voxels.long()[cloud.point_voxel]
        self._tables: dict[int, VoxelTable] = {}

    def to_points(self, x: spconv.SparseConvTensor, stride: int) -> Tensor:
        """Return features (P, K) of points between those of voxels of a stride."""
        points: Tensor = trilinear(self._table(x, stride), self._cell[:, 0], self._position, stride)(x.features)
        return points

    def to_voxels(self, points: Tensor, x: spconv.SparseConvTensor, stride: int) -> spconv.SparseConvTensor:
        """Return the means of the features (P, K) of points in the voxels of `x`."""
        cells = torch.cat([self._cell[:, :1], self._cell[:, 1:] // stride], dim=1)
        row, _ = self._table(x, stride).find(cells)
        return x.replace_feature(mean_of_rows(points, row, len(x.features)))

    def _table(self, x: spconv.SparseConvTensor, stride: int) -> VoxelTable:
        if stride not in self._tables:
            self._tables[stride] = VoxelTable(x.indices)
        return self._tables[stride]
