"""Attentions of the last block against a computation in numpy, patch by patch and head by head."""

import math

import numpy as np
import pytest
import torch

from cache_schemas.errors import ConfigError
from labelgen.settings import ClipSettings
from labelgen.teachers.clip.attention import Guides
from labelgen.teachers.clip.sam_guides import embedding_at_patches, masks_at_patches
from labelgen.teachers.clip.teacher import ClipTeacher
from tests.labelgen.teachers.clip_reference import (
    normalised,
    random_images,
    softmax,
    unit,
    unit_rows,
    with_settings,
)
from tests.labelgen.teachers.vit_reference import Mix, quick_gelu, visual_weights, vit_features

SIZE, GRID, HEADS = (48, 80), (3, 5), 3
PLACES = [(row, col) for row in range(GRID[0]) for col in range(GRID[1])]
MASKS = np.array([[1, 1, 0, 2, 2], [1, 1, 0, 2, 3], [0, 1, 4, 2, 2]])
"""Masks of one patch and of many, and patches under none."""


def scores_of(attention: str, query: np.ndarray, key: np.ndarray, patch: int) -> list[np.ndarray]:
    """Return the scores (1 + P,) of one patch against all tokens in one head; their softmaxes are added."""
    size, token = query.shape[1], 1 + patch
    by_query, by_key = (tokens @ tokens[token] / math.sqrt(size) for tokens in (query, key))
    if attention == "sclip":
        return [by_query, by_key]
    if attention == "clearclip":
        return [by_query]
    if attention == "naclip":
        near = [math.exp(-(math.dist(PLACES[patch], place) ** 2) / (2 * 5**2)) for place in PLACES]
        return [by_key + np.array([0, *near])]
    return [np.zeros(1 + len(PLACES))]


def mixed_by(attention: str, masks: np.ndarray | None = None) -> Mix:
    """Return the attention, within the masks (h, w) if there are any."""

    def mix(query: np.ndarray, key: np.ndarray, value: np.ndarray, heads: int) -> np.ndarray:
        size, mixed = value.shape[1] // heads, np.zeros_like(value)
        for head in range(heads):
            here = slice(head * size, (head + 1) * size)
            for patch, place in enumerate(PLACES):
                allowed = list(range(1 + len(PLACES))) if attention != "value" else [1 + patch]
                if masks is not None and masks[place] > 0:
                    allowed = [1 + other for other, where in enumerate(PLACES) if masks[where] == masks[place]]
                scores = scores_of(attention, query[:, here], key[:, here], patch)
                weights = sum(softmax(score[allowed], axis=0) for score in scores)
                mixed[1 + patch, here] = weights @ value[allowed, here]
        return mixed

    return mix


def mixed_by_proxy(embedding: np.ndarray) -> Mix:
    """Return ProxyCLIP's attention from an embedding (E, h, w)."""
    flat = unit(embedding.reshape(len(embedding), -1))

    def mix(query: np.ndarray, key: np.ndarray, value: np.ndarray, heads: int) -> np.ndarray:
        similarity = flat.T @ flat
        scores = 3 * (similarity - 1.2 * similarity.mean())
        scores[(scores < 0) & ~np.eye(len(PLACES), dtype=bool)] = -np.inf
        return np.concatenate([value[:1], softmax(scores, axis=1) @ value[1:]])

    return mix


def expected(teacher: ClipTeacher, rgb: np.ndarray, mix: Mix, residual: bool) -> np.ndarray:
    features, _ = vit_features(rgb, visual_weights(teacher), HEADS, (4, 6), quick_gelu, mix, residual)
    return unit(features)


@pytest.mark.parametrize("scope", ["none", "sam"])
@pytest.mark.parametrize("attention", ["value", "sclip", "clearclip", "naclip"])
def test_attentions_equal_numpy(clip_teachers: dict[str, ClipTeacher], attention: str, scope: str) -> None:
    teacher = with_settings(clip_teachers["toy-vit"], attention=attention, scope=scope)
    rgb = random_images(2, SIZE)
    masks = np.stack([MASKS, MASKS[::-1]])
    guides = Guides(torch.from_numpy(masks)) if scope == "sam" else Guides()
    features, _ = teacher.dense(normalised(rgb), guides)
    for index in range(2):
        mix = mixed_by(attention, masks[index] if scope == "sam" else None)
        wanted = expected(teacher, rgb[index], mix, residual=attention in ("value", "sclip"))
        np.testing.assert_allclose(features[index].numpy(), wanted, atol=1e-4)


