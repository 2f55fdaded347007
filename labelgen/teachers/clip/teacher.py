"""The CLIP teacher: embeds class names, and scores every patch of an image against them (CNS equation 1)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache_schemas.errors import ConfigError
from labelgen.settings import ClipSettings
from labelgen.teachers.clip.attention import NO_GUIDES, Guides, mixes
from labelgen.teachers.clip.dense_features import dense_features
from labelgen.teachers.clip.network import build_clip, normalise_images, patch_size_px
from labelgen.teachers.clip.refinements import (
    denoise_prompts,
    expert_embeddings,
    purify_classes,
    smooth_by_keys,
    smooth_by_keys_as_released,
)
from labelgen.teachers.clip.windows import dense_in_windows
from labelgen.teachers.quantisation import quantise

if TYPE_CHECKING:
    from torch import Tensor

SENTENCES_AT_ONCE = 256


@dataclass(frozen=True)
class ClipScores:
    """Class scores of B images on the grid of CLIP's patches, h = H / patch, w = W / patch.

    `logits` (B, C, h, w) f16: cosines of image features and class embeddings, after the refinements. `features`
    (B, D, h, w) of unit norm are f16, or i8 to be multiplied by `features_scale` (B, D) f32; both are None if the
    settings do not store them.
    """

    logits: NDArray[np.float16]
    features: NDArray[np.float16] | NDArray[np.int8] | None
    features_scale: NDArray[np.float32] | None


class ClipTeacher:
    """An open_clip model that scores patches instead of whole images.

    `templates` (T, C, D) f32 are the embeddings of each class in each template alone, which `clip.expert_templates`
    chooses from; whoever sets it gives them.
    """

    templates: NDArray[np.float32] | None = None

    def __init__(self, settings: ClipSettings, device: str = "cpu") -> None:
        """Build the network and load its weights.

        Raises:
            ConfigError: if open_clip has no such architecture, it has no dense path, or a ResNet is to mix patches.
            WeightsError: if the weights are absent or do not fit.
        """
        self.settings = settings
        self.device = device
        self.model = build_clip(settings).to(device).eval().requires_grad_(False)
        if mixes(settings) and not hasattr(self.model.visual, "transformer"):
            raise ConfigError(
                f"clip.architecture {settings.architecture!r} is a ResNet, which has no attention between patches; "
                "leave out clip.attention, clip.scope and clip.proxy, or choose a ViT"
            )

    @property
    def context_length(self) -> int:
        """The number of tokens that the text encoder reads, those of start and end included."""
        return int(self.model.context_length)

    def sentences_too_long(self, sentences: list[str]) -> list[str]:
        """Return the sentences that have more tokens than the text encoder reads; it would cut off their ends."""
        import open_clip

        tokenizer = open_clip.get_tokenizer(self.settings.architecture)
        encode = getattr(tokenizer, "encode", None) or tokenizer.tokenizer.encode
        return [sentence for sentence in sentences if len(encode(sentence)) + 2 > self.context_length]

    def embed_text(self, sentences: list[list[str]]) -> NDArray[np.float32]:
        """Return class embeddings (C, D) f32 of unit norm.

        The embedding of a class is the mean of the unit-norm embeddings of its sentences (C lists), normalised again.
        """
        import open_clip
        import torch

        tokenizer = open_clip.get_tokenizer(self.settings.architecture)
        flat = [sentence for of_class in sentences for sentence in of_class]
        parts = []
        with torch.inference_mode():
            for start in range(0, len(flat), SENTENCES_AT_ONCE):
                tokens = tokenizer(flat[start : start + SENTENCES_AT_ONCE]).to(self.device)
                parts.append(self.model.encode_text(tokens, normalize=True).float())
            by_class = torch.cat(parts).split([len(of_class) for of_class in sentences])
            means = torch.stack([embeddings.mean(dim=0) for embeddings in by_class])
            class_embeddings: NDArray[np.float32] = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()
        return class_embeddings

    def score(self, rgb: NDArray[np.uint8], text: NDArray[np.float32], guides: Guides = NO_GUIDES) -> ClipScores:
        """Score images (B, H, W, 3) against class embeddings (C, D): CNS equation 1 before its argmax.

        `guides` are those of the images on the grid of patches, on any device, where the settings use them.

        Raises:
            ConfigError: if H, W or the windows are not multiples of the patch size.
        """
        import torch

        self.check_size(rgb.shape[1:3])
        with torch.inference_mode():
            images = normalise_images(self.model.visual, torch.from_numpy(rgb).to(self.device))
            features, keys = self.dense(images, guides.to(self.device))
            logits = self._refine(self._cosines(features, torch.from_numpy(text).to(self.device)), keys)
            return ClipScores(logits.half().cpu().numpy(), *self._to_store(features))

    def _to_store(
        self, features: "Tensor"
    ) -> tuple[NDArray[np.float16] | NDArray[np.int8] | None, NDArray[np.float32] | None]:
        """Return features (B, D, h, w) as the settings store them, and the scale (B, D) of those that are int8."""
        if not self.settings.store_features:
            return None, None
        if self.settings.features_dtype == "float16":
            return features.half().cpu().numpy(), None
        rounded, scale = quantise(features.permute(0, 2, 3, 1))
        return rounded.permute(0, 3, 1, 2).contiguous().cpu().numpy(), scale.cpu().numpy()

    def _cosines(self, features: "Tensor", text: "Tensor") -> "Tensor":
        """Return the cosines (B, C, h, w) of features to class embeddings (C, D), or to those of expert templates."""
        import torch

        if self.settings.expert_templates is None:
            return torch.einsum("bdhw,cd->bchw", features, text)
        assert self.templates is not None, "expert templates are chosen from `templates`"
        templates = torch.from_numpy(self.templates).to(self.device)
        experts = expert_embeddings(features, templates, self.settings.expert_templates)
        return torch.einsum("bdhw,bcd->bchw", features, experts)

    def _refine(self, logits: "Tensor", keys: "Tensor") -> "Tensor":
        """Remove false classes and smooth, as the settings say."""
        if self.settings.purification is not None:
            logits = purify_classes(logits, keys, self.settings.purification)
        if self.settings.prompt_denoising is not None:
            logits = denoise_prompts(logits, self.settings.prompt_denoising)
        if self.settings.key_smoothing is not None:
            logits = smooth_by_keys(logits, keys, self.settings.key_smoothing)
        if self.settings.key_smoothing_released is not None:
            logits = smooth_by_keys_as_released(logits, keys, self.settings.key_smoothing_released)
        return logits

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the grid of patches (h, w) of images of `size` (height, width)."""
        patch = patch_size_px(self.model.visual)
        return size[0] // patch, size[1] // patch

    def check_size(self, size: tuple[int, int]) -> None:
        """Check that images of `size` (height, width), and the windows if there are any, divide into patches.

        Raises:
            ConfigError: if they do not.
        """
        patch = patch_size_px(self.model.visual)
        if size[0] % patch or size[1] % patch:
            raise ConfigError(
                f"images of {size[0]}x{size[1]} do not divide into patches of {patch} pixels "
                f"({self.settings.architecture}); set clip.size, or images.height and images.width, to multiples of "
                f"{patch}"
            )
        for name in ("window", "stride"):
            if (length := getattr(self.settings, name)) is not None and length % patch:
                raise ConfigError(
                    f"clip.{name} {length} does not divide into patches of {patch} pixels "
                    f"({self.settings.architecture}); set it to a multiple of {patch}"
                )

    def dense(self, images: "Tensor", guides: Guides = NO_GUIDES) -> "tuple[Tensor, Tensor]":
        """Return features (B, D, h, w) f32 of unit norm and keys (B, K, h, w) f32 of normalised images (B, 3, H, W)."""
        window = self.settings.window
        if window is None:
            return self._dense_at_once(images, guides)
        patch = patch_size_px(self.model.visual)
        stride = self.settings.stride or max(window // 2 // patch, 1) * patch
        return dense_in_windows(self._dense_at_once, images, guides, window, stride, patch)

    def _dense_at_once(self, images: "Tensor", guides: Guides) -> "tuple[Tensor, Tensor]":
        import torch

        device_type = self.device.split(":")[0]
        with torch.autocast(device_type, torch.bfloat16, enabled=device_type == "cuda"):
            features, keys = dense_features(self.model.visual, images, self.settings, guides)
        return torch.nn.functional.normalize(features.float(), dim=1), keys.float()
