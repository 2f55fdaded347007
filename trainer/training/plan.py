"""The plan of a run: all its steps, numbered from 0 over all epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trainer.data.sampler import Step, epoch_order, steps_of_epoch
from trainer.data.stream import SampleRef
from trainer.settings import RunSettings
from trainer.training.ranks import Ranks


@dataclass(frozen=True)
class Plan:
    """The steps of one rank. Every epoch has the same number of steps of each cache.

    The steps of a cache are one sequence over all epochs: a pass over its samples, then the next pass in another order.
    An epoch takes the next ones, so that it may end within a pass.

    Attributes:
        samples: the training samples of each cache.
        settings: of the run.
        ranks: those that train together.
        shares: of the steps of an epoch, one for each cache. If empty, an epoch is one pass over each cache.
    """

    samples: Sequence[Sequence[SampleRef]]
    settings: RunSettings
    ranks: Ranks
    shares: Sequence[int] = ()

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return self.settings.optimiser.epochs

    @property
    def joint_batch(self) -> int:
        """The number of samples of a step on all ranks together; equal numbers give equal steps."""
        return self.settings.stream.batch_samples * self.ranks.world

    @cached_property
    def steps_per_pass(self) -> tuple[int, ...]:
        """By cache, the number of steps that take each sample once; see `steps_of_epoch` for the errors."""
        return tuple(len(self._divide(range(len(samples)), 0, cache)) for cache, samples in enumerate(self.samples))

    @cached_property
    def steps_by_cache(self) -> tuple[int, ...]:
        """By cache, its number of steps in an epoch, at least 1.

        All together are as many as one pass over each cache, up to the rounding of the shares.
        """
        if not self.shares:
            return self.steps_per_pass
        steps, whole = sum(self.steps_per_pass), sum(self.shares)
        return tuple(max(1, round(steps * share / whole)) for share in self.shares)

    @cached_property
    def steps_per_epoch(self) -> int:
        """The number of steps in an epoch."""
        return sum(self.steps_by_cache)

    @property
    def total_steps(self) -> int:
        """The number of steps in all epochs."""
        return self.steps_per_epoch * self.epochs

    def epoch_and_step(self, number: int) -> tuple[int, int]:
        """Return the epoch of a step, and the step's number in it."""
        return divmod(number, self.steps_per_epoch)

    def ends_epoch(self, number: int) -> bool:
        """Return whether a step is the last of its epoch."""
        return (number + 1) % self.steps_per_epoch == 0

    def steps_of(self, epoch: int) -> list[Step]:
        """Return this rank's steps of an epoch. All ranks take the caches in the same order, which the seed decides."""
        turns = np.repeat(np.arange(len(self.samples)), self.steps_by_cache)
        rng = np.random.default_rng([self.settings.seed, epoch, self.steps_per_epoch])
        steps = [iter(self._steps_of_cache(cache, epoch)) for cache in range(len(self.samples))]
        return [next(steps[cache]) for cache in rng.permutation(turns)]

    def steps_from(self, number: int) -> list[Step]:
        """Return this rank's steps of all epochs, without the first `number`."""
        return [step for epoch in range(self.epochs) for step in self.steps_of(epoch)][number:]

    def _steps_of_cache(self, cache: int, epoch: int) -> list[Step]:
        """Return the steps that an epoch takes from a cache."""
        length, count = self.steps_per_pass[cache], self.steps_by_cache[cache]
        (first, start), (last, _) = divmod(epoch * count, length), divmod((epoch + 1) * count - 1, length)
        steps = [step for number in range(first, last + 1) for step in self._steps_of_pass(cache, number)]
        return steps[start : start + count]

    def _steps_of_pass(self, cache: int, number: int) -> list[Step]:
        order = epoch_order(self.samples[cache], self.settings.seed, number, self.settings.stream.window_shards)
        return self._divide(order, number, cache)

    def _divide(self, order: Sequence[int], number: int, cache: int) -> list[Step]:
        batch_samples = self.settings.stream.batch_samples
        return steps_of_epoch(order, number, batch_samples, self.ranks.rank, self.ranks.world, cache)
