"""CLIP's features of patches, as the cache holds them, and scores of them against text: without the image network."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelgen.settings import ClipSettings

Features = NDArray[np.float32]


def decode_features(stored: Mapping[str, NDArray[Any]]) -> Features:
    """Return the features (B, D, h, w) f32 of the arrays of a group `clip`."""
    return stored["features"].astype(np.float32)


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
