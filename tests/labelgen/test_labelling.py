"""From scores and masks to labels: upsampling, the vote in masks, and labels for points, against loops and by hand."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelgen.labelling import ImageLabels, classify, label_images, transfer_to_points, upsample_scores, vote_in_masks

CAR, ROAD, TREE = 0, 1, 2


# Upsampling


@pytest.mark.parametrize(
    "grid, size",
    [
        *(((14, 26), (224, 416)), ((3, 5), (7, 11)), ((5, 3), (5, 3)), ((4, 7), (9, 8)), ((1, 1), (3, 4))),
        *(((1, 6), (5, 6)), ((9, 10), (4, 3)), ((7, 13), (225, 101))),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_upsampling_is_torchs_bilinear_with_pixel_areas_aligned(
    grid: tuple[int, int], size: tuple[int, int], dtype: type
) -> None:
    logits = np.random.default_rng(0).normal(size=(2, 3, *grid)).astype(dtype)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(logits).double(), size=size, mode="bilinear", align_corners=False
    )
    found = upsample_scores(logits, size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


def test_upsampling_two_columns_to_four_by_hand() -> None:
    # Centres of the four lie at -0.25, 0.25, 0.75 and 1.25 of the two: clamped at the borders.
    assert upsample_scores(np.array([[[[0.0, 4.0]]]]), (1, 4)).tolist() == [[[[0, 1, 3, 4]]]]


# Classes


def test_a_pixel_gets_the_class_of_its_highest_score_and_the_lower_id_of_equals() -> None:
    scores = np.array([[[[0.1, 0.5, -0.3]], [[0.3, 0.5, -0.2]], [[0.2, 0.5, -0.2]]]], np.float32)
    labels, best = classify(scores, (1, 3))
    assert labels.tolist() == [[[1, 0, 1]]]
    assert best.tolist() == np.array([[[0.3, 0.5, -0.2]]], np.float32).tolist()
    assert labels.dtype == np.uint8 and best.dtype == np.float32


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 17), st.sampled_from([(7, 11), (3, 4), (2, 2)]))
def test_classes_are_the_argmax_of_upsampled_scores(seed: int, classes: int, size: tuple[int, int]) -> None:
    logits = np.random.default_rng(seed).normal(size=(2, classes, 3, 4)).astype(np.float16)
    scores = upsample_scores(logits, size)
    labels, best = classify(logits, size)
    np.testing.assert_array_equal(labels, scores.argmax(axis=1).astype(np.uint8), strict=True)
    np.testing.assert_array_equal(best, scores.max(axis=1), strict=True)


# The vote in masks, by hand


def vote(labels: list, mask_ids: list, scores: np.ndarray | None = None, classes: int = 3) -> list:
    """Vote in one picture, with scores of 0 unless told."""
    found = np.array([labels], np.uint8)
    if scores is None:
        scores = np.zeros((1, classes, *found.shape[1:]), np.float32)
    return vote_in_masks(found, np.array([mask_ids], np.uint16), scores)[0].tolist()


def test_all_pixels_of_a_mask_get_the_class_that_most_of_them_have() -> None:
    labels = [[CAR, CAR, TREE, ROAD], [ROAD, CAR, TREE, TREE]]
    mask_ids = [[1, 1, 2, 2], [1, 1, 2, 2]]
    assert vote(labels, mask_ids) == [[CAR, CAR, TREE, TREE], [CAR, CAR, TREE, TREE]]


def test_a_mask_in_several_pieces_votes_as_one() -> None:
    assert vote([[CAR, TREE, ROAD, CAR, TREE]], [[1, 1, 0, 1, 2]]) == [[CAR, CAR, ROAD, CAR, TREE]]


def test_pixels_under_no_mask_keep_their_label() -> None:
    labels = [[CAR, ROAD, TREE, TREE, TREE, ROAD]]
    assert vote(labels, [[0, 0, 0, 0, 0, 0]]) == labels
    assert vote(labels, [[0, 3, 0, 3, 3, 0]]) == [[CAR, TREE, TREE, TREE, TREE, ROAD]]


def test_equal_votes_go_to_the_higher_score_summed_over_the_whole_mask() -> None:
    scores = np.array([[[[0.9, 0.1, 0.5]], [[0.2, 0.3, 0.0]], [[0.0, 0.8, 0.0]]]], np.float32)
    # Sums over the mask's two pixels: car 1.0, road 0.5, tree 0.8; the third pixel does not count.
    assert vote([[CAR, TREE, ROAD]], [[1, 1, 0]], scores) == [[CAR, CAR, ROAD]]
    scores[0, TREE, 0, 0] = 0.3
    assert vote([[CAR, TREE, ROAD]], [[1, 1, 0]], scores) == [[TREE, TREE, ROAD]]


def test_a_class_without_the_most_votes_does_not_win_by_its_score() -> None:
    scores = np.zeros((1, 3, 1, 3), np.float32)
    scores[0, ROAD] = 100
    assert vote([[CAR, TREE, CAR]], [[1, 1, 1]], scores) == [[CAR, CAR, CAR]]
    scores[0, CAR], scores[0, TREE] = 1, 2
    assert vote([[CAR, TREE, ROAD]], [[1, 1, 2]], scores) == [[TREE, TREE, ROAD]]


def test_equal_votes_and_equal_scores_go_to_the_lower_id() -> None:
    assert vote([[TREE, ROAD]], [[1, 1]]) == [[ROAD, ROAD]]
    assert vote([[TREE, CAR, ROAD]], [[7, 7, 7]]) == [[CAR, CAR, CAR]]


def test_masks_of_one_id_in_two_pictures_do_not_mix() -> None:
    labels = np.array([[[CAR, CAR, TREE]], [[TREE, TREE, CAR]]], np.uint8)
    mask_ids = np.ones((2, 1, 3), np.uint16)
    found = vote_in_masks(labels, mask_ids, np.zeros((2, 3, 1, 3), np.float32))
    assert found.tolist() == [[[CAR, CAR, CAR]], [[TREE, TREE, TREE]]]


def test_ties_in_two_pictures_are_broken_by_each_ones_own_scores() -> None:
    labels = np.array([[[CAR, TREE]], [[CAR, TREE]]], np.uint8)
    scores = np.zeros((2, 3, 1, 2), np.float32)
    scores[0, TREE] = 1
    scores[1, CAR] = 1
    found = vote_in_masks(labels, np.ones((2, 1, 2), np.uint16), scores)
    assert found.tolist() == [[[TREE, TREE]], [[CAR, CAR]]]


# The vote in masks, against a loop


def voted(labels: np.ndarray, mask_ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
    found = labels.copy()
    for image in range(len(labels)):
        for mask in set(mask_ids[image].ravel().tolist()) - {0}:
            inside = mask_ids[image] == mask
            votes = Counter(labels[image][inside].tolist())
            most = max(votes.values())
            sums = scores[image][:, inside].astype(np.float64).sum(axis=1)
            best = max((sums[label], -label) for label, count in votes.items() if count == most)
            found[image][inside] = -best[1]
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 17),
    st.sampled_from([0, 1, 2, 5, 40]),
)
def test_the_vote_equals_a_loop_over_masks(seed: int, shape: tuple[int, int, int], classes: int, masks: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, shape).astype(np.uint8)
    mask_ids = rng.integers(0, masks + 1, shape).astype(np.uint16) * rng.choice([1, 300])
    # Scores in quarters are summed without rounding, so that equal sums are equal here and there.
    scores = (rng.integers(-4, 5, (shape[0], classes, *shape[1:])) / 4).astype(np.float32)
    found = vote_in_masks(labels, mask_ids.astype(np.uint16), scores)
    np.testing.assert_array_equal(found, voted(labels, mask_ids, scores), strict=True)


# Whole pictures


def test_whole_pictures_are_labelled_as_by_torch_and_a_loop_over_masks() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 4, 3, 4)).astype(np.float16)
    mask_ids = rng.integers(0, 15, (5, 7, 9)).astype(np.uint16)
    scores = torch.nn.functional.interpolate(
        torch.from_numpy(logits).double(), size=(7, 9), mode="bilinear", align_corners=False
    ).numpy()
    found = label_images(logits, mask_ids)
    raw = scores.argmax(axis=1).astype(np.uint8)
    np.testing.assert_array_equal(found.raw, raw, strict=True)
    np.testing.assert_array_equal(found.refined, voted(raw, mask_ids, scores), strict=True)
    np.testing.assert_allclose(found.best, scores.max(axis=1), atol=2e-6)
    # Masks this small tie often, so that the scores between patches have decided some.
    assert (found.refined != voted(raw, mask_ids, np.zeros_like(scores))).any()


# Points


def two_views(best_left: float, best_right: float) -> ImageLabels:
    """Return two pictures of 1x2 pixels; pixel (0, 1) of the left and (0, 0) of the right are told apart by score."""
    return ImageLabels(
        raw=np.array([[[CAR, ROAD]], [[TREE, ROAD]]], np.uint8),
        refined=np.array([[[CAR, CAR]], [[ROAD, ROAD]]], np.uint8),
        best=np.array([[[0.2, best_left]], [[best_right, 0.4]]], np.float32),
    )


@pytest.mark.parametrize(
    "best_left, best_right, raw, refined",
    [(0.9, 0.3, ROAD, CAR), (0.3, 0.9, TREE, ROAD), (0.5, 0.5, ROAD, CAR), (-0.5, -0.2, TREE, ROAD)],
    ids=["left", "right", "equal: the earlier", "below zero"],
)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]], ids=str)
def test_of_two_cameras_the_higher_raw_score_gives_a_point_both_its_labels(
    best_left: float, best_right: float, raw: int, refined: int, order: list[int]
) -> None:
    # Point 3 is seen by both cameras, point 0 by the left and point 4 by the right one; 1 and 2 by none.
    pairs = np.array([[0, 0, 0, 0], [3, 0, 0, 1], [3, 1, 0, 0], [4, 1, 0, 1]])[order]
    found_raw, found_refined = transfer_to_points(two_views(best_left, best_right), 5, *pairs.T)
    assert found_raw.tolist() == [CAR, 255, 255, raw, ROAD]
    assert found_refined.tolist() == [CAR, 255, 255, refined, ROAD]
    assert found_raw.dtype == found_refined.dtype == np.uint8


def test_points_that_no_camera_sees_get_255() -> None:
    nothing = np.zeros(0, np.uint16)
    raw, refined = transfer_to_points(two_views(0.5, 0.5), 3, nothing.astype(np.int32), nothing, nothing, nothing)
    assert raw.tolist() == refined.tolist() == [255, 255, 255]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 20))
def test_labels_of_points_equal_a_loop_over_pairs(seed: int, points: int, pairs: int) -> None:
    rng = np.random.default_rng(seed)
    images = ImageLabels(
        raw=rng.integers(0, 4, (3, 4, 5)).astype(np.uint8),
        refined=rng.integers(0, 4, (3, 4, 5)).astype(np.uint8),
        best=(rng.integers(0, 4, (3, 4, 5)) / 4).astype(np.float32),
    )
    seen = sorted(rng.permutation(points * 3)[:pairs].tolist())  # at most one pair for each point and image
    point, image = np.array([divmod(number, 3) for number in seen], np.int64).reshape(-1, 2).T
    row, col = rng.integers(0, 4, len(seen)), rng.integers(0, 5, len(seen))
    expected = np.full((2, points), 255, np.uint8)
    for index in range(points):
        views = [
            (images.best[i, r, c], -i, r, c) for p, i, r, c in zip(point, image, row, col, strict=True) if p == index
        ]
        if views:
            _, minus_image, r, c = max(views)
            expected[:, index] = images.raw[-minus_image, r, c], images.refined[-minus_image, r, c]
    found = transfer_to_points(images, points, point, image, row, col)
    np.testing.assert_array_equal(found, expected)
