"""A ViT of open_clip written out in numpy, with any attention in its last block."""

import math
from collections.abc import Callable

import numpy as np
import torch

from labelgen.teachers.clip.teacher import ClipTeacher
from tests.labelgen.teachers.clip_reference import OPENAI_MEAN, OPENAI_STD, Weights, softmax

Mix = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""Queries, keys, values (1 + P, E) of tokens, and the number of heads -> values (1 + P, E)."""


def keep_values(query: np.ndarray, key: np.ndarray, value: np.ndarray, heads: int) -> np.ndarray:
    return value


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


def vit_features(
    rgb: np.ndarray,
    w: Weights,
    heads: int,
    trained: tuple[int, int],
    activation: Callable[[np.ndarray], np.ndarray],
    mix: Mix = keep_values,
    residual: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (D, h, w), before normalisation, and keys (K, h, w) of one image (H, W, 3).

    `mix` is the attention of the last block; without `residual`, its output alone goes on, and not through the MLP.
    """
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
        value = (attend if index < blocks - 1 else mix)(query, key, value, heads)
        mixed = linear(value, w, f"{block}.attn.out_proj") * w.get(f"{block}.ls_1.gamma", 1)
        if index == blocks - 1 and not residual:
            x = mixed
            break
        x = x + mixed
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
