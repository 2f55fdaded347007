"""Refinements of class scores against loops."""

import numpy as np
import pytest
import torch

from labelgen.teachers.clip.refinements import (
    denoise_prompts,
    expert_embeddings,
    purify_classes,
    smooth_by_keys,
    smooth_by_keys_as_released,
)
from labelgen.teachers.clip.teacher import ClipTeacher
from tests.labelgen.teachers.clip_reference import normalised, random_images, softmax, unit_rows, with_settings


def logits_of_mixed_certainty(batch: int, classes: int, grid: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(3).normal(scale=0.02, size=(batch, classes, *grid)).astype(np.float32)


def certainty_at(logits: np.ndarray, row: int, col: int) -> np.ndarray:
    return softmax(100 * logits[:, row, col].astype(np.float64), axis=0)


def denoised(logits: np.ndarray, threshold: float) -> np.ndarray:
    """Prompt denoising of one image's logits (C, h, w); an image that would lose every class keeps them."""
    found = logits.copy()
    for index in range(logits.shape[0]):
        places = [(row, col) for row in range(logits.shape[1]) for col in range(logits.shape[2])]
        if all(certainty_at(logits, row, col)[index] < threshold for row, col in places):
            found[index] = -1
    return logits if (found == -1).all() else found


def smoothed(logits: np.ndarray, keys: np.ndarray, threshold: float) -> np.ndarray:
    """Key smoothing of one image's logits (C, h, w) by its keys (K, h, w)."""
    found = logits.copy()
    places = [(row, col) for row in range(logits.shape[1]) for col in range(logits.shape[2])]
    for row, col in places:
        if certainty_at(logits, row, col).max() >= threshold:
            continue
        total, weights = np.zeros(logits.shape[0]), 0.0
        for other in places:
            a, b = keys[:, row, col], keys[:, other[0], other[1]]
            weight = max(0.0, float(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)))
            total += weight * logits[:, other[0], other[1]]
            weights += weight
        found[:, row, col] = total / weights
    return found


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_prompt_denoising_equals_a_loop(threshold: float) -> None:
    logits = logits_of_mixed_certainty(2, 7, (2, 3))
    expected = np.stack([denoised(image, threshold) for image in logits])
    assert 0 < (expected == -1).sum() < expected.size
    np.testing.assert_array_equal(denoise_prompts(torch.from_numpy(logits), threshold).numpy(), expected)


def test_prompt_denoising_by_hand() -> None:
    # Class 0 is sure at one position; class 1 nowhere (0.5 of two is not above 0.6); so class 1 goes everywhere.
    logits = torch.tensor([[[[0.9, 0.2]], [[0.1, 0.2]]]])
    assert denoise_prompts(logits, 0.6).tolist() == [[[[pytest.approx(0.9), pytest.approx(0.2)]], [[-1, -1]]]]


def test_prompt_denoising_keeps_an_image_whose_every_class_is_unsure() -> None:
    logits = torch.tensor([[[[0.1]], [[0.1]], [[0.1]]]])
    assert denoise_prompts(logits, 0.6).tolist() == logits.tolist()


@pytest.mark.parametrize("threshold", [0.4, 0.7, 1.0])
def test_key_smoothing_equals_a_loop(threshold: float) -> None:
    logits = logits_of_mixed_certainty(2, 5, (3, 4))
    keys = np.random.default_rng(4).normal(size=(2, 6, 3, 4)).astype(np.float32)
    expected = np.stack([smoothed(image, key, threshold) for image, key in zip(logits, keys, strict=True)])
    changed = (expected != logits).any(axis=1)
    assert changed.any() and (threshold == 1.0 or not changed.all())
    found = smooth_by_keys(torch.from_numpy(logits), torch.from_numpy(keys), threshold).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("smoothing, denoising", [(0.99, None), (None, 0.5), (0.9, 0.5)])
def test_settings_turn_refinements_on_denoising_first(
    clip_teachers: dict[str, ClipTeacher], smoothing: float | None, denoising: float | None
) -> None:
    teacher = with_settings(clip_teachers["toy-vit"], key_smoothing=smoothing, prompt_denoising=denoising)
    rgb, text = random_images(2, (64, 96)), unit_rows(8, 24)
    features, keys = (tensor.numpy() for tensor in teacher.dense(normalised(rgb)))
    plain = np.einsum("bdhw,cd->bchw", features, text)
    expected = plain
    if denoising is not None:
        expected = np.stack([denoised(image, denoising) for image in expected])
        assert (expected == -1).any() and (expected > -1).any()
    if smoothing is not None:
        expected = np.stack([smoothed(image, key, smoothing) for image, key in zip(expected, keys, strict=True)])
    assert np.abs(expected - plain).max() > 0.01
    np.testing.assert_allclose(teacher.score(rgb, text).logits, expected, atol=1e-3)


