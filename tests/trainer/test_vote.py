"""Equation 4, the vote within masks: by hand and against a loop over masks."""

import numpy as np
import torch

from trainer.vote import refine_pixels, refine_points, vote_in_masks


def test_a_mask_takes_the_label_most_of_its_pixels_have() -> None:
    labels = torch.tensor([[[2, 2, 0, 1], [1, 0, 0, 1]]], dtype=torch.uint8)
    masks = torch.tensor([[[1, 1, 2, 2], [1, 2, 2, 0]]], dtype=torch.int32)
    refined = refine_pixels(labels, masks, mask_count=3, classes=3)
    assert refined.tolist() == [[[2, 2, 0, 0], [2, 0, 0, 1]]]
    assert refined.dtype == torch.uint8


def test_masks_of_two_images_vote_separately() -> None:
    labels = torch.tensor([[[0, 0, 1]], [[1, 1, 0]]], dtype=torch.uint8)
    masks = torch.ones(2, 1, 3, dtype=torch.int32)
    assert refine_pixels(labels, masks, 2, 2).tolist() == [[[0, 0, 0]], [[1, 1, 1]]]


def test_the_ignore_index_does_not_vote_but_is_filled_and_masks_without_votes_stay() -> None:
    labels = torch.tensor([255, 255, 1, 255, 0, 255], dtype=torch.uint8)
    masks, image = torch.tensor([1, 1, 1, 2, 0, 0]), torch.zeros(6, dtype=torch.int64)
    assert vote_in_masks(labels, masks, image, image_count=1, mask_count=3, classes=2).tolist() == [
        1,
        1,
        1,
        255,
        0,
        255,
    ]


def test_a_tie_goes_to_the_lowest_class_id() -> None:
    labels = torch.tensor([2, 1, 1, 2], dtype=torch.uint8)
    ones = torch.ones(4, dtype=torch.int64)
    assert vote_in_masks(labels, ones, ones, image_count=2, mask_count=2, classes=3).tolist() == [1, 1, 1, 1]


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


def test_points_take_the_label_that_most_points_in_their_first_mask_have() -> None:
    """Points 0 to 2 are in mask 1 and point 0 also in no mask of image 1; no camera sees point 3."""
    labels = torch.tensor([2, 1, 1, 2], dtype=torch.uint8)
    point, image, mask = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 0, 0, 1]), torch.tensor([1, 1, 1, 0])
    refined = refine_points(labels, point, image, mask, image_count=2, mask_count=2, classes=3)
    assert refined.tolist() == [1, 1, 1, 2] and refined.dtype == torch.uint8
