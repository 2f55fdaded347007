"""What the demo adds to labelgen, pipelines and trainer. setup.cfg registers each of these as an entry point."""

from pathlib import Path

from labelgen.weights import ShippedWeights

FOLDER = Path(__file__).parent

DATASET_CONFIG = FOLDER / "configs" / "dataset.yaml"
"""Settings of `labelgen run --dataset demo`."""

TEACHERS_CONFIG = FOLDER / "configs" / "teachers.yaml"
"""The teacher preset `demo`."""

TRAINER_CONFIG = FOLDER / "configs" / "trainer.yaml"
"""Defaults of `trainer fit` on caches of the demo."""

CLIP_ARCHITECTURE = FOLDER / "architectures" / "demo-vit-16.json"
"""Architecture of the demo's CLIP, as open_clip reads it."""

CLIP_WEIGHTS = ShippedWeights(
    FOLDER / "weights" / "demo-clip.safetensors",
    "abd4fdb3dab74abb3ee51ed1a0b47c74a390ee1bc1faca2d8fad1c365836d8aa",
    "CLIP of the demo world, of no use elsewhere",
)
SAM_WEIGHTS = ShippedWeights(
    FOLDER / "weights" / "demo-sam.safetensors",
    "6cf82559342c5dfe6c65dcd62c814a02b73e9c365f375bcab05c437c54b4c656",
    "SAM of the demo world, of no use elsewhere",
)

IMAGE_WEIGHTS = FOLDER / "weights" / "demo-small.safetensors"
"""Backbone of the trainer's small image network, trained on crops of the demo world."""
