"""The vote by mean scores, and the confidence of labels, by hand and against loops."""

import numpy as np
import pytest

from labelgen.confidence import as_bytes, confidence_of_images, confidence_of_points
from labelgen.labelling import ImageLabels, label_images, vote_in_masks
from labelgen.settings import VoteSettings, shaping

CAR, ROAD, TREE = 0, 1, 2


def test_the_mean_of_scores_can_win_against_the_most_labels() -> None:
    scores = np.zeros((1, 3, 1, 4), np.float32)
    scores[0, CAR] = [[0.5, 0.5, -0.9, 0.0]]
    scores[0, ROAD] = [[0.4, 0.4, 0.9, 0.0]]
    labels, mask_ids = np.array([[[CAR, CAR, ROAD, TREE]]], np.uint8), np.array([[[2, 2, 2, 0]]], np.uint16)
    assert vote_in_masks(labels, mask_ids, scores).tolist() == [[[CAR, CAR, CAR, TREE]]]
    assert vote_in_masks(labels, mask_ids, scores, "mean").tolist() == [[[ROAD, ROAD, ROAD, TREE]]]
    scores[0, CAR] = scores[0, ROAD]  # of equal means the lower id wins
    assert vote_in_masks(labels, mask_ids, scores, "mean").tolist() == [[[CAR, CAR, CAR, TREE]]]


def test_the_vote_by_mean_equals_a_loop_over_masks() -> None:
    rng = np.random.default_rng(0)
    scores = (rng.integers(-40, 41, (2, 5, 6, 7)) / 64).astype(np.float32)
    mask_ids = (rng.integers(0, 6, (2, 6, 7)) * 300).astype(np.uint16)
    found = label_images(scores, mask_ids, "mean")
    for raw, voted, masks, own in zip(found.raw, found.refined, mask_ids, scores, strict=True):
        np.testing.assert_array_equal(voted[masks == 0], raw[masks == 0])
        for mask in set(masks.ravel().tolist()) - {0}:
            means = own[:, masks == mask].astype(np.float64).mean(axis=1)
            assert set(voted[masks == mask].tolist()) == {int(means.argmax())}


def test_confidence_in_a_mask_is_the_share_of_the_vote_and_half_the_probability_elsewhere() -> None:
    scores = np.full((1, 2, 1, 6), -1, np.float32)
    scores[0, CAR, 0] = [0.3, 0.3, 0.3, 0.1, 0.1, 0.1]
    scores[0, ROAD, 0] = [0.1, 0.1, 0.1, 0.3, 0.1, 0.1 + np.log(3) / 100]
    mask_ids = np.array([[[1, 1, 1, 1, 0, 0]]], np.uint16)
    images = label_images(scores, mask_ids)
    assert images.refined.tolist() == [[[CAR, CAR, CAR, CAR, CAR, ROAD]]]
    # Three of four pixels of the mask voted for it. Elsewhere the probabilities are 1/2 and 3/4.
    expected = [[[0.75, 0.75, 0.75, 0.75, 0.25, 0.375]]]
    np.testing.assert_allclose(confidence_of_images(images, mask_ids, scores), expected, atol=1e-6)


def test_confidence_of_a_point_is_the_mean_of_its_views_and_views_that_disagree_count_0() -> None:
    images = np.array([[[CAR, ROAD]], [[CAR, TREE]], [[ROAD, TREE]]], np.uint8)
    sure = np.array([[[0.8, 0.5]], [[0.6, 0.3]], [[0.9, 0.2]]], np.float32)
    # Point 0 sees car, car and road; point 1 tree; point 2 nothing.
    point, image, row, col = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0], [1, 1, 0, 1]]).T
    points = np.array([CAR, TREE, 255], np.uint8)
    found = confidence_of_points(points, images, sure, point, image, row, col)
    np.testing.assert_allclose(found, [(0.8 + 0.6) / 3, 0.3, 0], atol=1e-6)
    assert as_bytes(found).tolist() == [round(255 * 1.4 / 3), round(255 * 0.3), 0]


@pytest.mark.parametrize("chosen, shaped", [({}, {}), ({"vote": "mean"}, {"vote": "mean"})], ids=str)
def test_only_settings_that_are_not_at_their_default_enter_fingerprints(chosen: dict, shaped: dict) -> None:
    assert shaping(VoteSettings.model_validate(chosen)) == shaped


def test_labels_are_those_of_images_without_masks_and_confidence_stays_below_half() -> None:
    rng = np.random.default_rng(1)
    scores = rng.uniform(-1, 1, (2, 4, 3, 3)).astype(np.float16)
    nothing = np.zeros((2, 6, 6), np.uint16)
    images: ImageLabels = label_images(scores, nothing, "mean")
    np.testing.assert_array_equal(images.raw, images.refined)
    sure = confidence_of_images(images, nothing, scores)
    assert sure.max() <= 0.5 and sure.min() > 0
