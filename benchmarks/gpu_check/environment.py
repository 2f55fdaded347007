"""Stage `environment`: the GPU, its driver, the packages, and the memory that is free."""

import os
import platform
import subprocess
from importlib import metadata

import torch

from benchmarks.gpu_check.context import Context
from benchmarks.gpu_check.stage_record import StageRecord

PACKAGES = ("torch", "torchvision", "numpy", "segment-anything", "open_clip_torch", "zarr", "spconv-cu126", "ray")
MATMUL_SIDE = 8192


def measure(context: Context, record: StageRecord) -> None:
    """Record what the machine is, and the bf16 rate of a large matrix product as a sign of its health."""
    record.add("python", platform.python_version())
    record.add("cores", os.cpu_count())
    record.add("packages", {name: _version(name) for name in PACKAGES})
    record.add("device", torch.cuda.get_device_name() if context.cuda else "CPU")
    if not context.cuda:
        return
    free, total = torch.cuda.mem_get_info()
    record.add("memory_gb", {"free": round(free / 1e9, 1), "total": round(total / 1e9, 1)})
    record.add("cuda", torch.version.cuda)
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,power.draw", "--format=csv,noheader"]
    with record.part("nvidia-smi"):
        record.add("nvidia-smi", subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip())
    record.add("bf16_matmul_tflops", round(_matmul_tflops(), 1))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _matmul_tflops(products: int = 10) -> float:
    a, b = torch.randn(2, MATMUL_SIDE, MATMUL_SIDE, device="cuda", dtype=torch.bfloat16).unbind()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(3):
        a @ b
    start.record()
    for _ in range(products):
        a @ b
    end.record()
    torch.cuda.synchronize()
    return 2 * MATMUL_SIDE**3 * products / (start.elapsed_time(end) / 1000) / 1e12
