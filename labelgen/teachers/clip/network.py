"""Building open_clip models, with weights from a file or from a seed, and preparing images for them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING

from cache_schemas.errors import ConfigError
from cache_schemas.extensions import known_names, registered
from labelgen.settings import UNTRAINED, ClipSettings
from labelgen.teachers.checkpoints import load_into, untrained_seed
from labelgen.teachers.clip.input_range import input_range

if TYPE_CHECKING:
    from open_clip.model import CLIP, ModifiedResNet, VisionTransformer
    from torch import Tensor

TORCHSCRIPT_EXTRAS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Entries of OpenAI's archives that are no parameters of the model."""

RESNET_STRIDE_PX = 32

EXTENSIONS = "labelgen.clip_architectures"
"""Entry point group of architectures that other packages add: a name and the path of `<name>.json`."""


def build_clip(settings: ClipSettings) -> "CLIP":
    """Build the open_clip model that the settings name, and load its weights or draw them from the seed.

    Architectures are those of open_clip, the files `architectures/*.json`, and those that other packages register.
    Torch's global random generator is left as it was.

    Raises:
        ConfigError: if open_clip has no such architecture, it has no dense path, or the seed is not a whole number.
        WeightsError: if the weights are absent or do not fit the architecture.
    """
    import open_clip
    import torch

    with resources.as_file(resources.files("labelgen.teachers.clip") / "architectures") as folder:
        open_clip.add_model_config(folder)
        own = [file.stem for file in folder.glob("*.json")]
    for entry in registered(EXTENSIONS).values():
        open_clip.add_model_config(entry.load())
    if settings.architecture not in open_clip.list_models():
        raise ConfigError(
            f"clip.architecture {settings.architecture!r} is neither one of open_clip.list_models() "
            f"nor one of {', '.join(known_names(own, EXTENSIONS))}"
        )
    parts = open_clip.get_model_config(settings.architecture) or {}
    if "multimodal_cfg" in parts or parts.get("vision_cfg", {}).get("attentional_pool"):
        raise ConfigError(
            f"clip.architecture {settings.architecture!r} is a CoCa network, whose image features come from an "
            "attentional pool and not from patches; choose a CLIP network, such as ViT-B-16"
        )
    untrained = settings.weights.startswith(UNTRAINED)
    with torch.random.fork_rng(devices=[]), _no_missing_weights_warning():
        torch.manual_seed(untrained_seed(settings.weights) if untrained else 0)
        model = open_clip.create_model(settings.architecture, pretrained=None)
    if not (hasattr(model.visual, "transformer") or hasattr(model.visual, "attnpool")):
        raise ConfigError(f"clip.architecture {settings.architecture!r} is neither a ViT nor a ResNet of OpenAI's kind")
    if not untrained:
        load_into(model, settings.weights, ignore=TORCHSCRIPT_EXTRAS)
    model.visual.image_mean, model.visual.image_std = input_range(settings)
    return model


@contextmanager
def _no_missing_weights_warning() -> Iterator[None]:
    """Suppress open_clip's warning that the model has no pretrained weights: they are loaded afterwards."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def patch_size_px(visual: "VisionTransformer | ModifiedResNet") -> int:
    """Return the stride of an image tower's dense features in pixels."""
    return int(visual.patch_size[0]) if hasattr(visual, "transformer") else RESNET_STRIDE_PX


def normalise_images(visual: "VisionTransformer | ModifiedResNet", rgb: "Tensor") -> "Tensor":
    """Return images (B, H, W, 3) u8 as an image tower takes them: (B, 3, H, W) f32, by its own mean and deviation."""
    import torch

    mean = torch.tensor(visual.image_mean, device=rgb.device).view(3, 1, 1)
    std = torch.tensor(visual.image_std, device=rgb.device).view(3, 1, 1)
    return (rgb.permute(0, 3, 1, 2).float() / 255 - mean) / std
