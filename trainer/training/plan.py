"""The plan of a run: all its steps, numbered from 0 over all epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from trainer.data.sampler import Step, epoch_order, steps_of_epoch
from trainer.data.stream import SampleRef
from trainer.settings import RunSettings
from trainer.training.ranks import Ranks


@dataclass(frozen=True)
class Plan:
    """The steps of one rank. Every epoch has the same number of steps."""

    samples: Sequence[SampleRef]
    settings: RunSettings
    ranks: Ranks

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return self.settings.optimiser.epochs

    @property
    def joint_batch(self) -> int:
        """The number of samples of a step on all ranks together; equal numbers give equal steps."""
        return self.settings.stream.batch_samples * self.ranks.world

    @cached_property
    def steps_per_epoch(self) -> int:
        """The number of steps in an epoch; see `steps_of_epoch` for the errors."""
        order = range(len(self.samples))
        return len(steps_of_epoch(order, 0, self.settings.stream.batch_samples, self.ranks.rank, self.ranks.world))

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
        """Return this rank's steps of an epoch."""
        stream = self.settings.stream
        order = epoch_order(self.samples, self.settings.seed, epoch, stream.window_shards)
        return steps_of_epoch(order, epoch, stream.batch_samples, self.ranks.rank, self.ranks.world)

    def steps_from(self, number: int) -> list[Step]:
        """Return this rank's steps of all epochs, without the first `number`."""
        return [step for epoch in range(self.epochs) for step in self.steps_of(epoch)][number:]
