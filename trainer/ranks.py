"""The ranks that train together: one process alone, torchrun's, or those that somebody else has already joined."""

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """A process among `world` ones that train together; `device` is its own."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def joint(self, values: Tensor) -> Tensor:
        """Return the sum of values over all ranks."""
        if self.world == 1:
            return values
        values = values.clone()
        distributed.all_reduce(values)
        return values

    def any(self, told: bool) -> bool:
        """Tell all ranks whether one of them was told something."""
        return told if self.world == 1 else bool(self.joint(torch.tensor(int(told), device=self.device)))

    def wrap(self, model: nn.Module) -> nn.Module:
        """Put the model on this rank's device, and let gradients be averaged over ranks."""
        model = model.to(self.device)
        if self.world == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model)


def join_ranks() -> Ranks:
    """Join the ranks that torchrun has started, or be the only one; a GPU each, if there are any."""
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
    """Part from the other ranks, if any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
