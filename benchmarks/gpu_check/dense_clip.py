"""Stage `dense_clip`: what windows over larger pictures and attention within SAM's masks cost, beside one picture.

Random weights, which take as long as trained ones. Decoding and resizing are not part of the times, nor is SAM, whose
masks `clip.scope=sam` needs in any case for the vote.
"""

import copy
import statistics

import numpy as np

from benchmarks.gpu_check.context import Context
from benchmarks.gpu_check.pictures import TRAINING_SIZE, soft_blobs
from benchmarks.gpu_check.stage_record import StageRecord
from labelgen.settings import ClipSettings
from labelgen.teachers.clip.attention import NO_GUIDES, Guides
from labelgen.teachers.clip.network import patch_size_px
from labelgen.teachers.clip.sam_guides import masks_at_patches
from labelgen.teachers.clip.teacher import ClipTeacher

CLASSES = 16
WINDOW_PX = 224
MASK_PX = 32
"""Side of the square masks: about 90 in a picture of training size."""

SECONDS_A_NETWORK = 15.0
"""How long one network takes on a GPU, so that none starts that would not end in time."""


def measure(context: Context, record: StageRecord) -> None:
    """Record milliseconds a picture and peak memory for each network and each way to read pictures."""
    for architecture in context.sizes.dense_clip:
        with record.part(architecture):
            record.need(SECONDS_A_NETWORK, architecture)
            _measure_network(context, record, architecture)


def _measure_network(context: Context, record: StageRecord, architecture: str) -> None:
    base = ClipSettings(architecture=architecture, weights="untrained:0")
    teacher = ClipTeacher(base, context.device)
    patch = patch_size_px(teacher.model.visual)
    one_picture, larger = ((rows, round(cols / patch) * patch) for rows, cols in (TRAINING_SIZE, _doubled()))
    windows = {"window": WINDOW_PX, "stride": WINDOW_PX // 2 // patch * patch}
    for size, settings in (
        (one_picture, {}),
        (one_picture, {"scope": "sam"}),
        (larger, {}),
        (larger, windows),
        (larger, {**windows, "scope": "sam"}),
    ):
        reader = copy.copy(teacher)
        reader.settings = base.model_copy(update=settings)
        chosen = " ".join(f"clip.{name}={value}" for name, value in settings.items())
        name = f"{architecture}, {size[0]} x {size[1]} {chosen}".rstrip()
        record.add(name, {"network": architecture, "size": size, "settings": chosen, **_times(context, reader, size)})


def _doubled() -> tuple[int, int]:
    return 2 * TRAINING_SIZE[0], 2 * TRAINING_SIZE[1]


def _times(context: Context, teacher: ClipTeacher, size: tuple[int, int]) -> dict[str, object]:
    """Return the median milliseconds of a picture, and the peak memory."""
    pictures = np.stack(soft_blobs(context.sizes.pictures, size))
    text = np.random.default_rng(0).normal(size=(CLASSES, teacher.model.visual.output_dim)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    guides = _masks(len(pictures), teacher.grid(size)) if teacher.settings.scope == "sam" else NO_GUIDES
    context.forget_peak_memory()
    seconds = []
    for _ in range(context.sizes.rounds + 1):
        start = context.now_s()
        teacher.score(pictures, text, guides)
        seconds.append(context.now_s() - start)
    return {
        "ms_an_image": 1000 * statistics.median(seconds[1:]) / len(pictures),
        "peak_memory_gb": context.peak_memory_gb(),
    }


def _masks(pictures: int, grid: tuple[int, int]) -> Guides:
    """Return square masks at the patches of pictures."""
    rows, cols = (np.arange(length) // MASK_PX for length in TRAINING_SIZE)
    ids = (1 + rows[:, None] * (cols.max() + 1) + cols).astype(np.uint16)
    return Guides(masks=masks_at_patches(np.repeat(ids[None], pictures, axis=0), grid))
