"""Instances and their labels: clustering, regions, affinity and point labels, by hand-computed cases."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cache_schemas.taxonomy import IGNORE
from labelgen.instances.affinity import affinity, class_probabilities, classify, propagate
from labelgen.instances.clustering import find_instances
from labelgen.instances.point_labels import label_points
from labelgen.instances.regions import PairedPixels, score_regions
from labelgen.settings import InstanceSettings

SETTINGS = InstanceSettings(enabled=True, sensor_height_m=1.8)


def box(centre: tuple[float, float, float], size: float, points: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-size / 2, size / 2, (points, 3)).astype(np.float32) + np.float32(centre)


def street() -> tuple[np.ndarray, list[slice]]:
    """Flat ground 1.8 m below the sensor, and two boxes on it, 6 m apart."""
    x, y = np.meshgrid(np.linspace(-30, 30, 120), np.linspace(-30, 30, 120))
    ground = np.stack([x.ravel(), y.ravel(), np.full(x.size, -1.8)], axis=1).astype(np.float32)
    first, second = box((8, 0, -0.6), 1.5, 300, 0), box((8, 6, -0.6), 1.5, 200, 1)
    return np.concatenate([ground, first, second]), [slice(14_400, 14_700), slice(14_700, 14_900)]


# Clustering


@pytest.mark.parametrize("intensity", [None, np.full(14_900, 0.3, np.float32)])
def test_two_boxes_on_the_ground_are_two_instances(intensity) -> None:
    xyz, (first, second) = street()
    ids = find_instances(xyz, intensity, SETTINGS)
    assert np.bincount(ids[first]).argmax() > 0 and np.bincount(ids[second]).argmax() > 0
    assert np.bincount(ids[first]).argmax() != np.bincount(ids[second]).argmax()
    assert (ids[:14_400] == 0).mean() > 0.95
    for part in (first, second):
        assert (ids[part] == np.bincount(ids[part]).argmax()).mean() > 0.8


@pytest.mark.parametrize("points", [0, 1, 19])
def test_few_points_are_no_instance(points: int) -> None:
    assert find_instances(box((5, 0, 0), 1, points, 0), None, SETTINGS).tolist() == [0] * points


# Regions


def pairs(*rows: tuple[int, int, int, int]) -> PairedPixels:
    return PairedPixels(*np.array(rows).T)


def flat_logits(*scores: list[float]) -> np.ndarray:
    """One patch an image, so that every pixel of an image has the same score: (I, C, 1, 1)."""
    return np.array(scores, np.float32)[:, :, None, None]


def test_scores_are_averaged_over_the_pixels_of_all_views() -> None:
    """Instance 1 has two pixels in image 0 and one in image 1; a pixel with two of its points counts once."""
    found = score_regions(
        np.array([1, 1, 1, 0, 2]),
        3,
        pairs((0, 0, 0, 0), (1, 0, 0, 1), (2, 0, 0, 1), (0, 1, 1, 1), (3, 1, 0, 0)),
        flat_logits([0.9, 0.3], [0.0, 0.6]),
        np.zeros((2, 2, 2), np.uint16),
    )
    assert found.pixels.tolist() == [3, 0, 0]
    assert_allclose(found.scores, [[0.6, 0.4], [0, 0], [0, 0]], rtol=1e-6)


def test_a_mask_that_agrees_gives_the_score_of_all_its_pixels() -> None:
    """The instance has two pixels of the left mask's four; columns 0 and 1 of the picture have other scores."""
    logits = np.array([[[[1.0, 0.0]], [[0.0, 1.0]]]], np.float32)  # class 0 left, class 1 right
    masks = np.array([[[1, 1, 0, 0], [1, 1, 0, 0]]], np.uint16)
    both = pairs((0, 0, 0, 0), (1, 0, 1, 0))
    with_mask = score_regions(np.array([1, 1]), 1, both, logits, masks)
    # Scores of columns 0..3 at width 4 from 2 patches: 1, 0.75, 0.25, 0. The mask covers columns 0 and 1.
    assert_allclose(with_mask.scores, [[0.875, 0.125]], rtol=1e-6)
    without = score_regions(np.array([1, 1]), 1, both, logits, np.zeros_like(masks))
    assert_allclose(without.scores, [[1, 0]], rtol=1e-6)


