"""CLIP made dense (MaskCLIP): class scores for every patch, through the value path of the last attention.

ViT: the last block's attention is skipped; its value and output projections, residual and MLP stay, so each patch
token keeps its own place. ResNet: the attention pool becomes its value and output projections at every position.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.errors import ConfigError
from labelgen.settings import ClipSettings
from labelgen.teachers.checkpoints import UNTRAINED, load_into, untrained_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TEMPERATURE = 100.0
"""What OpenAI's CLIP multiplies cosines by before the softmax; MaskCLIP's refinements hard-code it."""

LOWEST_COSINE = -1.0
_JIT_EXTRAS = frozenset({"input_resolution", "context_length", "vocab_size"})
_TEXT_BATCH = 256


@dataclass(frozen=True)
class ClipScores:
    """`logits` (B, C, h, w) f16 cosines; `features` (B, D, h, w) f16 of unit norm, or None."""

    logits: NDArray[np.float16]
    features: NDArray[np.float16] | None


class ClipTeacher:
    """An open_clip model, read densely."""

    def __init__(self, settings: ClipSettings, device: str = "cpu") -> None:
        """Build the network and load its weights.

        Raises:
            ConfigError: if open_clip has no such architecture, or it has no dense path.
            WeightsError: if the weights are absent or do not fit.
        """
        self.settings = settings
        self.device = device
        self.model = build_clip(settings).to(device).eval().requires_grad_(False)

    def embed_text(self, sentences: list[list[str]]) -> NDArray[np.float32]:
        """Return class embeddings (C, D), each the unit-norm mean of its sentences' unit-norm embeddings."""
        import open_clip
        import torch

        tokenizer = open_clip.get_tokenizer(self.settings.architecture)
        flat = [sentence for group in sentences for sentence in group]
        parts = []
        with torch.inference_mode():
            for start in range(0, len(flat), _TEXT_BATCH):
                tokens = tokenizer(flat[start : start + _TEXT_BATCH]).to(self.device)
                parts.append(self.model.encode_text(tokens, normalize=True).float())
            groups = torch.cat(parts).split([len(group) for group in sentences])
            means = torch.stack([group.mean(dim=0) for group in groups])
            embeddings: NDArray[np.float32] = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()
        return embeddings

    def score(self, rgb: NDArray[np.uint8], text: NDArray[np.float32]) -> ClipScores:
        """Score images (B, H, W, 3) against class embeddings (C, D): eq 1 before its argmax.

        Raises:
            ConfigError: if H or W is no multiple of the patch size.
        """
        import torch

        with torch.inference_mode():
            features, keys = self.dense(self._normalise(rgb))
            logits = torch.einsum("bdhw,cd->bchw", features, torch.from_numpy(text).to(self.device))
            if self.settings.prompt_denoising is not None:
                logits = denoise_prompts(logits, self.settings.prompt_denoising)
            if self.settings.key_smoothing is not None:
                logits = smooth_by_keys(logits, keys, self.settings.key_smoothing)
            kept = features.half().cpu().numpy() if self.settings.store_features else None
            return ClipScores(logits.half().cpu().numpy(), kept)

    def check_size(self, size: tuple[int, int]) -> None:
        """Check that images of `size` (height, width) divide into patches.

        Raises:
            ConfigError: if they do not.
        """
        step = patch_size(self.model.visual)
        if size[0] % step or size[1] % step:
            raise ConfigError(
                f"images of {size[0]}x{size[1]} do not divide into patches of {step} pixels "
                f"({self.settings.architecture}); set images.height and images.width to multiples of {step}"
            )

    def dense(self, images: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return unit-norm features (B, D, h, w) f32 of normalised images (B, 3, H, W), and keys (B, K, h, w)."""
        import torch

        visual = self.model.visual
        path = _vit_value_path if hasattr(visual, "transformer") else _resnet_value_path
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.device.startswith("cuda")):
            features, keys = path(visual, images)
        return torch.nn.functional.normalize(features.float(), dim=1), keys.float()

    def _normalise(self, rgb: NDArray[np.uint8]) -> "Tensor":
        import torch

        self.check_size(rgb.shape[1:3])
        return normalise(self.model.visual, torch.from_numpy(rgb).to(self.device))


def normalise(visual: Any, rgb: "Tensor") -> "Tensor":
    """Return images (B, H, W, 3) u8 as a visual tower takes them: (B, 3, H, W) f32."""
    import torch

    mean = torch.tensor(visual.image_mean, device=rgb.device).view(3, 1, 1)
    std = torch.tensor(visual.image_std, device=rgb.device).view(3, 1, 1)
    return (rgb.permute(0, 3, 1, 2).float() / 255 - mean) / std


def build_clip(settings: ClipSettings) -> "torch.nn.Module":
    """Build an open_clip model, one of its own architectures or one of ours, and load or seed its weights.

    Raises:
        ConfigError: if open_clip has no such architecture, or it has no dense path.
        WeightsError: if the weights are absent or do not fit.
    """
    import open_clip
    import torch

    with resources.as_file(resources.files("labelgen.teachers") / "architectures") as folder:
        open_clip.add_model_config(folder)
    if settings.architecture not in open_clip.list_models():
        raise ConfigError(f"clip.architecture {settings.architecture!r} is not one of open_clip.list_models()")
    untrained = settings.weights.startswith(UNTRAINED)
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(untrained_seed(settings.weights) if untrained else 0)
        model = open_clip.create_model(settings.architecture, pretrained=None)
    if not (hasattr(model.visual, "transformer") or hasattr(model.visual, "attnpool")):
        raise ConfigError(f"clip.architecture {settings.architecture!r} is neither a ViT nor a ResNet of OpenAI's kind")
    if not untrained:
        load_into(model, settings.weights, ignore=_JIT_EXTRAS)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Mute open_clip's warning that no weights were loaded: they are, right after."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def patch_size(visual: Any) -> int:
    """Return the stride of the dense output in pixels."""
    return int(visual.patch_size[0]) if hasattr(visual, "transformer") else 32


def _vit_value_path(visual: Any, images: "Tensor") -> "tuple[Tensor, Tensor]":
    import torch
    from torch.nn import functional

    x = visual.conv1(images)
    grid = x.shape[-2:]
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = visual.ln_pre(x + interpolate_positions(visual.positional_embedding, visual.grid_size, grid).to(x.dtype))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    normed = last.ln_1(x)
    _, key_weight, value_weight = last.attn.in_proj_weight.chunk(3)
    _, key_bias, value_bias = last.attn.in_proj_bias.chunk(3)
    value = last.attn.out_proj(functional.linear(normed, value_weight, value_bias))
    x = x + last.ls_1(value)
    x = x + last.ls_2(last.mlp(last.ln_2(x)))
    features = visual.ln_post(x)[:, 1:] @ visual.proj
    keys = functional.linear(normed, key_weight, key_bias)[:, 1:]
    return tuple(tokens.transpose(1, 2).unflatten(2, grid) for tokens in (features, keys))


def _resnet_value_path(visual: Any, images: "Tensor") -> "tuple[Tensor, Tensor]":
    x = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    x = x.movedim(1, -1)
    features = visual.attnpool.c_proj(visual.attnpool.v_proj(x))
    return features.movedim(-1, 1), visual.attnpool.k_proj(x).movedim(-1, 1)


def interpolate_positions(positions: "Tensor", trained: tuple[int, int], grid: "torch.Size") -> "Tensor":
    """Bring position embeddings (1 + gh * gw, E) of the `trained` grid to another grid, bicubic; class entry kept."""
    import torch
    from torch.nn import functional

    if tuple(trained) == tuple(grid):
        return positions
    first, rest = positions[:1], positions[1:].float()
    maps = rest.T.reshape(1, -1, *trained)
    maps = functional.interpolate(maps, size=tuple(grid), mode="bicubic", align_corners=False)
    return torch.cat([first.float(), maps.flatten(2)[0].T])


def denoise_prompts(logits: "Tensor", threshold: float) -> "Tensor":
    """Drop classes that no position is sure of (MaskCLIP's prompt denoising).

    A class whose softmax(100 * cosine) stays below `threshold` all over an image gets cosine -1 there. An image
    where that would leave no class keeps all of them.
    """
    unsure = (TEMPERATURE * logits).softmax(dim=1).amax(dim=(2, 3), keepdim=True) < threshold
    return logits.masked_fill(unsure & ~unsure.all(dim=1, keepdim=True), LOWEST_COSINE)


def smooth_by_keys(logits: "Tensor", keys: "Tensor", threshold: float) -> "Tensor":
    """Average the scores of unsure positions over positions with similar keys (MaskCLIP's key smoothing).

    Positions whose highest softmax(100 * cosine) is below `threshold` take the mean of all positions' scores,
    weighted by the cosine of their keys where that is positive. Dividing by the weights' sum keeps cosines cosines.
    """
    import torch
    from torch.nn import functional

    tokens = logits.flatten(2)
    unit = functional.normalize(keys.flatten(2), dim=1)
    affinity = torch.einsum("bki,bkj->bij", unit, unit).clamp(min=0)
    smooth = torch.einsum("bij,bcj->bci", affinity / affinity.sum(dim=2, keepdim=True), tokens)
    unsure = (TEMPERATURE * tokens).softmax(dim=1).amax(dim=1, keepdim=True) < threshold
    return torch.where(unsure, smooth, tokens).view_as(logits)
