"""Group points into voxels, by one sort of packed 64-bit keys."""

import numpy as np
from numpy.typing import NDArray

AXIS_BITS = 21
"""A key holds three voxel coordinates of this many bits each."""


def voxelise(xyz: NDArray[np.float32], voxel_m: float) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Group points (P, 3), in metres, into cubes with sides of `voxel_m` metres.

    Returns:
        The occupied voxels (V, 3) as sorted (z, y, x), counted from the lowest corner of the cloud, and the index
        (P,) into them of each point's voxel.

    Raises:
        ValueError: if the cloud spans more than 2^21 voxels along an axis.
    """
    if not len(xyz):
        return np.zeros((0, 3), np.int32), np.zeros(0, np.int64)
    cell = np.floor(xyz.astype(np.float64) / voxel_m).astype(np.int64)
    cell -= cell.min(axis=0)
    if cell.max() >> AXIS_BITS:
        raise ValueError(
            f"the cloud spans {int(cell.max())} voxels of {voxel_m} m, more than 2^{AXIS_BITS}; "
            "check its points, or raise networks.voxel_m"
        )
    keys, point_voxel = np.unique(
        (cell[:, 2] << 2 * AXIS_BITS) | (cell[:, 1] << AXIS_BITS) | cell[:, 0], return_inverse=True
    )
    mask = (1 << AXIS_BITS) - 1
    voxels = np.stack([keys >> 2 * AXIS_BITS, (keys >> AXIS_BITS) & mask, keys & mask], axis=1)
    return voxels.astype(np.int32), point_voxel.reshape(-1)


def grid_position(xyz: NDArray[np.float32], voxel_m: float) -> NDArray[np.float32]:
    """Return where points (P, 3), in metres, are in the grid of `voxelise`: z, y and x (P, 3) in units of voxels."""
    exact = xyz[:, ::-1].astype(np.float64) / voxel_m
    position: NDArray[np.float32] = (exact - np.floor(exact.min(axis=0, initial=np.inf))).astype(np.float32)
    return position
