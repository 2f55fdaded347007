"""Dense features of CLIP against the value paths written out in numpy."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from labelgen.teachers.clip.teacher import ClipTeacher
from tests.labelgen.teachers.clip_reference import (
    OPENAI_MEAN,
    OPENAI_STD,
    Weights,
    normalised,
    random_images,
    softmax,
    unit,
    unit_rows,
)


def layer_norm(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def quick_gelu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-1.702 * x))


def vit_value_path(
    rgb: np.ndarray, w: Weights, heads: int, trained: tuple[int, int], activation: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (D, h, w), before normalisation, and keys (K, h, w) of one image (H, W, 3)."""
    patch, width = w["conv1.weight"].shape[-1], w["conv1.weight"].shape[0]
    grid = rgb.shape[0] // patch, rgb.shape[1] // patch
    image = (rgb / 255 - OPENAI_MEAN) / OPENAI_STD
    patches = image.reshape(grid[0], patch, grid[1], patch, 3).transpose(0, 2, 4, 1, 3).reshape(grid[0] * grid[1], -1)
    tokens = np.concatenate([w["class_embedding"][None], patches @ w["conv1.weight"].reshape(width, -1).T])
    x = layer_norm(tokens + positions(w["positional_embedding"], trained, grid), w, "ln_pre")
    blocks = 1 + max(int(name.split(".")[2]) for name in w if name.startswith("transformer.resblocks."))
    for index in range(blocks):
        block = f"transformer.resblocks.{index}"
        normed = layer_norm(x, w, f"{block}.ln_1")
        weights = np.split(w[f"{block}.attn.in_proj_weight"], 3)
        biases = np.split(w[f"{block}.attn.in_proj_bias"], 3)
        query, key, value = (normed @ weight.T + bias for weight, bias in zip(weights, biases, strict=True))
        if index < blocks - 1:
            value = attend(query, key, value, heads)
        x = x + linear(value, w, f"{block}.attn.out_proj") * w.get(f"{block}.ls_1.gamma", 1)
        hidden = activation(linear(layer_norm(x, w, f"{block}.ln_2"), w, f"{block}.mlp.c_fc"))
        x = x + linear(hidden, w, f"{block}.mlp.c_proj") * w.get(f"{block}.ls_2.gamma", 1)
    features = layer_norm(x, w, "ln_post")[1:] @ w["proj"]
    return features.T.reshape(-1, *grid), key[1:].T.reshape(-1, *grid)


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray, heads: int) -> np.ndarray:
    size = query.shape[1] // heads
    parts = []
    for head in range(heads):
        here = slice(head * size, (head + 1) * size)
        attention = softmax(query[:, here] @ key[:, here].T / math.sqrt(size), axis=1)
        parts.append(attention @ value[:, here])
    return np.concatenate(parts, axis=1)


def positions(embedding: np.ndarray, trained: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    maps = torch.from_numpy(embedding[1:].T.reshape(1, -1, *trained))
    resized = torch.nn.functional.interpolate(maps, size=grid, mode="bicubic", align_corners=False)[0].numpy()
    return np.concatenate([embedding[:1], resized.reshape(embedding.shape[1], -1).T])


def visual_weights(teacher: ClipTeacher) -> Weights:
    return {name: tensor.double().numpy() for name, tensor in teacher.model.visual.state_dict().items()}


@pytest.mark.parametrize(
    "architecture, size",
    [
        *(("tiny-vit-16", (224, 224)), ("tiny-vit-16", (224, 416)), ("toy-vit", (64, 96))),
        *(("toy-vit", (96, 64)), ("toy-vit", (32, 160))),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[0]}x{value[1]}",
)
def test_a_vit_scores_patches_through_the_value_path_of_its_last_block(
    clip_teachers: dict[str, ClipTeacher], architecture: str, size: tuple[int, int]
) -> None:
    teacher = clip_teachers[architecture]
    heads, trained, activation = {"tiny-vit-16": (2, (14, 14), gelu), "toy-vit": (3, (4, 6), quick_gelu)}[architecture]
    rgb = random_images(2, size)
    text = unit_rows(5, teacher.model.visual.output_dim)
    features, keys = teacher.dense(normalised(rgb))
    scores = teacher.score(rgb, text)
    assert scores.logits.shape == (2, 5, size[0] // 16, size[1] // 16)
    assert scores.logits.dtype == np.float16
    for index in range(2):
        expected, expected_keys = vit_value_path(rgb[index], visual_weights(teacher), heads, trained, activation)
        np.testing.assert_allclose(features[index].numpy(), unit(expected), atol=1e-4)
        np.testing.assert_allclose(keys[index].numpy(), expected_keys, atol=1e-4 * np.abs(expected_keys).max())
        cosines = np.einsum("dhw,cd->chw", unit(expected), text)
        np.testing.assert_allclose(scores.logits[index], cosines, atol=6e-4)


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_a_resnet_scores_positions_through_the_projections_of_its_attention_pool(
    clip_teachers: dict[str, ClipTeacher], size: tuple[int, int]
) -> None:
    teacher = clip_teachers["toy-resnet"]
    rgb = random_images(2, size)
    text = unit_rows(5, 24)
    visual, w = teacher.model.visual, visual_weights(teacher)
    seen: list[torch.Tensor] = []
    hook = visual.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        visual.forward_intermediates(normalised(rgb), intermediates_only=True)
    hook.remove()
    (last,) = (tensor.double().numpy().transpose(0, 2, 3, 1) for tensor in seen)
    assert last.shape == (2, size[0] // 32, size[1] // 32, 256)
    expected = linear(linear(last, w, "attnpool.v_proj"), w, "attnpool.c_proj").transpose(0, 3, 1, 2)
    features, keys = teacher.dense(normalised(rgb))
    scores = teacher.score(rgb, text)
    for index in range(2):
        np.testing.assert_allclose(features[index].numpy(), unit(expected[index]), atol=1e-4)
        cosines = np.einsum("dhw,cd->chw", unit(expected[index]), text)
        np.testing.assert_allclose(scores.logits[index], cosines, atol=6e-4)
    expected_keys = linear(last, w, "attnpool.k_proj").transpose(0, 3, 1, 2)
    np.testing.assert_allclose(keys.numpy(), expected_keys, rtol=1e-4, atol=1e-4 * np.abs(expected_keys).max())


def test_images_do_not_change_each_others_scores(clip_teachers: dict[str, ClipTeacher]) -> None:
    rgb, text = random_images(3, (64, 96)), unit_rows(4, 24)
    together = clip_teachers["toy-vit"].score(rgb, text).logits
    for index in range(3):
        alone = clip_teachers["toy-vit"].score(rgb[index : index + 1], text).logits[0]
        np.testing.assert_allclose(together[index], alone, atol=1e-3)
