"""The 3D network: its size, and sparse convolutions against dense ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from trainer.networks.cloud import BUILDERS
from trainer.networks.minkunet import SHAPES, MinkUNet
from trainer.networks.point_cloud import Cloud, PointFeatures
from trainer.networks.sparse import ALGORITHM, spconv

NAMES = ["small", "minkunet14a", "spvcnn", "spvcnn-2dpass"]
"""The larger MinkUNets differ from `minkunet14a` in their shape alone."""


def original_parameters(blocks: tuple[int, ...], planes: tuple[int, ...], inputs: int) -> int:
    """Count the parameters of Choy et al.'s MinkUNet with 32 stem channels, but for its last, classifying layer."""

    def block(before: int, after: int) -> int:
        own = 27 * before * after + 27 * after * after + 4 * after
        return own + (before * after + 2 * after if before != after else 0)

    def stage(before: int, after: int, number: int) -> int:
        return block(before, after) + (number - 1) * block(after, after)

    total, width, skips = 125 * inputs * 32 + 2 * 32, 32, [32]
    for after, number in zip(planes[:4], blocks[:4], strict=True):
        total += 8 * width * width + 2 * width + stage(width, after, number)
        width = after
        skips.append(after)
    for after, number, skip in zip(planes[4:], blocks[4:], skips[-2::-1], strict=True):
        total += 8 * width * after + 2 * after + stage(after + skip, after, number)
        width = after
    return total


@pytest.mark.parametrize(
    ("name", "blocks", "decoder", "millions"),
    [
        ("minkunet14a", (1,) * 8, (128, 128, 96, 96), "8.02"),
        ("minkunet18a", (2,) * 8, (128, 128, 96, 96), "15.49"),
        ("minkunet34", (2, 3, 4, 6, 2, 2, 2, 2), (256, 128, 96, 96), "37.85"),
    ],
)
def test_minkunets_have_the_originals_number_of_parameters(
    name: str, blocks: tuple[int, ...], decoder: tuple[int, ...], millions: str
) -> None:
    found = sum(parameter.numel() for parameter in MinkUNet(SHAPES[name], 3).parameters())
    assert found == original_parameters(blocks, (32, 64, 128, 256, *decoder), inputs=3)
    assert f"{found / 1e6:.2f}" == millions


