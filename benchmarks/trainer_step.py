"""Where the time of a training step goes: data, 2D, 3D, refinement, losses, backward, and the whole step.

    python benchmarks/trainer_step.py CACHE [--steps 10] [--threads 1] [--set networks.cloud=minkunet34 ...]

On a GPU if there is one. Each part is timed alone after a warm-up, medians over the steps. The sizes of the paper:
`--set networks.image=deeplabv3-resnet50 --set networks.cloud=minkunet34 --set networks.voxel_m=0.1
--set stream.images=6 --set stream.batch_samples=4 --set optimiser.precision=bf16`.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cache_schemas.store import Cache
from trainer.data.builder import BatchDataset
from trainer.fit import make_run_record, open_training_stream
from trainer.networks.model import CnsModel
from trainer.settings import load_settings
from trainer.training.optimiser import make_optimiser
from trainer.training.plan import Plan
from trainer.training.ranks import join_ranks
from trainer.training.step import Trainer, predicted_classes
from trainer.vote import refine_pixels


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    ranks = join_ranks()
    settings = load_settings(Cache.open(args.cache)[1].dataset, overrides=args.overrides)
    stream, samples = open_training_stream(settings, args.cache)
    text = torch.from_numpy(stream.text_embeddings())
    model = CnsModel(settings, text, make_run_record(settings, stream, samples).teacher_widths).to(ranks.device).train()
    plan = Plan(samples, settings, ranks)
    trainer = Trainer(model, model, make_optimiser(model, settings.optimiser), plan)
    batches, steps = BatchDataset(stream, samples, settings), plan.steps_of(0)
    times: dict[str, list[float]] = {}

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if ranks.device.type == "cuda":
            torch.cuda.synchronize()
        times.setdefault(part, []).append(time.perf_counter() - start)

    images = points = 0
    for number in range(args.steps + 2):
        with timed("data, no worker"):
            batch = batches[steps[number % len(steps)]]
        batch = batch.to(ranks.device)
        with torch.autocast(ranks.device.type, torch.bfloat16, enabled=settings.optimiser.precision == "bf16"):
            with timed("2D forward"):
                pixels = model.image(batch.rgb)
            with timed("2D backward"):
                pixels.float().sum().backward()
        with timed("3D forward"):
            voxels = model.cloud(batch.voxel_features, batch.voxels, batch.batch_size)
        with timed("3D backward"):
            voxels.sum().backward()
        with timed("both forward with heads"):
            outputs = model(batch)
        predictions = predicted_classes(outputs)
        with timed("refine predictions"):
            refine_pixels(predictions.pixels, batch.mask_ids, batch.mask_count, len(text))
        with timed("losses"):
            trainer.losses(number, batch, outputs, predictions)
        del outputs, pixels, voxels
        with timed("whole step"):
            trainer.step(number, batch)
        images, points = images + len(batch.rgb), points + len(batch.point_labels)
    device = torch.cuda.get_device_name() if ranks.device.type == "cuda" else f"CPU, {args.threads} threads"
    print(f"{device}; {images / (args.steps + 2):.0f} images and {points / (args.steps + 2):.0f} points a step")
    for part, found in times.items():
        print(f"{part:26} {1000 * statistics.median(found[2:]):8.1f} ms")
    if ranks.device.type == "cuda":
        print(f"most memory                {torch.cuda.max_memory_allocated() / 1e9:8.1f} GB")


if __name__ == "__main__":
    main()
