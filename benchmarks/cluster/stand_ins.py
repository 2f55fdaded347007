"""Teachers that answer at once, or after a given time, with tiny arrays of the layout.

`install` replaces the real ones in the table of stages. Ray calls it at the start of each worker process, because the
environment names it as the setup hook. If the environment says so, CPU stages are replaced too: each builds its arrays
once in a process for a number of samples, and then returns the same arrays after a given time. They are read by nobody.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from ray._private import ray_constants

from labelgen.stages import STAGES, TEACHERS
from labelgen.stages.inputs import Arrays, ShardInputs
from labelgen.stages.stage import Teacher, TeacherCall

SECONDS = "STAND_IN_SECONDS_OF_A_SAMPLE"
"""The environment variable with the time that the SAM stand-in takes for a sample."""

CPU_SECONDS = "STAND_IN_SECONDS_OF_CPU_STAGES"
"""The environment variable with the seconds that one task takes, as JSON by its name, such as `images` or `write sam`;
tasks that are not named take no time. Without the variable, CPU stages are the real ones."""

CLASSES, CLIP_WIDTH, SAM_WIDTH = 16, 8, 8


def install_everywhere(seconds: float, cpu_seconds: str | None = None) -> None:
    """Replace the stages in this process and in all workers that Ray starts from now on.

    `seconds` is what the SAM stand-in takes for a sample. `cpu_seconds` also replaces CPU stages; see `CPU_SECONDS`.
    """
    os.environ[ray_constants.WORKER_PROCESS_SETUP_HOOK_ENV_VAR] = f"{__name__}.install"
    os.environ[SECONDS] = str(seconds)
    if cpu_seconds:
        os.environ[CPU_SECONDS] = cpu_seconds
    install()


def install() -> None:
    """Replace all teachers, and CPU stages if the environment says so, in this process."""
    given = os.environ.get(CPU_SECONDS)
    seconds: dict[str, float] = json.loads(given) if given else {}
    for name in TEACHERS:
        TEACHERS[name] = Teacher(name, lambda resolved, device: None)
    for stage, make in (("text", _text), ("clip", _clip), ("sam", _sam)):
        build = STAGES[stage].build
        assert isinstance(build, TeacherCall)
        decode = (lambda inputs: None) if build.decode else None
        join = _slow(_join, seconds.get(f"write {stage}", 0.0))
        call = TeacherCall(TEACHERS[build.teacher.name], _receive(stage), make, join, decode)
        STAGES[stage] = replace(STAGES[stage], build=call)
    for name, declared in STAGES.items():
        if given and not isinstance(declared.build, TeacherCall):
            build_once = _slow(_once(declared.build), seconds.get(name, 0.0))
            join_slowly = declared.join and _slow(declared.join, seconds.get(f"write {name}", 0.0))
            STAGES[name] = replace(declared, build=build_once, join=join_slowly)


def _once(build: Callable[[ShardInputs], Arrays]) -> Callable[[ShardInputs], Arrays]:
    """Build for a number of samples only once in this process."""
    made: dict[int, Arrays] = {}

    def repeat(inputs: ShardInputs) -> Arrays:
        count = len(inputs.samples)
        if count not in made:
            made[count] = build(inputs)
        return made[count]

    return repeat


def _slow(work: Callable[[Any], Arrays], seconds: float) -> Callable[[Any], Arrays]:
    def slowly(inputs: Any) -> Arrays:
        time.sleep(seconds)
        return work(inputs)

    return slowly


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
