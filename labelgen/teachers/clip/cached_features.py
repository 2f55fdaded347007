"""CLIP's features of patches, as the cache holds them, and scores of them against text: without the image network."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.documents import CacheManifest
from cache_schemas.errors import ConfigError
from cache_schemas.stored_features import decode_features as decode
from labelgen.settings import ClipSettings
from labelgen.teachers.checkpoints import identify

if TYPE_CHECKING:
    from labelgen.teachers.clip.teacher import ClipTeacher

Features = NDArray[np.float32]


def decode_features(stored: Mapping[str, NDArray[Any]]) -> Features:
    """Return the features (B, D, h, w) f32 of the arrays of a group `clip`."""
    return decode(stored["features"], stored.get("features_scale"), channel_axis=1)


def score_features(features: Features, text: NDArray[np.float32], settings: ClipSettings) -> NDArray[np.float16]:
    """Return the cosines (B, C, h, w) f16 of features (B, D, h, w) and class embeddings (C, D), denoised if asked for.

    Of the refinements, only prompt denoising needs nothing but the cosines.
    """
    import torch

    from labelgen.teachers.clip.refinements import denoise_prompts

    logits = torch.einsum("bdhw,cd->bchw", torch.from_numpy(features), torch.from_numpy(text))
    if settings.prompt_denoising is not None:
        logits = denoise_prompts(logits, settings.prompt_denoising)
    scores: NDArray[np.float16] = logits.half().numpy()
    return scores


def load_text_encoder(url: str, manifest: CacheManifest) -> "ClipTeacher":
    """Load the CLIP of the cache at `url` on the CPU, to embed sentences.

    Raises:
        ConfigError: if the weights that the cache's settings name are other ones here.
        WeightsError: if they are absent.
    """
    from labelgen.teachers.clip.teacher import ClipTeacher

    settings, held = ClipSettings.model_validate(manifest.config["clip"]), manifest.teachers.networks["clip"]
    if (found := identify(settings)).sha256 != held.sha256:
        raise ConfigError(
            f"{url}: was made by CLIP weights with SHA-256 {held.sha256}, and {settings.weights} here has "
            f"{found.sha256}; put the same weights there"
        )
    return ClipTeacher(settings)
