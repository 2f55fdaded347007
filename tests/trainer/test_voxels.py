"""Voxels: those of unique rows, and none for no points."""

import numpy as np
import pytest

from trainer.data.voxels import grid_position, voxelise


def test_voxels_are_those_of_unique_rows() -> None:
    xyz = np.random.default_rng(0).normal(0, 20, (5000, 3)).astype(np.float32)
    voxels, point_voxel = voxelise(xyz, 0.5)
    cells = np.floor(xyz.astype(np.float64) / 0.5).astype(int)
    expected, inverse = np.unique(cells[:, ::-1], axis=0, return_inverse=True)
    np.testing.assert_array_equal(voxels, expected - cells[:, ::-1].min(axis=0))
    np.testing.assert_array_equal(point_voxel, inverse.ravel())


def test_no_points_make_no_voxels() -> None:
    voxels, point_voxel = voxelise(np.zeros((0, 3), np.float32), 0.1)
    assert voxels.shape == (0, 3) and point_voxel.shape == (0,)


def test_a_cloud_that_is_too_wide_is_refused() -> None:
    xyz = np.array([[0, 0, 0], [0, 0, 3e5]], np.float32)
    with pytest.raises(ValueError, match=r"spans 3000000 voxels of 0\.1 m.*raise networks\.voxel_m"):
        voxelise(xyz, 0.1)


def test_positions_in_the_grid_lie_in_the_voxels_of_their_points() -> None:
    xyz = np.random.default_rng(0).normal(0, 20, (5000, 3)).astype(np.float32)
    voxels, point_voxel = voxelise(xyz, 0.5)
    inside = grid_position(xyz, 0.5) - voxels[point_voxel]
    assert inside.min() >= 0 and inside.max() <= 1 + 1e-4
    np.testing.assert_allclose((2 * xyz[:, ::-1]) % 1, inside, atol=1e-3)
    assert grid_position(xyz[:0], 0.5).shape == (0, 3)
