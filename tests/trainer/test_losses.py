"""Equations 4 to 7, by hand and against independent code."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from trainer.losses import class_scores, latent_loss, refine_pixels, sample, semantic_loss, vote

# Eq 4


def test_a_mask_takes_the_label_most_of_its_pixels_have() -> None:
    labels = torch.tensor([[[2, 2, 0, 1], [1, 0, 0, 1]]], dtype=torch.uint8)
    masks = torch.tensor([[[1, 1, 2, 2], [1, 2, 2, 0]]], dtype=torch.int32)
    refined = refine_pixels(labels, masks, masks=3, classes=3)
    assert refined.tolist() == [[[2, 2, 0, 0], [2, 0, 0, 1]]]
    assert refined.dtype == torch.uint8


def test_masks_of_two_pictures_vote_apart() -> None:
    labels = torch.tensor([[[0, 0, 1]], [[1, 1, 0]]], dtype=torch.uint8)
    masks = torch.ones(2, 1, 3, dtype=torch.int32)
    assert refine_pixels(labels, masks, 2, 2).tolist() == [[[0, 0, 0]], [[1, 1, 1]]]


def test_none_does_not_vote_but_is_filled_and_empty_votes_change_nothing() -> None:
    labels = torch.tensor([255, 255, 1, 255, 0, 255], dtype=torch.uint8)
    masks = torch.tensor([1, 1, 1, 2, 0, 0])
    assert vote(labels, masks, torch.zeros(6, dtype=torch.int64), (1, 3), 2).tolist() == [1, 1, 1, 255, 0, 255]


def test_of_equally_many_votes_the_lowest_class_wins() -> None:
    labels = torch.tensor([2, 1, 1, 2], dtype=torch.uint8)
    ones = torch.ones(4, dtype=torch.int64)
    assert vote(labels, ones, ones, (2, 2), 3).tolist() == [1, 1, 1, 1]


def test_the_vote_is_that_of_a_loop_over_masks() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (3, 20, 30)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.2] = 255
    masks = rng.integers(0, 12, (3, 20, 30)).astype(np.int32)
    expected = labels.copy()
    for picture in range(3):
        for mask in range(1, 12):
            inside = masks[picture] == mask
            expected[picture][inside] = np.bincount(labels[picture][inside], minlength=256)[:5].argmax()
    found = refine_pixels(torch.from_numpy(labels), torch.from_numpy(masks), 12, 5)
    np.testing.assert_array_equal(found.numpy(), expected)


# Eq 5 and 6


def test_semantic_loss_is_the_hand_computed_cross_entropy_of_labelled_elements() -> None:
    scores = torch.tensor([[0.0, math.log(3)], [5.0, -5.0], [math.log(4), 0.0]])
    found = semantic_loss(scores, torch.tensor([1, 255, 1], dtype=torch.uint8))
    assert found.count == 2
    assert found.total.item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 5), abs=1e-6)


def test_elements_count_as_much_as_their_class_weighs() -> None:
    scores = torch.tensor([[0.0, math.log(3)], [5.0, -5.0], [math.log(4), 0.0]])
    found = semantic_loss(scores, torch.tensor([1, 255, 0], dtype=torch.uint8), torch.tensor([0.5, 3.0]))
    assert found.count == 3.5
    assert found.total.item() == pytest.approx(-3 * math.log(3 / 4) - 0.5 * math.log(4 / 5), abs=1e-6)


def test_no_labels_give_a_zero_that_can_be_differentiated() -> None:
    scores = torch.zeros(4, 3, requires_grad=True)
    found = semantic_loss(scores, torch.full((4,), 255, dtype=torch.uint8))
    assert found.total.item() == 0 and found.count == 0
    found.total.backward()
    assert scores.grad.abs().sum() == 0


def test_scores_are_dot_products_of_mapped_features_with_text() -> None:
    torch.manual_seed(0)
    features, text = torch.randn(2, 7, 6), torch.randn(5, 8)
    layer = torch.nn.Linear(6, 8)
    expected = torch.stack([(layer(features) * t).sum(dim=-1) for t in text], dim=-1)
    torch.testing.assert_close(class_scores(features, layer.weight, layer.bias, text), expected)


# Eq 7


def test_latent_loss_is_one_minus_cosine_summed_over_pairs() -> None:
    features = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, -3.0]])
    teacher = torch.tensor([[5.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = latent_loss(features, teacher)
    assert found.count == 3
    assert found.total.item() == pytest.approx(0 + (1 - math.sqrt(0.5)) + 2, abs=1e-6)


def test_sampling_is_grid_sample_at_pixel_centres() -> None:
    torch.manual_seed(0)
    grid = torch.randn(3, 5, 7, 4, requires_grad=True)
    image, place = torch.randint(3, (200,)), torch.rand(200, 2)
    found = sample(grid, image, place)
    wanted = torch.stack([2 * place[:, 1] - 1, 2 * place[:, 0] - 1], dim=1)
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
    assert sample(grid, torch.zeros(2, dtype=torch.int64), torch.rand(2, 2)).tolist() == [[3, 4], [3, 4]]
    assert sample(grid, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2)).shape == (0, 2)
