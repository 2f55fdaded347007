"""MaskCLIP's refinements against loops."""

import numpy as np
import pytest
import torch

from labelgen.teachers.clip.refinements import denoise_prompts, smooth_by_keys
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
