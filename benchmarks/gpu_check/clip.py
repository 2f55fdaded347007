"""Stage `clip`: dense class scores of CLIP ViT-B/16 at training size, in pictures a second by batch size."""

import statistics

import numpy as np

from benchmarks.gpu_check.context import Context
from benchmarks.gpu_check.pictures import TRAINING_SIZE, soft_blobs
from benchmarks.gpu_check.stage_record import StageRecord
from labelgen.settings import ClipSettings
from labelgen.teachers.clip.teacher import ClipTeacher

CLASSES, EMBEDDING = 16, 512


def measure(context: Context, record: StageRecord) -> None:
    """Record pictures a second and peak memory for each batch size."""
    teacher = ClipTeacher(ClipSettings(architecture="ViT-B-16-quickgelu", weights="untrained:0"), context.device)
    text = np.random.default_rng(0).normal(size=(CLASSES, EMBEDDING)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    for batch in context.sizes.clip_batches:
        with record.part(f"batch {batch}"):
            record.need(10, f"batch {batch}")
            pictures = np.stack(soft_blobs(batch, TRAINING_SIZE))
            context.forget_peak_memory()
            seconds = []
            for _ in range(context.sizes.rounds + 1):
                start = context.now_s()
                scores = teacher.score(pictures, text)
                seconds.append(context.now_s() - start)
            median = statistics.median(seconds[1:])
            record.add(
                f"batch {batch}",
                {
                    "ms_an_image": 1000 * median / batch,
                    "images_a_second": batch / median,
                    "peak_memory_gb": context.peak_memory_gb(),
                    "bytes_an_image": scores.logits.nbytes / batch,
                },
            )
