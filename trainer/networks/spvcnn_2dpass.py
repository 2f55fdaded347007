"""The SPVCNN of 2DPASS on spconv: an encoder of voxels and points at four scales, without a decoder.

The 3D network of Yan et al., "2DPASS: 2D Priors Assisted Semantic Segmentation on LiDAR Point Clouds" (ECCV 2022),
which Affinity3D trains. Here a voxel of a scale contains whole voxels of the one before, counted from the lowest corner
of the cloud. 2DPASS divides a fixed range anew at each scale, which is the same for a range from this corner whose
number of voxels along each axis is a multiple of 16.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.networks.exchange import halve, mean_of_rows
from trainer.networks.norms import BatchNorm1d
from trainer.networks.point_cloud import Cloud, CloudNetwork, PointFeatures
from trainer.networks.residual import convolution
from trainer.networks.sparse import spconv

SCALES = 4
SLOPE = 0.1
"""Of the leaky ReLUs."""


class MultiScaleSPVCNN(CloudNetwork):
    """Returns the point features of all scales as one, then the voxel features of each scale.

    Class heads take the first: the concatenated outputs of the point encoders, with a row for each voxel of stride 2.
    The others are the outputs of the voxel encoders, of strides 1, 2, 4 and 8, which 2DPASS distils image features of
    strides 2, 4, 8 and 16 into. Needs `point_position` and `point_features`.
    """

    def __init__(self, inputs: int, hidden: int = 64) -> None:
        """Build the network with random weights for points with `inputs` features."""
        super().__init__()
        self.channels = (SCALES * hidden, *(hidden for _ in range(SCALES)))
        self.points = nn.Sequential(nn.Linear(inputs + 6, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, hidden))
        self.voxel_encoders = nn.ModuleList(
            spconv.SparseSequential(_Block(hidden, f"level{level}"), _Block(hidden, f"level{level}"))
            for level in range(SCALES)
        )
        self.point_encoders = nn.ModuleList(_PointEncoder(hidden) for _ in range(SCALES))

    def compute(self, cloud: Cloud) -> tuple[PointFeatures, ...]:
        """Return the joined features (V2, 4 hidden), then those of the scales, (V, hidden) each."""
        row, voxels = cloud.point_voxel, cloud.voxels
        features = mean_of_rows(self.points(_point_inputs(cloud)), row, len(voxels))
        points = features.new_zeros(len(voxels)).index_add(0, row, features.new_ones(len(row)))
        scales: list[PointFeatures] = []
        encoded: list[PointFeatures] = []
        for encode_voxels, encode_points in zip(self.voxel_encoders, self.point_encoders, strict=True):
            extent = (voxels[:, 1:].amax(dim=0) + 1).tolist()
            found = encode_voxels(spconv.SparseConvTensor(features, voxels, extent, cloud.batch_size)).features
            scales.append(PointFeatures(found, row))
            voxels, parent = halve(voxels)
            own = encode_points(features + found, parent, len(voxels), points)
            features = own + mean_of_rows(found, parent, len(voxels), points)
            points = points.new_zeros(len(voxels)).index_add(0, parent, points)
            row = parent[row]
            encoded.append(PointFeatures(own, row))
        return (_concatenate(encoded), *scales)


class _PointEncoder(nn.Module):
    """Maps features of voxels to those of voxels of twice the stride, through single voxels and their surroundings."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        half = hidden // 2
        self.alone = nn.Sequential(nn.Linear(hidden, hidden), nn.LeakyReLU(SLOPE, inplace=True))
        self.around = nn.Sequential(
            nn.Linear(hidden, half),
            nn.LeakyReLU(SLOPE, inplace=True),
            BatchNorm1d(half),
            nn.Linear(half, half),
            nn.LeakyReLU(SLOPE, inplace=True),
            BatchNorm1d(half),
            nn.Linear(half, hidden),
            nn.LeakyReLU(SLOPE, inplace=True),
        )
        self.join = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.LeakyReLU(SLOPE, inplace=True), nn.Linear(hidden, hidden)
        )

    def forward(self, features: Tensor, parent: Tensor, parents: int, points: Tensor) -> Tensor:
        """Return features (parents, hidden); `points` (V,) f32 is the number of points in each voxel."""
        around = self.around(mean_of_rows(features, parent, parents))[parent]
        joined = self.join(torch.cat([self.alone(features), around], dim=1))
        return mean_of_rows(joined, parent, parents, points)


class _Block(spconv.SparseModule):  # type: ignore[misc]  # spconv has no types
    """A residual block whose input is always projected."""

    def __init__(self, hidden: int, key: str) -> None:
        super().__init__()
        self.first, self.norm1 = convolution(hidden, hidden, 3, key), BatchNorm1d(hidden)
        self.second, self.norm2 = convolution(hidden, hidden, 3, key), BatchNorm1d(hidden)
        self.project = nn.Sequential(nn.Linear(hidden, hidden, bias=False), BatchNorm1d(hidden))

    def forward(self, x: spconv.SparseConvTensor) -> spconv.SparseConvTensor:
        """Return features of the same voxels."""
        y = self.first(x)
        y = self.second(y.replace_feature(functional.leaky_relu(self.norm1(y.features), SLOPE)))
        return y.replace_feature(functional.leaky_relu(self.norm2(y.features) + self.project(x.features), SLOPE))


def _point_inputs(cloud: Cloud) -> Tensor:
    """Return features (P, F + 6): a point's own, and its offsets from the mean point and the centre of its voxel."""
    position, own = cloud.point_position, cloud.point_features
    assert position is not None and own is not None, "the SPVCNN of 2DPASS needs positions and features of points"
    mean = mean_of_rows(position, cloud.point_voxel, len(cloud.voxels))
    corner = cloud.voxels[cloud.point_voxel, 1:]
    return torch.cat([own, position - mean[cloud.point_voxel], position - corner - 0.5], dim=1)


def _concatenate(encoded: list[PointFeatures]) -> PointFeatures:
    """Return features at several scales, the finest first, as one with the rows of the finest."""
    first, points = encoded[0], len(encoded[0].row_of_point)
    point = first.row_of_point.new_empty(len(first.features))
    point[first.row_of_point] = torch.arange(points, device=point.device)  # any point of a row has its coarser rows
    columns = [scale.features[scale.row_of_point[point]] for scale in encoded]
    return PointFeatures(torch.cat(columns, dim=1), first.row_of_point)
