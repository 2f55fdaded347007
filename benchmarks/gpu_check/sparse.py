"""Stage `sparse`: spconv's forward and backward pass on CUDA against its CPU results, by network, with TF32 on and off.

    python -m benchmarks.gpu_check.sparse NETWORK OUT.safetensors [--cache CACHE] [--device cpu] [--tf32]

runs one network and writes its results. Each runs in a process of its own: without a visible GPU, `trainer` selects
spconv's CPU algorithm when it is imported.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.context import Context
from benchmarks.gpu_check.stage_record import StageRecord

TOLERANCE = 1e-3
"""Largest difference from the CPU, as a share of the largest value of each tensor."""

VOXEL_M = 0.1
SECONDS = 45.0


def measure(context: Context, record: StageRecord) -> None:
    """Record, for each network, the largest differences from the CPU, the times, and each layer's algorithm."""
    for network in context.sizes.sparse_networks:
        record.need(SECONDS, network)
        reference = _run(context, network, "cpu", tf32=False, tag="reference")
        for tf32 in (False, True) if context.cuda else (False,):
            name = f"{network}, TF32 {'on' if tf32 else 'off'}"
            with record.part(name):
                found = _run(context, network, context.device, tf32=tf32, tag="tf32" if tf32 else "fp32")
                record.add(name, _difference(reference, found))


def _run(context: Context, network: str, device: str, *, tf32: bool, tag: str) -> Path:
    """Run a network in a process of its own; returns the file with its results."""
    out = context.scratch / f"sparse-{network}-{tag}.safetensors"
    command = [sys.executable, "-m", "benchmarks.gpu_check.sparse", network, str(out)]
    command += ["--cache", str(context.cache), "--device", device, *(["--tf32"] if tf32 else [])]
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])}: {done.stderr.strip().splitlines()[-1:]}")
    return out


def _difference(reference: Path, found: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(reference, "pt") as cpu, safe_open(found, "pt") as device:
        names = sorted(cpu.keys())
        differences = {
            name: float(
                (device.get_tensor(name) - cpu.get_tensor(name)).abs().max()
                / cpu.get_tensor(name).abs().max().clamp(min=1e-12)
            )
            for name in names
        }
        about = device.metadata()
        reference_about = cpu.metadata()
    worst = max(differences, key=lambda name: differences[name])
    return {
        "forward": differences["output"],
        "largest_of_gradients": max(value for name, value in differences.items() if name != "output"),
        "worst_tensor": worst,
        "within_tolerance": differences[worst] <= TOLERANCE,
        "ms": float(about["ms"]),
        "cpu_ms": float(reference_about["ms"]),
        "voxels": int(about["voxels"]),
        "algorithms": about["algorithms"],
    }


def main() -> None:
    """Run one network forward and backward on the voxels of a cloud, and write output and gradients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("out", type=Path)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tf32", action="store_true")
    args = parser.parse_args()

    import torch
    from safetensors.torch import save_file

    from trainer.networks.minkunet import SHAPES, MinkUNet
    from trainer.networks.point_cloud import Cloud
    from trainer.networks.sparse import spconv

    if args.device != "cpu":
        import spconv.constants

        spconv.constants.SPCONV_ALLOW_TF32 = args.tf32
        torch.backends.cuda.matmul.allow_tf32 = args.tf32
    torch.manual_seed(0)
    network = MinkUNet(SHAPES[args.network], 2).eval().to(args.device)
    features, voxels = (part.to(args.device) for part in _voxels(args.cache))
    cloud = Cloud(voxels, features, torch.arange(len(voxels), device=args.device), 1)
    seconds = []
    for _ in range(3 if args.device != "cpu" else 1):
        network.zero_grad(set_to_none=True)
        start = time.perf_counter()
        output = network(cloud)[0].features
        (output.square().sum() / len(output)).backward()
        if args.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    results = {"output": output.detach()}
    results |= {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    about = {"ms": str(1000 * min(seconds)), "voxels": str(len(voxels)), "algorithms": _algorithms(network)}
    save_file({name: tensor.float().cpu().contiguous() for name, tensor in results.items()}, args.out, about)


def _voxels(cache_url: str) -> "tuple[Any, Any]":
    """Return features (V, 2) f32 and voxels (V, 4) i32 as (sample, z, y, x) of the first cloud of a cache."""
    import numpy as np
    import torch

    from cache_schemas.group_path import GroupPath
    from cache_schemas.store import Cache

    cache, _ = Cache.open(cache_url)
    points = cache.read(GroupPath(cache.shard_keys()[0], "points"))
    xyz, intensity = points["xyz"], points["intensity"]
    cells = np.floor((xyz - xyz.min(axis=0)) / VOXEL_M).astype(np.int32)[:, ::-1]
    voxels, first = np.unique(cells, axis=0, return_index=True)
    features = np.stack([intensity[first], xyz[first, 2]], axis=1).astype(np.float32)
    voxels = np.pad(voxels, ((0, 0), (1, 0)))
    return torch.from_numpy(features), torch.from_numpy(np.ascontiguousarray(voxels, np.int32))


def _algorithms(network: Any) -> str:
    """Return, by algorithm, how many convolution layers use it and their kernel sizes."""
    counts: dict[str, int] = {}
    for layer in network.modules():
        if hasattr(layer, "algo") and hasattr(layer, "kernel_size"):
            name = f"{layer.algo.name}, kernel {'x'.join(map(str, layer.kernel_size))}"
            counts[name] = counts.get(name, 0) + 1
    return "; ".join(f"{count} layers {name}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    main()
