"""The networks: shapes, sizes, and sparse convolutions that are what dense ones are."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.nn import functional

from trainer.errors import TrainerError
from trainer.networks.at_once import at_once
from trainer.networks.cloud import SHAPES, MinkUNet
from trainer.networks.image import BUILDERS, build_image_network, load_backbone
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
    found = sum(parameter.numel() for parameter in MinkUNet(SHAPES[name]).parameters())
    assert found == original_parameters(blocks, inputs=2)


def cloud(seed: int = 0, voxels: int = 300, side: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    cells = np.unique(rng.integers(0, [2, side, side, side], (voxels, 4)), axis=0).astype(np.int32)
    return torch.from_numpy(rng.normal(size=(len(cells), 2)).astype(np.float32)), torch.from_numpy(cells)


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
    network = MinkUNet(SHAPES[name])
    found = network(features, voxels, 2)
    assert found.shape == (len(voxels), network.channels)
    found.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    features, voxels = cloud()
    network = MinkUNet(SHAPES["small"])
    joint = network(features, voxels, 2)
    first = voxels[:, 0] == 0
    # Norms of the small network do not depend on the batch, so a sample alone gives the same.
    torch.testing.assert_close(network(features[first], voxels[first], 1), joint[first], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", BUILDERS)
def test_image_networks_give_features_on_a_grid(name: str) -> None:
    network = build_image_network(name, None).eval()
    stride = 16 if name == "deeplabv3-mobilenet" else 8
    rgb = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        found = network(rgb)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(rgb)
    assert found.shape == (2, network.channels, 64 // stride, 96 // stride)
    assert rough.shape == found.shape and rough.isfinite().all()


def test_backbone_weights_load_as_torchvision_names_them(tmp_path) -> None:
    from torchvision.models import resnet50

    state = resnet50(weights=None).state_dict()
    torch.save(state, tmp_path / "resnet50.pth")
    network = build_image_network("deeplabv3-resnet50", tmp_path / "resnet50.pth")
    torch.testing.assert_close(network.body.backbone.layer4[2].conv3.weight, state["layer4.2.conv3.weight"])
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(TrainerError, match=r"short\.pth: 1 of \d+ tensors are missing, such as layer1"):
        load_backbone(network, tmp_path / "short.pth")


def test_pickled_weights_do_not_run(tmp_path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (print, ("run",))

    torch.save({"w": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(TrainerError, match=r"evil\.pth"):
        build_image_network("deeplabv3-mobilenet", tmp_path / "evil.pth")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_networks_at_once_learn_what_they_learn_in_turn() -> None:
    torch.manual_seed(0)
    image, (features, voxels) = build_image_network("small", None), cloud()
    points, head = MinkUNet(SHAPES["small"]), torch.nn.Linear(96, 3)
    rgb = torch.randint(0, 256, (2, 3, 48, 80), dtype=torch.uint8)
    ran_in = []

    def of_pixels() -> tuple[torch.Tensor, ...]:
        grid = image(rgb)
        ran_in.append((threading.get_ident(), torch.get_num_threads()))
        return grid, head(grid.mean(dim=(2, 3)))

    def of_points() -> tuple[torch.Tensor, ...]:
        ran_in.append((threading.get_ident(), torch.get_num_threads()))
        return (points(features, voxels, 2),)

    def learned(*made: torch.Tensor) -> list[torch.Tensor]:
        grid, short, of_voxels = made
        loss = grid.square().mean() + short.sum() * of_voxels.mean() + of_voxels.square().mean()
        modules = torch.nn.ModuleList([image, head, points])
        modules.zero_grad()
        loss.backward()
        return [loss.detach(), *(parameter.grad.clone() for parameter in modules.parameters())]

    found = learned(*at_once(of_pixels, of_points, torch.device("cpu")))
    assert len({thread for thread, _ in ran_in}) == 2
    assert {threads for _, threads in ran_in} == {1}
    assert torch.get_num_threads() == 2
    for ours, expected in zip(found, learned(*of_pixels(), *of_points()), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        assert not any(part.requires_grad for part in at_once(of_pixels, of_points, torch.device("cpu")))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_either_of_two_networks_is_raised_and_leaves_the_threads_as_they_were(failing: int) -> None:
    def fails() -> tuple[torch.Tensor, ...]:
        raise RuntimeError("cannot allocate memory")

    works = [lambda: (torch.ones(1, requires_grad=True) * 2,)] * 2
    works[failing] = fails
    with pytest.raises(RuntimeError, match="cannot allocate memory"):
        at_once(*works, torch.device("cpu"))
    assert torch.get_num_threads() == 2