@pytest.mark.parametrize("threshold", [0.4, 1.0])
def test_released_key_smoothing_equals_a_loop(threshold: float) -> None:
    logits = logits_of_mixed_certainty(2, 5, (3, 4))
    keys = np.random.default_rng(4).normal(size=(2, 6, 3, 4)).astype(np.float32)
    found = smooth_by_keys_as_released(torch.from_numpy(logits), torch.from_numpy(keys), threshold).numpy()
    places = [(row, col) for row in range(3) for col in range(4)]
    for image in range(2):
        lengths = np.sqrt((keys[image] ** 2).sum(axis=(1, 2)))
        probabilities = {place: certainty_at(logits[image], *place) for place in places}
        for place in places:
            wanted = probabilities[place]
            if wanted.max() < threshold:
                at = {other: keys[image, :, other[0], other[1]] / lengths for other in places}
                wanted = sum((at[place] @ at[other]) * probabilities[other] for other in places)
            np.testing.assert_allclose(found[image, :, place[0], place[1]], wanted, atol=1e-5)


def test_purification_by_hand() -> None:
    """Four patches whose keys make two pairs; smoothing gives both patches of a pair their mean score.

    Class 0 wins patches 0, 1 before and after: IoU 1. Class 1 wins patch 2 before, 2 and 3 after: IoU 1/2. Class 2
    wins patch 3 before and none after; class 3 wins none: IoU 0.
    """
    logits = torch.tensor([[0.9, 0.8, 0.1, 0.0], [0.0, 0.0, 0.9, 0.1], [0.2, 0.1, 0.0, 0.3], [0.1, 0.1, 0.1, 0.1]])
    keys = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 3.0]])

    def left(threshold: float) -> list[bool]:
        found = purify_classes(logits.reshape(1, 4, 2, 2), keys.reshape(1, 2, 2, 2), threshold).reshape(4, 4)
        removed = (found == -1).all(dim=1)
        assert torch.equal(found[~removed], logits[~removed])
        return (~removed).tolist()

    assert left(0.01) == left(0.5) == [True, True, False, False]
    assert left(0.6) == left(1.0) == [True, False, False, False]


def test_purification_keeps_an_image_whose_every_class_changes() -> None:
    logits = torch.tensor([[[[0.9, 0.0, 0.0]], [[0.0, 0.3, 0.3]]]])  # smoothed over all patches, class 0 wins: IoU 1/3
    assert purify_classes(logits, torch.ones(1, 1, 1, 3), 0.5).tolist() == logits.tolist()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_expert_templates_equal_a_loop(count: int) -> None:
    features = np.abs(unit_rows(2 * 6, 8, seed=1)).reshape(2, 6, 8).transpose(0, 2, 1)
    templates = unit_rows(5 * 4, 8, seed=2).reshape(5, 4, 8)
    templates[:, 3] = -(8**-0.5)  # opposite to features of positive entries, so that class 3 wins nowhere
    maps = torch.from_numpy(np.ascontiguousarray(features)).unflatten(2, (2, 3))
    found = expert_embeddings(maps, torch.from_numpy(templates), count).numpy()
    for image in range(2):
        for number in range(4):
            entropies = {}
            for template in range(5):
                probability = softmax(100 * templates[template] @ features[image], axis=0)
                won = probability.argmax(axis=0) == number
                if won.any():
                    entropy = -(probability * np.log(np.maximum(probability, 1e-30))).sum(axis=0)
                    entropies[template] = entropy[won].mean()
            assert bool(entropies) == (number < 3)
            chosen = sorted(entropies, key=entropies.__getitem__)[:count] or range(5)
            mean = templates[list(chosen), number].mean(axis=0)
            np.testing.assert_allclose(found[image, number], mean / np.linalg.norm(mean), atol=1e-5)


def test_settings_turn_on_purification_and_released_smoothing(clip_teachers: dict[str, ClipTeacher]) -> None:
    rgb, text = random_images(2, (64, 96)), unit_rows(8, 24)
    features, keys = clip_teachers["toy-vit"].dense(normalised(rgb))
    logits = torch.einsum("bdhw,cd->bchw", features, torch.from_numpy(text))
    for changes, wanted in (
        ({"purification": 0.2}, purify_classes(logits, keys, 0.2)),
        ({"key_smoothing_released": 0.9}, smooth_by_keys_as_released(logits, keys, 0.9)),
    ):
        assert not torch.equal(wanted, logits)
        found = with_settings(clip_teachers["toy-vit"], **changes).score(rgb, text).logits
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-3)


def test_settings_choose_expert_templates(clip_teachers: dict[str, ClipTeacher]) -> None:
    teacher, rgb = with_settings(clip_teachers["toy-vit"], expert_templates=2), random_images(2, (64, 96))
    teacher.templates = unit_rows(5 * 4, 24).reshape(5, 4, 24)
    features, _ = teacher.dense(normalised(rgb))
    experts = expert_embeddings(features, torch.from_numpy(teacher.templates), 2)
    wanted = torch.einsum("bdhw,bcd->bchw", features, experts).numpy()
    np.testing.assert_allclose(teacher.score(rgb, unit_rows(4, 24)).logits, wanted, atol=1e-3)
