"""The CLIP teacher against its own maths: value paths written out in numpy, naive refinements, stock text towers."""

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import open_clip
import pytest
import torch

from cache_schemas.errors import ConfigError
from labelgen.settings import ClipSettings
from labelgen.teachers.clip.refinements import denoise_prompts, smooth_by_keys
from labelgen.teachers.clip.teacher import ClipTeacher

Refused = Callable[..., AbstractContextManager[None]]
Weights = dict[str, np.ndarray]
Classes = np.ndarray

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
TOYS = {
    "toy-vit": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {
            **{"image_size": [64, 96], "layers": 3, "width": 48, "head_width": 16},
            **{"patch_size": 16, "ls_init_value": 0.7},
        },
        "text_cfg": TEXT,
    },
    "toy-resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 2, 1], "width": 8, "head_width": 16},
        "text_cfg": TEXT,
    },
    "toy-timm": {
        "embed_dim": 24,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "", "image_size": 160},
        "text_cfg": TEXT,
    },
}
"""Architectures of these tests: quick GELU, layer scales and a trained grid of 4x6; a small ResNet; one of timm's."""


@pytest.fixture(scope="module", autouse=True)
def _toys(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("architectures")
    for name, config in TOYS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture(scope="module")
def teachers() -> dict[str, ClipTeacher]:
    """Teachers with no parameter at zero or one, so that leaving one out would show."""
    made = {}
    generator = torch.Generator().manual_seed(0)
    for name in ("tiny-vit-16", "toy-vit", "toy-resnet"):
        made[name] = ClipTeacher(ClipSettings(architecture=name, weights="untrained:0"))
        for parameter in made[name].model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        for buffer_name, buffer in made[name].model.named_buffers():
            if buffer_name.endswith(("running_mean", "running_var")):
                buffer += 0.3 * torch.rand(buffer.shape, generator=generator)
    return made


def with_settings(teacher: ClipTeacher, **changes: object) -> ClipTeacher:
    """Return a teacher of the same network under other settings."""
    other = ClipTeacher(teacher.settings.model_copy(update=changes))
    other.model.load_state_dict(teacher.model.state_dict())
    return other


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def unit_rows(count: int, width: int, seed: int = 1) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# The value path of a ViT, written out


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


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    raised = np.exp(x - x.max(axis=axis, keepdims=True))
    return raised / raised.sum(axis=axis, keepdims=True)


def vit_value_path(
    rgb: np.ndarray, w: Weights, heads: int, trained: tuple[int, int], activation: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (D, h, w), before normalisation, and keys (K, h, w) of one picture (H, W, 3)."""
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


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=0, keepdims=True)


def normalised(rgb: np.ndarray) -> torch.Tensor:
    images = (rgb / 255 - OPENAI_MEAN) / OPENAI_STD
    return torch.from_numpy(images.transpose(0, 3, 1, 2)).float()


@pytest.mark.parametrize(
    "architecture, size",
    [
        *(("tiny-vit-16", (224, 224)), ("tiny-vit-16", (224, 416)), ("toy-vit", (64, 96))),
        *(("toy-vit", (96, 64)), ("toy-vit", (32, 160))),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[0]}x{value[1]}",
)
def test_a_vit_scores_patches_through_the_value_path_of_its_last_block(
    teachers: dict[str, ClipTeacher], architecture: str, size: tuple[int, int]
) -> None:
    teacher = teachers[architecture]
    heads, trained, activation = {"tiny-vit-16": (2, (14, 14), gelu), "toy-vit": (3, (4, 6), quick_gelu)}[architecture]
    rgb = pictures(2, size)
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
    teachers: dict[str, ClipTeacher], size: tuple[int, int]
) -> None:
    teacher = teachers["toy-resnet"]
    rgb = pictures(2, size)
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


def test_pictures_do_not_change_each_others_scores(teachers: dict[str, ClipTeacher]) -> None:
    rgb, text = pictures(3, (64, 96)), unit_rows(4, 24)
    together = teachers["toy-vit"].score(rgb, text).logits
    for index in range(3):
        alone = teachers["toy-vit"].score(rgb[index : index + 1], text).logits[0]
        np.testing.assert_allclose(together[index], alone, atol=1e-3)


# Text


def test_class_embeddings_are_the_normalised_mean_of_normalised_sentences(teachers: dict[str, ClipTeacher]) -> None:
    teacher = teachers["tiny-vit-16"]
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


# MaskCLIP's refinements, against loops


def logits_of_mixed_certainty(batch: int, classes: int, grid: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(3).normal(scale=0.02, size=(batch, classes, *grid)).astype(np.float32)


def certainty_at(logits: np.ndarray, row: int, col: int) -> np.ndarray:
    return softmax(100 * logits[:, row, col].astype(np.float64), axis=0)


def denoised(logits: np.ndarray, threshold: float) -> np.ndarray:
    """Prompt denoising of one picture's logits (C, h, w); a picture that would lose every class keeps them."""
    found = logits.copy()
    for index in range(logits.shape[0]):
        places = [(row, col) for row in range(logits.shape[1]) for col in range(logits.shape[2])]
        if all(certainty_at(logits, row, col)[index] < threshold for row, col in places):
            found[index] = -1
    return logits if (found == -1).all() else found


def smoothed(logits: np.ndarray, keys: np.ndarray, threshold: float) -> np.ndarray:
    """Key smoothing of one picture's logits (C, h, w) by its keys (K, h, w)."""
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
    expected = np.stack([denoised(picture, threshold) for picture in logits])
    assert 0 < (expected == -1).sum() < expected.size
    np.testing.assert_array_equal(denoise_prompts(torch.from_numpy(logits), threshold).numpy(), expected)


def test_prompt_denoising_by_hand() -> None:
    # Class 0 is sure at one position; class 1 nowhere (0.5 of two is not above 0.6); so class 1 goes everywhere.
    logits = torch.tensor([[[[0.9, 0.2]], [[0.1, 0.2]]]])
    assert denoise_prompts(logits, 0.6).tolist() == [[[[pytest.approx(0.9), pytest.approx(0.2)]], [[-1, -1]]]]


@pytest.mark.parametrize("threshold", [0.4, 0.7, 1.0])
def test_key_smoothing_equals_a_loop(threshold: float) -> None:
    logits = logits_of_mixed_certainty(2, 5, (3, 4))
    keys = np.random.default_rng(4).normal(size=(2, 6, 3, 4)).astype(np.float32)
    expected = np.stack([smoothed(picture, key, threshold) for picture, key in zip(logits, keys, strict=True)])
    changed = (expected != logits).any(axis=1)
    assert changed.any() and (threshold == 1.0 or not changed.all())
    found = smooth_by_keys(torch.from_numpy(logits), torch.from_numpy(keys), threshold).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("smoothing, denoising", [(0.99, None), (None, 0.5), (0.9, 0.5)])
def test_settings_turn_refinements_on_denoising_first(
    teachers: dict[str, ClipTeacher], smoothing: float | None, denoising: float | None
) -> None:
    teacher = with_settings(teachers["toy-vit"], key_smoothing=smoothing, prompt_denoising=denoising)
    rgb, text = pictures(2, (64, 96)), unit_rows(8, 24)
    features, keys = (tensor.numpy() for tensor in teacher.dense(normalised(rgb)))
    plain = np.einsum("bdhw,cd->bchw", features, text)
    expected = plain
    if denoising is not None:
        expected = np.stack([denoised(picture, denoising) for picture in expected])
        assert (expected == -1).any() and (expected > -1).any()
    if smoothing is not None:
        expected = np.stack([smoothed(picture, key, smoothing) for picture, key in zip(expected, keys, strict=True)])
    assert np.abs(expected - plain).max() > 0.01
    np.testing.assert_allclose(teacher.score(rgb, text).logits, expected, atol=1e-3)


# Settings


def test_features_are_kept_only_if_asked_for_and_then_give_the_logits_again(teachers: dict[str, ClipTeacher]) -> None:
    rgb, text = pictures(2, (32, 160)), unit_rows(3, 24)
    assert teachers["toy-vit"].score(rgb, text).features is None
    scores = with_settings(teachers["toy-vit"], store_features=True).score(rgb, text)
    assert scores.features is not None
    assert (scores.features.shape, scores.features.dtype) == ((2, 24, 2, 10), np.float16)
    features = scores.features.astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(np.einsum("bdhw,cd->bchw", features, text), scores.logits, atol=2e-3)


@pytest.mark.parametrize(
    "architecture, size, step",
    [("tiny-vit-16", (225, 416), 16), ("tiny-vit-16", (224, 410), 16), ("toy-resnet", (64, 80), 32)],
)
def test_a_size_that_is_no_multiple_of_the_patch_names_both(
    teachers: dict[str, ClipTeacher], architecture: str, size: tuple[int, int], step: int, refused: Refused
) -> None:
    text = unit_rows(3, teachers[architecture].model.visual.output_dim)
    with refused(ConfigError, f"{size[0]}x{size[1]}", f"patches of {step}", architecture, f"multiples of {step}"):
        teachers[architecture].score(pictures(1, size), text)


def test_an_unknown_architecture_is_refused(refused: Refused) -> None:
    with refused(ConfigError, "'ViT-Z-99'", "open_clip.list_models()"):
        ClipTeacher(ClipSettings(architecture="ViT-Z-99", weights="untrained:0"))


def test_an_architecture_without_a_dense_path_is_refused(refused: Refused) -> None:
    with refused(ConfigError, "'toy-timm'", "neither a ViT nor a ResNet of OpenAI's kind"):
        ClipTeacher(ClipSettings(architecture="toy-timm", weights="untrained:0"))


def test_prompt_denoising_keeps_an_image_whose_every_class_is_unsure() -> None:
    logits = torch.tensor([[[[0.1]], [[0.1]], [[0.1]]]])
    assert denoise_prompts(logits, 0.6).tolist() == logits.tolist()
