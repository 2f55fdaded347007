"""Seconds and requests to open a cache in an object store, and the samples a second that a training gets from there.

    python -m benchmarks.object_store --cache out/demo.zarr [--latency-ms 100] [--shards 100] [--steps 24]

The cache is made at nuScenes' sizes from the demo's: shards of 8 samples, whose pictures, clouds and labels are the
demo's and whose SAM features have full width. A server in another process answers each request after the latency. The
samples are those of a training's first steps. Wall-clock seconds.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from benchmarks.made_cache import repeat_shard, write_nuscenes_size
from benchmarks.object_store_server import BUCKET, requests_so_far, serve
from cache_schemas.store import Cache
from trainer.data.loader import load_batches
from trainer.data.sampler import Step, epoch_order, steps_of_epoch
from trainer.data.training_caches import BatchesOfCaches, TrainingCache, open_training_stream
from trainer.settings import RunSettings, load_settings

T = TypeVar("T")

SHARD_SAMPLES, STEP_SAMPLES, WORKERS, SKIPPED = 8, 4, 4, 2


def measure(url: str, address: str, steps: int, folder: Path) -> Iterator[str]:
    """Yield a line for each measurement. Reads follow one another in the order of a training's first epoch."""
    settings, timed = _settings(), _Timer(address)
    opened = timed(lambda: open_training_stream(settings, url))
    shards = len({ref.shard for ref in opened.stream.samples})
    yield f"open {shards} shards: {timed.seconds:.1f} s, {timed.cpu_s:.1f} s of CPU, {timed.requests} requests"
    order = epoch_order(opened.samples, 0, 0, settings.stream.window_shards)
    alone, in_steps, by_workers = np.split(np.array(order), [STEP_SAMPLES * steps, 2 * STEP_SAMPLES * steps])
    by_workers = by_workers[: STEP_SAMPLES * (steps + SKIPPED * WORKERS)]
    yield f"samples one by one: {_rate(timed, opened, settings, _steps(alone[:steps], 1), 0)}"
    yield f"steps of {STEP_SAMPLES} samples: {_rate(timed, opened, settings, _steps(in_steps, STEP_SAMPLES), 0)}"
    of_workers = _steps(by_workers, STEP_SAMPLES)
    yield f"steps of {STEP_SAMPLES}, {WORKERS} workers: {_rate(timed, opened, settings, of_workers, WORKERS)}"
    copying = _settings(f"stream.local_copy={folder / 'copy'}")
    for what in ("copying", "from the copy"):
        rate = _rate(timed, open_training_stream(copying, url), copying, _steps(in_steps, STEP_SAMPLES), 0)
        yield f"steps of {STEP_SAMPLES}, stream.local_copy, {what}: {rate}"
    rate = _rate(timed, open_training_stream(copying, url), copying, _steps(in_steps, STEP_SAMPLES), WORKERS)
    yield f"steps of {STEP_SAMPLES}, {WORKERS} workers, from the copy: {rate}"


class _Timer:
    """The wall-clock seconds, the CPU seconds of this process, and the requests of the last call."""

    def __init__(self, address: str) -> None:
        self._address, self.seconds, self.cpu_s, self.requests = address, 0.0, 0.0, 0

    def __call__(self, work: Callable[[], T]) -> T:
        start, cpu_start, before = time.monotonic(), time.process_time(), requests_so_far(self._address)
        result = work()
        self.seconds, self.cpu_s = time.monotonic() - start, time.process_time() - cpu_start
        self.requests = requests_so_far(self._address) - before
        return result


def _steps(order: np.ndarray, samples: int) -> list[Step]:
    return steps_of_epoch(order.tolist(), 0, samples)


def _rate(timed: _Timer, opened: TrainingCache, settings: RunSettings, steps: list[Step], workers: int) -> str:
    """Load steps and return the samples a second. Batches that workers prepare while they start are left out."""
    batches = load_batches(BatchesOfCaches([opened], settings), steps, workers=workers, pin_memory=False)
    skipped = SKIPPED * workers
    list(itertools.islice(batches, skipped))
    timed(lambda: list(batches))
    samples = sum(len(step.sample_indices) for step in steps[skipped:])
    rate = f"{samples / timed.seconds:.1f} samples/s, {timed.requests / samples:.1f} requests a sample"
    return rate if workers else f"{rate}, {1000 * timed.cpu_s / samples:.0f} ms of CPU a sample"


def _settings(*overrides: str) -> RunSettings:
    return load_settings("demo", overrides=["stream.images=6", f"stream.batch_samples={STEP_SAMPLES}", *overrides])


def main() -> None:
    """Make the cache, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--latency-ms", type=float, default=100)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--steps", type=int, default=24, help="of each measurement, after the start of workers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "bucket", "made.zarr")
        write_nuscenes_size(*Cache.open(args.cache), str(made), SHARD_SAMPLES)
        repeat_shard(str(made), args.shards)
        with serve(made.parent, args.latency_ms / 1000) as (address, environment):
            os.environ |= environment
            for line in measure(f"s3://{BUCKET}/made.zarr", address, args.steps, Path(folder)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
