"""The training loop of the demo's networks: options, optimiser, learning rate, log, checkpoints, weights file."""

import argparse
import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from demo.teachers.views import Views, load_views, render_views
from labelgen.teachers.checkpoints import state_digest

LOG_STEPS = 100
PEAK_LEARNING_RATE = 1e-3
WARM_UP, LEAST_WARM_UP_STEPS = 0.05, 1.5
"""Share of the steps that warm up, and their least number: PyTorch's schedule divides by that number minus one."""

GLIBC_TRIM_THRESHOLD, GLIBC_MMAP_MAX = -1, -4
"""Numbers of mallopt's options in glibc's malloc.h."""


@dataclass(frozen=True)
class Training:
    """The state of a training: model, optimiser, learning rate schedule, and the generator of all random draws."""

    model: torch.nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    rng: np.random.Generator


def parse_arguments(description: str | None) -> argparse.Namespace:
    """Read a training script's options."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=Path, default=Path("out/demo-views"), help="folder of views, to be reused")
    parser.add_argument("--scenes", type=int, default=300, help="number of training scenes, six views each")
    parser.add_argument("--effort", type=float, default=1.0, help="fraction of the full number of steps")
    parser.add_argument("--workers", type=int, default=2, help="number of processes that render")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    return parser.parse_args()


def training_views(args: argparse.Namespace) -> Views:
    """Render the missing training views, and load all of them."""
    render_views(args.views, args.scenes, args.workers)
    return load_views(args.views, args.scenes)


def train(
    model: torch.nn.Module,
    step: Callable[[], tuple[Tensor, float]],
    metric: str,
    steps: int,
    rng: np.random.Generator,
    args: argparse.Namespace,
    keep: torch.nn.Module | None = None,
    stage: str = "",
) -> None:
    """Minimise a loss with AdamW, and write the weights as safetensors.

    The learning rate warms up, then falls along a cosine. The mean metric is printed every `LOG_STEPS` steps, and a
    checkpoint is written. An interrupted training resumes from its checkpoint and ends with the same weights. If the
    file exists and was trained for as many steps on as many scenes from the same initial weights, it is only loaded.

    Args:
        model: gets the trained weights, rounded to half precision as in the file.
        step: returns the loss and the metric of one step; all its random draws must come from `rng`.
        metric: name of the metric, for the log.
        steps: number of steps at full effort; at least two are taken.
        rng: the generator that `step` uses; it is saved with the checkpoint.
        args: options of the script.
        keep: the part of the model that is written; None for all of it.
        stage: added to the name of the file, where a training has several stages.
    """
    kept, file = keep or model, args.out.with_stem(f"{args.out.stem}-{stage}") if stage else args.out
    steps = max(2, round(steps * args.effort))
    made_by = f"{steps} steps on {args.scenes} scenes from {state_digest(model)}"
    if _read_made_by(file) == made_by:
        print(f"{file} is up to date; remove it to train it again", flush=True)
    else:
        print(f"training {file.stem}", flush=True)
        _keep_freed_memory()
        checkpoint = file.with_suffix(".checkpoint")
        _minimise(_start(model, steps, rng), step, metric, steps, checkpoint, made_by)
        _save(kept, file, made_by)
        checkpoint.unlink()
    kept.load_state_dict(load_file(file))


def _start(model: torch.nn.Module, steps: int, rng: np.random.Generator) -> Training:
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.02, betas=(0.9, 0.98))
    warm_up = max(WARM_UP, LEAST_WARM_UP_STEPS / steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LEARNING_RATE, total_steps=steps, pct_start=warm_up)
    return Training(model, optimiser, schedule, rng)


def _minimise(
    training: Training,
    step: Callable[[], tuple[Tensor, float]],
    metric: str,
    steps: int,
    checkpoint: Path,
    made_by: str,
) -> None:
    done, seconds = _read_checkpoint(training, checkpoint, made_by)
    start, figures = time.monotonic() - seconds, []
    for number in range(done + 1, steps + 1):
        loss, merit = step()
        training.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        training.optimiser.step()
        training.schedule.step()
        figures.append(merit)
        if number % LOG_STEPS == 0 or number == steps:
            recent, seconds = np.mean(figures), time.monotonic() - start
            _write_checkpoint(training, checkpoint, {"made by": made_by, "done": number, "seconds": seconds})
            print(f"step {number} of {steps}: loss {loss:.3f}, {metric} {recent:.3f}, {seconds:.0f} s", flush=True)
            figures.clear()


def _read_checkpoint(training: Training, checkpoint: Path, made_by: str) -> tuple[int, float]:
    """Restore a training from its checkpoint, if there is one; return the steps done and the seconds spent."""
    if not checkpoint.exists():
        return 0, 0.0
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if state["made by"] != made_by:
        return 0, 0.0
    training.model.load_state_dict(state["model"])
    training.optimiser.load_state_dict(state["optimiser"])
    training.schedule.load_state_dict(state["schedule"])
    training.rng.bit_generator.state = state["draws"]
    print(f"resuming after step {state['done']}", flush=True)
    return state["done"], state["seconds"]


def _write_checkpoint(training: Training, checkpoint: Path, progress: dict[str, Any]) -> None:
    """Write everything that a resumed training needs; the file appears only when it is complete."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": training.model.state_dict(),
        "optimiser": training.optimiser.state_dict(),
        "schedule": training.schedule.state_dict(),
        "draws": training.rng.bit_generator.state,
    }
    unfinished = checkpoint.with_suffix(".unfinished")
    torch.save(progress | state, unfinished)
    unfinished.replace(checkpoint)


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory: to return it to the kernel and get it zeroed again costs a fifth of a large step."""
    # GLIBC_TUNABLES is read only when a process starts, so it cannot be set here.
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(GLIBC_MMAP_MAX, 0)
        libc.mallopt(GLIBC_TRIM_THRESHOLD, 2**31 - 1)


def half_precision(device: str) -> torch.autocast:
    """Return a context that computes in bf16, except on CPUs that emulate it at a tenth of the speed."""
    kind, abilities = device.split(":")[0], torch.cpu.get_capabilities()
    able = kind != "cpu" or any(abilities.get(name) for name in ("amx_bf16", "avx512_bf16"))
    return torch.autocast(kind, torch.bfloat16, enabled=able)


def _save(model: torch.nn.Module, file: Path, made_by: str) -> None:
    """Write the weights in half precision as safetensors; the file appears only when it is complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    weights = {name: tensor.detach().half().contiguous().cpu() for name, tensor in model.state_dict().items()}
    save_file(weights, unfinished, {"made by": made_by})
    unfinished.replace(file)


def _read_made_by(file: Path) -> str | None:
    """Return how a weights file was trained, according to its metadata; None if there is no file."""
    if not file.exists():
        return None
    with safe_open(file, "pt") as weights:
        found: str | None = (weights.metadata() or {}).get("made by")
    return found
