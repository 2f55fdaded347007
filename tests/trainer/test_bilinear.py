"""Bilinear sampling is torch's grid_sample at positions of several images."""

import torch
from torch.nn import functional

from trainer.networks.bilinear import sample_bilinear


def test_sampling_is_grid_sample_at_pixel_centres() -> None:
    torch.manual_seed(0)
    grid = torch.randn(3, 5, 7, 4, requires_grad=True)
    image, position = torch.randint(3, (200,)), torch.rand(200, 2)
    found = sample_bilinear(grid, image, position)
    wanted = torch.stack([2 * position[:, 1] - 1, 2 * position[:, 0] - 1], dim=1)
    expected = torch.stack(
        [
            functional.grid_sample(
                grid[i].permute(2, 0, 1)[None], xy[None, None, None], padding_mode="border", align_corners=False
            )[0, :, 0, 0]
            for i, xy in zip(image.tolist(), wanted, strict=True)
        ]
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(found.square().sum(), grid, retain_graph=True)
    (reference,) = torch.autograd.grad(expected.square().sum(), grid)
    torch.testing.assert_close(gradient, reference, atol=1e-4, rtol=1e-4)


def test_sampling_works_on_a_grid_of_one_cell_and_for_no_pairs() -> None:
    grid = torch.tensor([[[[3.0, 4.0]]]])
    assert sample_bilinear(grid, torch.zeros(2, dtype=torch.int64), torch.rand(2, 2)).tolist() == [[3, 4], [3, 4]]
    assert sample_bilinear(grid, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2)).shape == (0, 2)


def test_only_the_valid_part_of_a_padded_grid_is_sampled() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(1, rows, columns, 4) for rows, columns in ((3, 7), (5, 2), (5, 7))]
    padded = torch.full((3, 5, 7, 4), torch.inf)
    for grid, part in zip(padded, parts, strict=True):
        grid[: part.shape[1], : part.shape[2]] = part[0]
    image, position = torch.randint(3, (300,)), torch.rand(300, 2)
    position[:40] = torch.tensor([0.0, 1.0])[torch.randint(2, (40, 2))]
    found = sample_bilinear(padded, image, position, torch.tensor([part.shape[1:3] for part in parts]))
    for number, part in enumerate(parts):
        own = image == number
        expected = sample_bilinear(part, torch.zeros(int(own.sum()), dtype=torch.int64), position[own])
        torch.testing.assert_close(found[own], expected)
