"""Which points of a shard vote together: those in one voxel of the world, unless what was there has moved."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labelgen.geometry import invert_rigid, transform_points
from labelgen.time_agreement.free_space import RangeImage

Cells = NDArray[np.int64]


def cells_of_points(clouds: Sequence[NDArray[np.float32]], poses: NDArray[np.float64], voxel_m: float) -> Cells:
    """Return the cell (P,) of each point of all clouds, end to end, numbered from 0.

    The points of a voxel share a cell. If a further cloud saw the voxel as free space, each cloud has a cell of its own
    there.

    Args:
        clouds: (P_s, 3) points of each sample in the frame of its lidar, metres; none for a sample without a cloud.
        poses: (S, 4, 4) rigid transforms from these frames to the world, metres.
        voxel_m: side of a voxel, metres.
    """
    sample = np.repeat(np.arange(len(clouds)), [len(cloud) for cloud in clouds])
    world = [transform_points(cloud, pose) for cloud, pose in zip(clouds, poses, strict=True)]
    index, voxel = _voxels(np.concatenate(world), voxel_m)
    occupied = np.zeros((len(index), len(clouds)), bool)
    occupied[voxel, sample] = True
    moved = _moved((index + 0.5) * voxel_m, occupied, clouds, poses, voxel_m)
    apart = np.where(moved[voxel], sample + 1, 0)
    return np.unique(voxel * (len(clouds) + 1) + apart, return_inverse=True)[1]


def _voxels(world: NDArray[np.float32], voxel_m: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the whole-numbered places (V, 3) of the voxels that hold points (P, 3), and the voxel (P,) of each."""
    axes = [np.unique(np.floor(axis / voxel_m), return_inverse=True) for axis in world.T]
    sizes = [len(values) for values, _ in axes]
    key, voxel = np.unique(np.ravel_multi_index([rank for _, rank in axes], sizes), return_inverse=True)
    ranks = np.unravel_index(key, sizes)
    return np.stack([values[rank] for (values, _), rank in zip(axes, ranks, strict=True)], axis=1), voxel


def _moved(
    centres: NDArray[np.float32],
    occupied: NDArray[np.bool_],
    clouds: Sequence[NDArray[np.float32]],
    poses: NDArray[np.float64],
    voxel_m: float,
) -> NDArray[np.bool_]:
    """Tell in which voxels (V,) with points of several clouds another cloud saw free space.

    `centres` (V, 3) are in the world, `occupied` (V, S) tells which clouds have points in a voxel.
    """
    moved = np.zeros(len(centres), bool)
    several = occupied.sum(axis=1) > 1
    for number, (cloud, pose) in enumerate(zip(clouds, poses, strict=True)):
        asked = np.flatnonzero(several & ~moved & ~occupied[:, number])
        if len(cloud) and len(asked):
            moved[asked] = RangeImage.of(cloud).passes(transform_points(centres[asked], invert_rigid(pose)), voxel_m)
    return moved
