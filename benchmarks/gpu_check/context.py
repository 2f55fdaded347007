"""What every stage is given, and a clock that waits for the device."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu_check.sizes import Sizes


@dataclass(frozen=True)
class Context:
    """The device (`cuda` or `cpu`), the sizes, a demo world, a cache of its labels, and a folder for scratch files."""

    device: str
    sizes: Sizes
    world: Path
    cache: Path
    scratch: Path

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    def now_s(self) -> float:
        """Return the time in seconds once the device has finished its work."""
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def forget_peak_memory(self) -> None:
        """Start to measure the peak memory of the GPU from here."""
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_memory_gb(self) -> dict[str, float] | None:
        """Return the peak GPU memory in GB since `forget_peak_memory`: in tensors, and reserved; None on a CPU."""
        if not self.cuda:
            return None
        tensors, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return {"tensors": round(tensors / 1e9, 2), "reserved": round(reserved / 1e9, 2)}
