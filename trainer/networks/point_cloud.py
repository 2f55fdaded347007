"""What every 3D network takes, and what it returns."""

from dataclasses import dataclass

from torch import Tensor, nn

from trainer.data.batch import Batch


@dataclass(frozen=True)
class Cloud:
    """The P points of some samples in V voxels; there may be none.

    Attributes:
        voxels: (V, 4) i32 as (sample, z, y, x), all different; z, y and x count from the lowest corner of the sample.
        voxel_features: (V, F) f32, the means of the features of each voxel's points.
        point_voxel: (P,) i64, the voxel of each point.
        batch_size: the number of samples.
        point_position: (P, 3) f32, where each point is in the grid of its sample: z, y and x in units of voxels, so that
            a voxel reaches from its coordinates to these plus 1. None for networks that need no points.
        point_features: (P, F) f32, those whose means are `voxel_features`. None for networks that need none.
    """

    voxels: Tensor
    voxel_features: Tensor
    point_voxel: Tensor
    batch_size: int
    point_position: Tensor | None = None
    point_features: Tensor | None = None


@dataclass(frozen=True)
class PointFeatures:
    """Features of points at one scale. Points that lie in one voxel may share a row.

    Attributes:
        features: (N, K) f32, of voxels or of points.
        row_of_point: (P,) i64, the row of each point.
    """

    features: Tensor
    row_of_point: Tensor


class CloudNetwork(nn.Module):
    """A 3D network.

    Attributes:
        channels: the width K of each of the features that it returns.
    """

    channels: tuple[int, ...]

    def forward(self, cloud: Cloud) -> tuple[PointFeatures, ...]:
        """Return what class heads take, then the features of single scales, the finest first, if it has several."""
        raise NotImplementedError


def cloud_of(batch: Batch) -> Cloud:
    """Return the clouds of a batch."""
    return Cloud(
        batch.voxels,
        batch.voxel_features,
        batch.point_voxel,
        batch.batch_size,
        batch.point_position,
        batch.point_features,
    )