def test_a_mask_shared_by_two_instances_gives_neither_its_score() -> None:
    logits = np.array([[[[1.0, 0.0]], [[0.0, 1.0]]]], np.float32)
    masks = np.ones((1, 2, 4), np.uint16)
    found = score_regions(np.array([1, 2]), 2, pairs((0, 0, 0, 0), (1, 0, 0, 3)), logits, masks)
    assert_allclose(found.scores, [[1, 0], [0, 1]], atol=1e-6)


# Affinity


def test_one_step_is_the_identity_and_two_steps_multiply_once() -> None:
    labels = np.array([[1.0, 0.0], [0.2, 0.8]])
    weights = np.array([[0.5, 0.5], [0.25, 0.75]])
    assert propagate(labels, weights, 1) is labels
    assert_allclose(propagate(labels, weights, 2), [[0.6, 0.4], [0.4, 0.6]])
    assert_allclose(propagate(labels, weights, 3), [[0.5, 0.5], [0.45, 0.55]])


def test_affinity_is_the_formula_with_rows_of_sum_one() -> None:
    """Two classes; centred scores (-0.1, 0.1), (0.1, -0.1), so the cosine is -1. Sides differ by a factor e in x."""
    weights = affinity(np.array([[0.2, 0.4], [0.4, 0.2]]), np.array([[1, 1, 1], [np.e, 1, 1]]))
    other = np.exp(-2 / 0.2 - 0.5)
    assert_allclose(weights, np.array([[1, other], [other, 1]]) / (1 + other))


def test_probabilities_are_a_softmax() -> None:
    odds = np.exp(20 * 0.1)
    assert_allclose(class_probabilities(np.array([[0.3, 0.2]])), [[odds / (1 + odds), 1 / (1 + odds)]])


def test_an_odd_one_out_takes_the_label_of_its_likes() -> None:
    """Four instances of one size; three are surely class 0, one leans to class 1 by little."""
    scores = np.array([[0.30, 0.20, 0.0], [0.30, 0.20, 0.0], [0.30, 0.20, 0.0], [0.249, 0.25, 0.0], [0.0, 0.1, 0.4]])
    sides, pixels = np.ones((5, 3)), np.full(5, 9)
    assert classify(scores, pixels, sides, 1, IGNORE).tolist() == [0, 0, 0, 1, 2]
    assert classify(scores, pixels, sides, 2, IGNORE).tolist() == [0, 0, 0, 0, 2]


def test_an_instance_that_no_pixel_sees_has_no_class_and_changes_no_other() -> None:
    scores, sides = np.array([[0.3, 0.2], [0.0, 0.0], [0.2, 0.3]]), np.ones((3, 3))
    found = classify(scores, np.array([4, 0, 4]), sides, 2, IGNORE)
    alone = classify(scores[[0, 2]], np.array([4, 4]), sides[[0, 2]], 2, IGNORE)
    assert found.tolist() == [alone[0], IGNORE, alone[1]]
    assert classify(scores[:0], np.array([], int), sides[:0], 2, IGNORE).tolist() == []


# Labels of points


def test_points_take_the_class_of_things_and_of_unseen_parts() -> None:
    is_thing = np.array([True, False])
    instance = np.array([1, 1, 2, 2, 0, 0, 3])
    classes = np.array([0, 1, IGNORE], np.uint8)
    pixel = np.array([1, IGNORE, 0, IGNORE, 1, IGNORE, 1], np.uint8)
    assert label_points(instance, classes, pixel, is_thing).tolist() == [0, 0, 0, 1, 1, IGNORE, 1]
