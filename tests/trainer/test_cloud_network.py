"""The 3D network: its size, and sparse convolutions against dense ones."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from trainer.networks.minkunet import SHAPES, MinkUNet
from trainer.networks.point_cloud import Cloud, CloudNetwork
from trainer.networks.sparse import ALGORITHM, spconv

ORIGINAL_PLANES = (32, 64, 128, 256, 256, 128, 96, 96)


def original_parameters(blocks: tuple[int, ...], inputs: int) -> int:
    """Count the parameters of Choy et al.'s MinkUNet with 32 stem channels, but for its last, classifying layer."""

    def block(before: int, after: int) -> int:
        own = 27 * before * after + 27 * after * after + 4 * after
        return own + (before * after + 2 * after if before != after else 0)

    def stage(before: int, after: int, number: int) -> int:
        return block(before, after) + (number - 1) * block(after, after)

    total, width, skips = 125 * inputs * 32 + 2 * 32, 32, [32]
    for after, number in zip(ORIGINAL_PLANES[:4], blocks[:4], strict=True):
        total += 8 * width * width + 2 * width + stage(width, after, number)
        width = after
        skips.append(after)
    for after, number, skip in zip(ORIGINAL_PLANES[4:], blocks[4:], skips[-2::-1], strict=True):
        total += 8 * width * after + 2 * after + stage(after + skip, after, number)
        width = after
    return total


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("minkunet14", (1,) * 8),
        ("minkunet18", (2,) * 8),
        ("minkunet34", (2, 3, 4, 6, 2, 2, 2, 2)),
    ],
)
def test_minkunets_have_the_originals_number_of_parameters(name: str, blocks: tuple[int, ...]) -> None:
    found = sum(parameter.numel() for parameter in MinkUNet(SHAPES[name], 2).parameters())
    assert found == original_parameters(blocks, inputs=2)


def cloud(seed: int = 0, voxels: int = 300, side: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    cells = np.unique(rng.integers(0, [2, side, side, side], (voxels, 4)), axis=0).astype(np.int32)
    return torch.from_numpy(rng.normal(size=(len(cells), 2)).astype(np.float32)), torch.from_numpy(cells)


def features_of(network: CloudNetwork, features: torch.Tensor, voxels: torch.Tensor, samples: int) -> torch.Tensor:
    (found,) = network(Cloud(voxels, features, torch.arange(len(voxels)), samples))
    return found.features


def dense(features: torch.Tensor, voxels: torch.Tensor, side: int) -> torch.Tensor:
    grid = torch.zeros(2, features.shape[1], side, side, side)
    b, z, y, x = voxels.long().T
    grid[b, :, z, y, x] = features
    return grid


@pytest.mark.parametrize("kernel", [3, 5])
def test_sparse_convolution_is_dense_convolution_at_occupied_voxels(kernel: int) -> None:
    features, voxels = cloud()
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


@pytest.mark.parametrize("name", ["small", "minkunet14"])
def test_every_voxel_gets_features_and_every_weight_a_gradient(name: str) -> None:
    features, voxels = cloud()
    network = MinkUNet(SHAPES[name], 2)
    found = features_of(network, features, voxels, 2)
    assert found.shape == (len(voxels), *network.channels)
    found.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("side", [5, 7, 12, 13])
@pytest.mark.parametrize("name", ["small", "minkunet14"])
def test_a_sample_alone_has_the_features_that_it_has_in_any_batch(name: str, side: int) -> None:
    features, voxels = cloud(side=side)
    network = MinkUNet(SHAPES[name], 2).eval()  # in training, batch norms do depend on the batch
    first = voxels[:, 0] == 0
    alone = features_of(network, features[first], voxels[first], 1)
    for far in (0, 3, 16):  # the other sample makes the extent of the batch larger
        other = voxels + torch.tensor([0, far, far, far], dtype=torch.int32)
        joint = features_of(network, features, torch.where(first[:, None], voxels, other), 2)
        torch.testing.assert_close(joint[first], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [3, 5, 7, 12])
def test_every_voxel_has_a_parent_at_every_level(side: int) -> None:
    """The last planes of odd extents included; the parents of a voxel are its coordinates halved and rounded down."""
    features, voxels = cloud(side=side)
    network = MinkUNet(SHAPES["small"], 2)
    found: list[torch.Tensor] = []
    for down in network.down:
        down.register_forward_hook(lambda module, inputs, output: found.append(output.indices))
    features_of(network, features, voxels, 2)
    for level, indices in enumerate(found, start=1):
        parents = torch.cat([voxels[:, :1], voxels[:, 1:] // 2**level], dim=1).unique(dim=0)
        assert indices.unique(dim=0).tolist() == parents.tolist()


@pytest.mark.parametrize("voxels", [0, 1])
@pytest.mark.parametrize("name", ["small", "minkunet14"])
def test_a_cloud_of_no_or_one_voxel_is_trained_on(name: str, voxels: int) -> None:
    network = MinkUNet(SHAPES[name], 2)
    found = features_of(network, torch.ones(voxels, 2), torch.zeros(voxels, 4, dtype=torch.int32), 1)
    assert found.shape == (voxels, *network.channels)
    found.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters()), "ranks wait for all gradients"
    assert all(value.isfinite().all() for value in network.state_dict().values())