def grid(seed: int = 0, voxels: int = 300, side: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    cells = np.unique(rng.integers(0, [2, side, side, side], (voxels, 4)), axis=0).astype(np.int32)
    return torch.from_numpy(rng.normal(size=(len(cells), 2)).astype(np.float32)), torch.from_numpy(cells)


def cloud(side: int = 12) -> Cloud:
    """Two samples with one to three points in each voxel."""
    features, voxels = grid(side=side)
    point_voxel = torch.arange(len(voxels)).repeat(3)[: 2 * len(voxels) + 50]
    rng = np.random.default_rng(1)
    inside, own = (torch.from_numpy(rng.random((len(point_voxel), width)).astype(np.float32)) for width in (3, 2))
    return Cloud(voxels, features, point_voxel, 2, voxels[point_voxel, 1:] + inside, own)


def of_points(found: tuple[PointFeatures, ...]) -> list[torch.Tensor]:
    return [scale.features[scale.row_of_point] for scale in found]


def dense(features: torch.Tensor, voxels: torch.Tensor, side: int) -> torch.Tensor:
    grid = torch.zeros(2, features.shape[1], side, side, side)
    b, z, y, x = voxels.long().T
    grid[b, :, z, y, x] = features
    return grid


@pytest.mark.parametrize("kernel", [3, 5])
def test_sparse_convolution_is_dense_convolution_at_occupied_voxels(kernel: int) -> None:
    features, voxels = grid()
    layer = spconv.SubMConv3d(2, 4, kernel, padding=kernel // 2, bias=False, algo=ALGORITHM)
    found = layer(spconv.SparseConvTensor(features, voxels, [12, 12, 12], 2)).features
    weight = layer.weight.permute(0, 4, 1, 2, 3)
    full = functional.conv3d(dense(features, voxels, 12), weight, padding=kernel // 2)
    b, z, y, x = voxels.long().T
    torch.testing.assert_close(found, full[b, :, z, y, x], atol=1e-5, rtol=1e-5)
    for gradient, reference in zip(
        torch.autograd.grad(found.square().sum(), [layer.weight]),
        torch.autograd.grad(full[b, :, z, y, x].square().sum(), [layer.weight]),
        strict=True,
    ):
        torch.testing.assert_close(gradient, reference, atol=1e-3, rtol=1e-3)


def test_voxels_far_apart_do_not_meet() -> None:
    """Extents of a whole lidar sweep at 0.1 m, times four samples, exceed 32 bits."""
    voxels = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [3, 399, 2047, 2047], [3, 398, 2047, 2047]], dtype=torch.int32)
    layer = spconv.SubMConv3d(1, 1, 3, padding=1, bias=False, algo=ALGORITHM)
    torch.nn.init.ones_(layer.weight)
    found = layer(spconv.SparseConvTensor(torch.tensor([[1.0], [2], [4], [8]]), voxels, [400, 2048, 2048], 4))
    assert found.features.ravel().tolist() == [3, 3, 12, 12]


@pytest.mark.parametrize("name", NAMES)
def test_every_point_gets_features_and_every_weight_a_gradient(name: str) -> None:
    network, batch = BUILDERS[name](2), cloud()
    found = of_points(network(batch))
    assert [scale.shape for scale in found] == [(len(batch.point_voxel), width) for width in network.channels]
    found[0].square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("side", [5, 7, 13])
@pytest.mark.parametrize("name", NAMES)
def test_a_sample_alone_has_the_features_that_it_has_in_any_batch(name: str, side: int) -> None:
    network, batch = BUILDERS[name](2).eval(), cloud(side)  # in training, batch norms do depend on the batch
    voxels, points = batch.voxels[:, 0] == 0, batch.voxels[batch.point_voxel, 0] == 0
    alone = Cloud(
        batch.voxels[voxels],
        batch.voxel_features[voxels],
        batch.point_voxel[points],  # those of the first sample come first
        1,
        batch.point_position[points],
        batch.point_features[points],
    )
    expected = of_points(network(alone))
    for far in (0, 3, 16):  # the other sample makes the extent of the batch larger
        moved = torch.tensor([0, far, far, far], dtype=torch.int32)
        joint = replace(
            batch,
            voxels=torch.where(voxels[:, None], batch.voxels, batch.voxels + moved),
            point_position=torch.where(points[:, None], batch.point_position, batch.point_position + far),
        )
        for found, own in zip(of_points(network(joint)), expected, strict=True):
            torch.testing.assert_close(found[points], own, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [3, 5, 7, 12])
def test_every_voxel_has_a_parent_at_every_level(side: int) -> None:
    """The last planes of odd extents included; the parents of a voxel are its coordinates halved and rounded down."""
    network, batch = MinkUNet(SHAPES["small"], 2), cloud(side)
    found: list[torch.Tensor] = []
    for down in network.down:
        down.register_forward_hook(lambda module, inputs, output: found.append(output.indices))
    network(batch)
    for level, indices in enumerate(found, start=1):
        parents = torch.cat([batch.voxels[:, :1], batch.voxels[:, 1:] // 2**level], dim=1).unique(dim=0)
        assert indices.unique(dim=0).tolist() == parents.tolist()


@pytest.mark.parametrize("points", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_a_cloud_of_no_or_one_point_is_trained_on(name: str, points: int) -> None:
    network, one = BUILDERS[name](2), torch.ones(points, 2)
    voxels, row = torch.zeros(points, 4, dtype=torch.int32), torch.zeros(points, dtype=torch.int64)
    found = of_points(network(Cloud(voxels, one, row, 1, torch.full((points, 3), 0.5), one)))
    assert [scale.shape for scale in found] == [(points, width) for width in network.channels]
    found[0].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters()), "ranks wait for all gradients"
    assert all(value.isfinite().all() for value in network.state_dict().values())


def linear(before: int, after: int) -> int:
    return before * after + after


def test_spvcnn_has_the_originals_number_of_parameters() -> None:
    """Those of SPVNAS: MinkUNet with a stem of two convolutions of kernel size 3, and three layers of points."""
    minkunet = original_parameters((2,) * 8, (32, 64, 128, 256, 256, 128, 96, 96), inputs=4)
    stems = 27 * 4 * 32 + 27 * 32 * 32 + 4 * 32 - (125 * 4 * 32 + 2 * 32)
    points = sum(linear(before, after) + 2 * after for before, after in ((32, 256), (256, 128), (128, 96)))
    found = sum(parameter.numel() for parameter in BUILDERS["spvcnn"](4).parameters())
    assert found == minkunet + stems + points
    assert f"{found / 1e6:.1f}" == "21.8", "the paper's number, which includes the class head"


def test_the_spvcnn_of_2dpass_has_the_originals_number_of_parameters() -> None:
    """But for the heads: 10 inputs of a point, hidden width 64, four scales."""
    block = 2 * 27 * 64 * 64 + 64 * 64 + 3 * 2 * 64
    around = linear(64, 32) + 2 * 32 + linear(32, 32) + 2 * 32 + linear(32, 64)
    scale = 2 * block + linear(64, 64) + around + linear(128, 64) + linear(64, 64)
    expected = linear(10, 64) + linear(64, 64) + 4 * scale
    assert sum(parameter.numel() for parameter in BUILDERS["spvcnn-2dpass"](4).parameters()) == expected