def test_attention_by_sam_embedding_equals_numpy(clip_teachers: dict[str, ClipTeacher]) -> None:
    teacher, rgb = with_settings(clip_teachers["toy-vit"], proxy="sam"), random_images(2, SIZE)
    embedding = np.random.default_rng(5).normal(0.3, 1, size=(2, 7, *GRID)).astype(np.float32)
    embedding[1] = embedding[1, :, :1, :1] * 1.1  # all alike, so that 1.2 times the mean cuts all but the patch itself
    features, _ = teacher.dense(normalised(rgb), Guides(embedding=torch.from_numpy(embedding)))
    for index in range(2):
        wanted = expected(teacher, rgb[index], mixed_by_proxy(embedding[index]), residual=False)
        np.testing.assert_allclose(features[index].numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("changes", [{"attention": "sclip"}, {"scope": "sam"}, {"proxy": "sam"}])
def test_a_resnet_has_no_patches_to_mix(toy_clips: None, changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="is a ResNet, which has no attention between patches"):
        ClipTeacher(ClipSettings(architecture="toy-resnet", weights="untrained:0", **changes))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"proxy": "sam", "attention": "naclip"}, "proxy sam replaces attention naclip"),
        ({"stride": 32}, "stride 32 needs a window"),
        ({"window": 32, "stride": 48}, "stride 48 needs a window"),
        ({"key_smoothing": 1, "key_smoothing_released": 1}, "two forms of one step"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipSettings(architecture="toy-vit", weights="untrained:0", **changes)


WINDOWED = [
    {},
    {"attention": "naclip", "scope": "sam"},
    {"proxy": "sam"},
]


@pytest.mark.parametrize("changes", WINDOWED, ids=lambda changes: "-".join(changes.values()) or "value")
def test_windows_are_averaged_and_pictures_do_not_change_each_other(
    clip_teachers: dict[str, ClipTeacher], changes: dict[str, str]
) -> None:
    """Windows of 48 every 32 over 64x112: rows start at 0 and 16, columns at 0, 32 and 64."""
    whole = with_settings(clip_teachers["toy-vit"], **changes)
    teacher = with_settings(whole, window=48, stride=32, store_features=True)
    rgb, text, generator = random_images(3, (64, 112)), unit_rows(4, 24), np.random.default_rng(2)
    masks = torch.from_numpy(generator.integers(0, 4, (3, 4, 7)))
    embedding = torch.from_numpy(generator.normal(size=(3, 5, 4, 7)).astype(np.float32))
    found = teacher.score(rgb, text, Guides(masks, embedding if "proxy" in changes else None))
    for image in range(3):
        sums, seen = np.zeros((24, 4, 7)), np.zeros((4, 7))
        for top in (0, 1):
            for left in (0, 2, 4):
                part = image, slice(top, top + 3), slice(left, left + 3)
                crop = rgb[image : image + 1, 16 * top : 16 * top + 48, 16 * left : 16 * left + 48]
                guides = Guides(masks[part][None], embedding[:, :][image, :, part[1], part[2]][None])
                guides = guides if "proxy" in changes else Guides(guides.masks)
                features, _ = whole.dense(normalised(crop), guides)
                sums[:, part[1], part[2]] += features[0].numpy()
                seen[part[1:]] += 1
        mean = unit(sums / seen)
        np.testing.assert_allclose(found.features[image], mean, atol=1e-3)
        np.testing.assert_allclose(found.logits[image], np.einsum("dhw,cd->chw", mean, text), atol=1e-3)
        one = slice(image, image + 1)
        alone = teacher.score(rgb[one], text, Guides(masks[one], embedding[one] if "proxy" in changes else None))
        np.testing.assert_allclose(alone.logits[0], found.logits[image], atol=1e-3)


def test_a_window_larger_than_a_picture_is_the_whole_picture(clip_teachers: dict[str, ClipTeacher]) -> None:
    rgb, text = random_images(1, SIZE), unit_rows(4, 24)
    whole = clip_teachers["toy-vit"].score(rgb, text).logits
    windowed = with_settings(clip_teachers["toy-vit"], window=96).score(rgb, text).logits
    np.testing.assert_allclose(windowed, whole, atol=1e-3)


def test_a_window_that_cuts_patches_is_refused(clip_teachers: dict[str, ClipTeacher]) -> None:
    teacher = with_settings(clip_teachers["toy-vit"], window=40)
    with pytest.raises(ConfigError, match=r"clip\.window 40 does not divide into patches of 16 pixels"):
        teacher.score(random_images(1, SIZE), unit_rows(4, 24))


def test_the_mask_of_a_patch_is_that_of_its_centre() -> None:
    ids = np.arange(6 * 8, dtype=np.uint16).reshape(1, 6, 8)
    assert masks_at_patches(ids, (2, 2)).tolist() == [[[8 * 1 + 2, 8 * 1 + 6], [8 * 4 + 2, 8 * 4 + 6]]]
    assert masks_at_patches(ids, (6, 8)).tolist() == ids.tolist()


def test_embeddings_of_sam_are_scaled_cropped_and_averaged() -> None:
    """The first picture shows in 2x4 of 4x4 cells; each channel is 0..7 times its scale, and padding is 99."""
    features = np.full((2, 4, 4, 2), 99, np.int8)
    features[0, :2] = np.arange(8).reshape(2, 4, 1)
    features[1] = 1
    scale, valid = np.array([[1, 0.5], [2, 3]], np.float32), np.array([[2, 4], [4, 4]], np.uint16)
    sam = {"features": features, "features_scale": scale, "features_valid": valid}
    found = embedding_at_patches(sam, (2, 4)).numpy()
    np.testing.assert_allclose(found[0, 0], np.arange(8).reshape(2, 4))
    np.testing.assert_allclose(found[0, 1], np.arange(8).reshape(2, 4) / 2)
    np.testing.assert_allclose(found[1, :, 0, 0], [2, 3], rtol=1e-6)
    coarse = embedding_at_patches({"features": np.arange(8.0).reshape(1, 2, 4, 1)}, (2, 4))
    np.testing.assert_allclose(coarse[0, 0], np.arange(8).reshape(2, 4))
