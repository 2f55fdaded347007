"""The processes (ranks) of one training: this process alone, or those that torchrun or Ray Train started."""

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


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

    def wrap(self, model: nn.Module) -> nn.Module:
        """Move the model to this rank's device; with several ranks, make gradients the average over ranks."""
        model = model.to(self.device)
        if self.world == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model)


def join_ranks() -> Ranks:
    """Join the process group of torchrun or Ray Train, or be the only rank; each rank takes a GPU if there are any."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized() and "WORLD_SIZE" in os.environ:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if not distributed.is_initialized():
        return Ranks(0, 1, device)
    return Ranks(distributed.get_rank(), distributed.get_world_size(), device)


def leave_ranks() -> None:
    """Leave the process group, if there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
