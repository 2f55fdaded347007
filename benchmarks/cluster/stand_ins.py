"""Teachers that answer at once, or after a given time, with tiny arrays of the layout.

`install` replaces the real ones in the table of stages. Ray calls it at the start of each worker process, because the
environment names it as the setup hook.
"""

import os
import time
from dataclasses import replace
from typing import Any

import numpy as np

from labelgen.stages import STAGES, TEACHERS
from labelgen.stages.inputs import Arrays, ShardInputs
from labelgen.stages.stage import Teacher, TeacherCall

SECONDS = "STAND_IN_SECONDS_OF_A_SAMPLE"
"""The environment variable with the time that the SAM stand-in takes for a sample."""

CLASSES, CLIP_WIDTH, SAM_WIDTH = 16, 8, 8


def install() -> None:
    """Replace all teachers in this process."""
    for name in TEACHERS:
        TEACHERS[name] = Teacher(name, lambda resolved, device: None)
    for stage, make in (("text", _text), ("clip", _clip), ("sam", _sam)):
        build = STAGES[stage].build
        assert isinstance(build, TeacherCall)
        decode = (lambda inputs: None) if build.decode else None
        call = TeacherCall(TEACHERS[build.teacher.name], _receive(stage), make, _join, decode)
        STAGES[stage] = replace(STAGES[stage], build=call)


def _receive(stage: str) -> Any:
    def receive(model: None, inputs: ShardInputs, decoded: None) -> tuple[int, int, tuple[int, int]]:
        if stage == "clip":
            inputs.open("images", "rgb")[inputs.images]  # the real one reads these too
        images = sum(len(sample.cameras) for sample in inputs.samples)
        return images, len(inputs.samples), inputs.settings.images.size

    return receive


def _text(model: None, batch: Any) -> Arrays:
    embeddings = np.random.default_rng(0).normal(size=(CLASSES, CLIP_WIDTH)).astype(np.float32)
    return {"embeddings": embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)}


def _clip(model: None, batch: tuple[int, int, tuple[int, int]]) -> Arrays:
    images, _, (height, width) = batch
    return {"logits": np.zeros((images, CLASSES, height // 16, width // 16), np.float16)}


def _sam(model: None, batch: tuple[int, int, tuple[int, int]]) -> Arrays:
    images, samples, size = batch
    time.sleep(samples * float(os.environ.get(SECONDS, "0")))
    return {
        "mask_ids": np.zeros((images, *size), np.uint16),
        "features": np.zeros((images, 2, 2, SAM_WIDTH), np.int8),
        "features_scale": np.ones((images, SAM_WIDTH), np.float32),
    }


def _join(parts: Any) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
