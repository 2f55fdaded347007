"""The processes (ranks) of one training: this process alone, or those that torchrun or Ray Train started."""

import gc
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cache_schemas.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """A process of a training, among the `world` processes that train together.

    Attributes:
        rank: this process's number, from 0.
        world: the number of processes.
        device: this process's device.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports for all."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all ranks, on all ranks."""
        if self.world == 1:
            return values
        values = values.clone()
        distributed.all_reduce(values)
        return values

    def any(self, value: bool) -> bool:
        """Return on all ranks whether `value` is true on any."""
        return value if self.world == 1 else bool(self.sum(torch.tensor(int(value), device=self.device)))

    def from_first(self, make: Callable[[], T]) -> T:
        """Return on all ranks what `make` returns on the first; only there it is called.

        Raises:
            UserError: on all ranks, if `make` raises one.
        """
        if self.world == 1:
            return make()
        outcome: list[T | UserError | None] = [None]
        if self.is_first:
            try:
                outcome[0] = make()
            except UserError as error:
                outcome[0] = error
        distributed.broadcast_object_list(outcome, src=0)
        (value,) = outcome
        if isinstance(value, UserError):
            raise value
        return value  # type: ignore[return-value]  # None only if `make` returned it

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks in their order, on all ranks."""
        if self.world == 1:
            return [value]
        values: list[T | None] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # all are filled

    def wait_for_all(self) -> None:
        """Return when all ranks have called this."""
        if self.world > 1:
            distributed.barrier()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Move the model to this rank's device; with several ranks, make gradients the average over ranks."""
        model = model.to(self.device)
        if self.world == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model)


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the ranks, and leave them at the end.

    With the group, Gloo's threads end. One that is still alive when the interpreter exits can abort the process, since
    it may have to free a tensor of Python. The threads end only if nothing refers to the group: what holds a wrapped
    model must be a local variable of functions that have returned or raised.
    """
    try:
        yield join_ranks()
    except BaseException as error:
        if distributed.is_initialized():
            _clear_frames(error)
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
            gc.collect()  # a wrapped model is in reference cycles


def join_ranks() -> Ranks:
    """Join the process group of torchrun or Ray Train, or be the only rank; each rank takes a GPU if there are any."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True  # pictures of a run have one size, so the search for kernels pays
    if not distributed.is_initialized() and "WORLD_SIZE" in os.environ:
        # The wrapper of models imports this module, whose default arguments are the group that exists then: they would
        # keep it to the end of the process.
        from torch.distributed.nn import functional  # noqa: F401

        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if not distributed.is_initialized():
        return Ranks(0, 1, device)
    return Ranks(distributed.get_rank(), distributed.get_world_size(), device)


def _clear_frames(error: BaseException | None) -> None:
    """Clear the local variables of the functions that an error, and those before it, came through."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
