"""Loads the batches of steps ahead of time, in worker processes."""

import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from cache_schemas.errors import CacheError
from trainer.data.batch import Batch
from trainer.data.sampler import Step
from trainer.errors import TrainerError

PREFETCHED = 2
"""Batches that each worker prepares ahead of time."""

SHARED_MEMORY = Path("/dev/shm")
"""Where workers leave batches for the training process. Docker's default size is 64 MB."""

SPREAD = 1.5
"""How much larger than the first batch others may be."""


def load_batches(dataset: Dataset[Batch], steps: Sequence[Step], *, workers: int, pin_memory: bool) -> Iterator[Batch]:
    """Yield the batch of each step in order, prepared by `workers` processes (0: by this one).

    Raises:
        CacheError, UnfitCacheError: if a sample cannot be read.
        TrainerError: if the shared memory is too small for the workers.
    """
    if workers and steps:
        first_steps = {step.cache: step for step in reversed(steps)}
        largest = max((dataset[step] for step in first_steps.values()), key=lambda batch: batch.bytes)
        refuse_small_shared_memory(largest, workers)
    # Forked processes would share connections to object stores, which then hang.
    options: dict[str, Any] = (
        {"prefetch_factor": PREFETCHED, "multiprocessing_context": "forkserver"} if workers else {}
    )
    loader: DataLoader[Batch | Exception] = DataLoader(
        _BatchOrError(dataset),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_interrupt,
        generator=torch.Generator(),  # without, the loader would draw from the generator that a checkpoint restored
        **options,
    )
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield batch


def refuse_small_shared_memory(batch: Batch, workers: int) -> None:
    """Check that batches such as this one fit into the shared memory; a worker that finds it full would hang.

    Raises:
        TrainerError: if they do not; it says how many workers would do.
    """
    if not SHARED_MEMORY.is_dir():
        return
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    free, each = shutil.disk_usage(SHARED_MEMORY).free, SPREAD * batch.bytes * ranks
    if each * (PREFETCHED * workers + 1) > free:
        fitting = max(0, int((free / each - 1) // PREFETCHED))
        raise TrainerError(
            f"{SHARED_MEMORY} has {free / 1e6:.1f} MB free, too little for the batches of stream.workers = {workers} "
            f"(at most {PREFETCHED * workers + 1} of about {each / 1e6:.1f} MB); enlarge it, in Docker with "
            f"`--shm-size`, or use --set stream.workers={fitting}"
        )


class _BatchOrError(Dataset[Batch | Exception]):
    """The batch of a step, or the error in reading it: a worker's exception would arrive wrapped in its traceback."""

    def __init__(self, dataset: Dataset[Batch]) -> None:
        self._dataset = dataset

    def __getitem__(self, step: Step) -> Batch | Exception:
        try:
            return self._dataset[step]
        except (CacheError, TrainerError) as error:
            return error


def _ignore_interrupt(worker: int) -> None:
    """Let a worker survive Ctrl-C; the training process ends it after the current step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
