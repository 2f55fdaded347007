"""Loads the batches of steps ahead of time, in worker processes."""

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from cache_schemas.errors import CacheError
from trainer.data.batch import Batch
from trainer.data.builder import BatchDataset
from trainer.data.sampler import Step
from trainer.errors import TrainerError


def load_batches(dataset: BatchDataset, steps: Sequence[Step], *, workers: int, pin_memory: bool) -> Iterator[Batch]:
    """Yield the batch of each step in order, prepared by `workers` processes (0: by this one).

    Raises:
        CacheError, UnfitCacheError: if a sample cannot be read.
    """
    # Forked processes would share connections to object stores, which then hang.
    options: dict[str, Any] = {"prefetch_factor": 2, "multiprocessing_context": "forkserver"} if workers else {}
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


class _BatchOrError(Dataset[Batch | Exception]):
    """The batch of a step, or the error in reading it: a worker's exception would arrive wrapped in its traceback."""

    def __init__(self, dataset: BatchDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, step: Step) -> Batch | Exception:
        try:
            return self._dataset[step]
        except (CacheError, TrainerError) as error:
            return error


def _ignore_interrupt(worker: int) -> None:
    """Let a worker survive Ctrl-C; the training process ends it after the current step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
