"""Where the time of a training step goes: data, 2D, 3D, refinement, losses, and the whole step.

    python benchmarks/trainer_step.py CACHE [--steps 10] [--threads 1] [--set networks.cloud=minkunet34 ...]

On a GPU if there is one. Each part is timed alone after a warm-up, medians over the steps. The sizes of the paper:
`--set networks.image=deeplabv3-resnet50 --set networks.cloud=minkunet34 --set networks.voxel_m=0.1
--set stream.images=6 --set stream.batch_samples=4 --set optimiser.precision=bf16`.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from cache_schemas.store import Cache
from trainer.data.batch import Batch
from trainer.data.training_caches import BatchesOfCaches, open_training_stream, teacher_widths
from trainer.method_settings import Source
from trainer.networks.point_cloud import cloud_of
from trainer.schedule import TargetSources
from trainer.settings import load_settings
from trainer.training.model import TrainingModel, predicted_classes
from trainer.training.optimiser import make_optimiser
from trainer.training.plan import Plan
from trainer.training.ranks import join_ranks
from trainer.training.step import Trainer
from trainer.vote import refine_pixels

WARM_UP_STEPS = 2


def measure_step(cache: str, overrides: Sequence[str], steps: int, threads: int | None = None) -> dict[str, Any]:
    """Return the median milliseconds of each part of a step, its sizes, and the peak memory on a GPU."""
    if threads:
        torch.set_num_threads(threads)
    ranks = join_ranks()
    settings = load_settings(Cache.open(cache)[1].dataset, overrides=overrides)
    opened = open_training_stream(settings, cache)
    text = torch.from_numpy(opened.stream.text_embeddings())
    model = TrainingModel(settings, text, teacher_widths(settings, opened)).to(ranks.device).train()
    plan = Plan([opened.samples], settings, ranks)
    trainer = Trainer(model, model, make_optimiser(model, settings.optimiser), plan)
    batches, plan_steps = BatchesOfCaches([opened], settings), plan.steps_of(0)
    clock = PartClock(ranks.device)
    images = points = 0
    for number in range(steps + WARM_UP_STEPS):
        with clock.part("data, no worker"):
            batch = batches[plan_steps[number % len(plan_steps)]]
        batch = batch.to(ranks.device)
        _time_parts(clock, trainer, model, batch, number)
        images, points = images + len(batch.rgb), points + len(batch.point_labels)
    cuda = ranks.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} of {os.cpu_count()} cores",
        "images": images / (steps + WARM_UP_STEPS),
        "points": points / (steps + WARM_UP_STEPS),
        "ms": {part: 1000 * statistics.median(found[WARM_UP_STEPS:]) for part, found in clock.seconds.items()},
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
    }


class PartClock:
    """Seconds of each part of a step, by name; waits for the device at the end of a part."""

    def __init__(self, device: torch.device) -> None:
        """Time work on `device`."""
        self._device = device
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time one part."""
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)


def _time_parts(clock: PartClock, trainer: Trainer, model: TrainingModel, batch: Batch, number: int) -> None:
    settings, device = trainer.plan.settings, batch.rgb.device.type
    networks = model.networks
    sources = TargetSources(Source.OWN_3D, Source.OWN_2D)
    autocast = torch.autocast(device, torch.bfloat16, enabled=settings.optimiser.precision == "bf16")
    with clock.part("2D forward"), autocast:
        image = networks.apply_to_images(batch.rgb)
    with clock.part("2D backward"):
        image.scores.sum().backward()
    with clock.part("3D forward"):
        cloud = networks.apply_to_clouds(cloud_of(batch))
    with clock.part("3D backward"):
        cloud.scores.sum().backward()
    predictions = predicted_classes(image, cloud)
    assert predictions.pixels is not None
    with clock.part("refine predictions"):
        refine_pixels(predictions.pixels, batch.mask_ids, batch.mask_count, len(networks.text))
    with clock.part("forward with losses"), autocast:
        outputs = model(batch, sources)
    del outputs, image, cloud
    with clock.part("whole step"):
        trainer.step(number % trainer.plan.total_steps, batch)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    args = parser.parse_args()
    found = measure_step(args.cache, args.overrides, args.steps, args.threads)
    print(f"{found['device']}; {found['images']:.0f} images and {found['points']:.0f} points a step")
    for part, milliseconds in found["ms"].items():
        print(f"{part:26} {milliseconds:8.1f} ms")
    if found["peak_memory_gb"]:
        print(f"peak memory                {found['peak_memory_gb']:8.1f} GB")


if __name__ == "__main__":
    main()
