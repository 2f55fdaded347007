"""The files that the demo adds to labelgen, pipelines and trainer. setup.cfg registers each as an entry point.

This module imports nothing of ours, since the trainer must not import labelgen.
"""

from pathlib import Path

FOLDER = Path(__file__).parent

TEACHERS_CONFIG = FOLDER / "configs" / "teachers.yaml"
"""The teacher preset `demo`."""

TRAINER_CONFIG = FOLDER / "configs" / "trainer.yaml"
"""Defaults of `trainer fit` on caches of the demo."""

CLIP_ARCHITECTURE = FOLDER / "architectures" / "demo-vit-16.json"
"""Architecture of the demo's CLIP, as open_clip reads it."""

IMAGE_WEIGHTS = FOLDER / "weights" / "demo-small.safetensors"
"""Backbone of the trainer's small image network, trained on crops of the demo world."""
