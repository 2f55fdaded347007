"""The CLIP teacher: text embeddings, stored features, and settings that it refuses."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import open_clip
import pytest
import torch

from cache_schemas.errors import ConfigError
from labelgen.settings import ClipSettings
from labelgen.teachers.clip.cached_features import decode_features
from labelgen.teachers.clip.teacher import ClipTeacher
from tests.labelgen.teachers.clip_reference import random_images, unit_rows, with_settings

Refused = Callable[..., AbstractContextManager[None]]


def test_class_embeddings_are_the_normalised_mean_of_normalised_sentences(
    clip_teachers: dict[str, ClipTeacher],
) -> None:
    teacher = clip_teachers["tiny-vit-16"]
    sentences = [["a photo of a car.", "a van"], ["the road"], [f"tree number {index}" for index in range(300)]]
    tokens = open_clip.get_tokenizer("tiny-vit-16")([sentence for group in sentences for sentence in group])
    with torch.no_grad():
        stock = teacher.model.encode_text(tokens).double().numpy()
    stock /= np.linalg.norm(stock, axis=1, keepdims=True)
    expected = np.stack([stock[:2].mean(axis=0), stock[2], stock[3:].mean(axis=0)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = teacher.embed_text(sentences)
    assert (found.shape, found.dtype) == ((3, 64), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_features_are_stored_only_if_asked_for_and_reproduce_the_logits(
    clip_teachers: dict[str, ClipTeacher],
) -> None:
    rgb, text = random_images(2, (32, 160)), unit_rows(3, 24)
    assert clip_teachers["toy-vit"].score(rgb, text).features is None
    scores = with_settings(clip_teachers["toy-vit"], store_features=True).score(rgb, text)
    assert scores.features is not None
    assert (scores.features.shape, scores.features.dtype) == ((2, 24, 2, 10), np.float16)
    features = scores.features.astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(np.einsum("bdhw,cd->bchw", features, text), scores.logits, atol=2e-3)


def test_features_as_int8_are_the_same_up_to_half_a_step(clip_teachers: dict[str, ClipTeacher]) -> None:
    rgb, text = random_images(2, (32, 160)), unit_rows(3, 24)
    exact, found = (
        with_settings(clip_teachers["toy-vit"], store_features=True, features_dtype=dtype).score(rgb, text)
        for dtype in ("float16", "int8")
    )
    assert exact.features is not None and exact.features_scale is None
    assert found.features is not None and found.features_scale is not None
    assert (found.features.shape, found.features.dtype) == ((2, 24, 2, 10), np.int8)
    assert (found.features_scale.shape, found.features_scale.dtype) == ((2, 24), np.float32)
    restored = found.features * found.features_scale[:, :, None, None]
    assert np.all(np.abs(restored - exact.features) <= found.features_scale[:, :, None, None] * 0.5 + 5e-4)
    np.testing.assert_array_equal(decode_features(vars(found)), restored)
    np.testing.assert_array_equal(found.logits, exact.logits)


@pytest.mark.parametrize(
    "architecture, size, step",
    [("tiny-vit-16", (225, 416), 16), ("tiny-vit-16", (224, 410), 16), ("toy-resnet", (64, 80), 32)],
)
def test_a_size_that_is_not_a_multiple_of_the_patch_is_refused(
    clip_teachers: dict[str, ClipTeacher], architecture: str, size: tuple[int, int], step: int, refused: Refused
) -> None:
    text = unit_rows(3, clip_teachers[architecture].model.visual.output_dim)
    with refused(ConfigError, f"{size[0]}x{size[1]}", f"patches of {step}", architecture, f"multiples of {step}"):
        clip_teachers[architecture].score(random_images(1, size), text)


def test_an_unknown_architecture_is_refused(refused: Refused) -> None:
    with refused(ConfigError, "'ViT-Z-99'", "open_clip.list_models()"):
        ClipTeacher(ClipSettings(architecture="ViT-Z-99", weights="untrained:0"))


def test_an_architecture_without_a_dense_path_is_refused(toy_clips: None, refused: Refused) -> None:
    with refused(ConfigError, "'toy-timm'", "neither a ViT nor a ResNet of OpenAI's kind"):
        ClipTeacher(ClipSettings(architecture="toy-timm", weights="untrained:0"))
