"""Small CLIP architectures, teachers of them, and inputs for them."""

import json
from pathlib import Path

import numpy as np
import open_clip
import torch

from labelgen.settings import ClipSettings
from labelgen.teachers.clip.teacher import ClipTeacher

Weights = dict[str, np.ndarray]

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


def register_toys(folder: Path) -> None:
    """Make the architectures of these tests known to open_clip."""
    for name, config in TOYS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def make_clip_teachers() -> dict[str, ClipTeacher]:
    """Return teachers with no parameter at zero or one, so that a test notices if one is not used."""
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


def random_images(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def unit_rows(count: int, width: int, seed: int = 1) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=0, keepdims=True)


def normalised(rgb: np.ndarray) -> torch.Tensor:
    images = (rgb / 255 - OPENAI_MEAN) / OPENAI_STD
    return torch.from_numpy(images.transpose(0, 3, 1, 2)).float()


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    raised = np.exp(x - x.max(axis=axis, keepdims=True))
    return raised / raised.sum(axis=axis, keepdims=True)
