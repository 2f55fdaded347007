"""What every 3D network takes, and what it returns."""

from dataclasses import dataclass, replace

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
        point_position: (P, 3) f32, z, y and x of each point in the grid of its sample, in units of voxels: a voxel
            reaches from its coordinates to these plus 1. None for networks that need no points.
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
        if len(cloud.point_voxel):
            return self.compute(cloud)
        # spconv needs a voxel; all layers run, so that ranks and gradients stay in step
        found = self.compute(_one_point(cloud))
        return tuple(PointFeatures(scale.features[:0], scale.row_of_point[:0]) for scale in found)

    def compute(self, cloud: Cloud) -> tuple[PointFeatures, ...]:
        """Return what `forward` returns, for clouds with at least one point."""
        raise NotImplementedError


def _one_point(empty: Cloud) -> Cloud:
    """Return an empty cloud with one point that has the features 0."""

    def one(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.new_zeros(1, *values.shape[1:])

    return replace(
        empty,
        voxels=empty.voxels.new_zeros(1, 4),
        voxel_features=empty.voxel_features.new_zeros(1, empty.voxel_features.shape[1]),
        point_voxel=empty.point_voxel.new_zeros(1),
        point_position=one(empty.point_position),
        point_features=one(empty.point_features),
    )


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
