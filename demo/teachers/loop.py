"""The training loop that the demo's networks share: options, optimiser, schedule, log, checkpoints, weights file."""

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

from demo.teachers.views import Views, draw_views, load_views
from labelgen.teachers.checkpoints import state_digest

LOG_STEPS = 100
PEAK_RATE = 1e-3
WARM_UP, LEAST_WARM_UP_STEPS = 0.05, 1.5
"""Share of the steps that warm up, and how many at least: PyTorch's schedule divides by their number less one."""

GLIBC_TRIM_THRESHOLD, GLIBC_MMAP_MAX = -1, -4
"""Options of glibc's mallopt, as malloc.h numbers them."""


@dataclass(frozen=True)
class Training:
    """What changes from step to step: the model, its optimiser and schedule, and the generator of all random draws."""

    model: torch.nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    rng: np.random.Generator


def parse_arguments(description: str | None) -> argparse.Namespace:
    """Read a training script's options."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=Path, default=Path("out/demo-views"), help="rendered views, kept for next time")
    parser.add_argument("--scenes", type=int, default=300, help="training scenes of six views")
    parser.add_argument("--effort", type=float, default=1.0, help="share of the full number of steps")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    return parser.parse_args()


def training_views(args: argparse.Namespace) -> Views:
    """Render what is missing of the training views, and load them."""
    draw_views(args.views, args.scenes, args.workers)
    return load_views(args.views, args.scenes)


def train(
    model: torch.nn.Module,
    step: Callable[[], tuple[Tensor, float]],
    figure: str,
    steps: int,
    rng: np.random.Generator,
    args: argparse.Namespace,
    keep: torch.nn.Module | None = None,
    part: str = "",
) -> None:
    """Minimise the loss that `step` returns with a figure of merit; the rate warms up, then falls along a cosine.

    Takes `steps` steps at full effort, two at least; whatever one draws at random shall come from `rng`. Prints the
    mean figure every `LOG_STEPS` steps. In the end the weights, of the part to `keep` or of all, are written to the
    script's file, or beside it if this is but a `part` of the training, and read back. A file that as many steps on as
    many scenes made of the same weights is read at once, and a training that was stopped goes on after the last step
    that it printed, to the weights that it would have come to.
    """
    kept, file = keep or model, args.out.with_stem(f"{args.out.stem}-{part}") if part else args.out
    steps = max(2, round(steps * args.effort))
    made_by = f"{steps} steps on {args.scenes} scenes from {state_digest(model)}"
    if _maker(file) == made_by:
        print(f"{file} is there; remove it to train it anew", flush=True)
    else:
        print(f"training {file.stem}", flush=True)
        _keep_freed_memory()
        checkpoint = file.with_suffix(".checkpoint")
        _minimise(_start(model, steps, rng), step, figure, steps, checkpoint, made_by)
        _save(kept, file, made_by)
        checkpoint.unlink()
    kept.load_state_dict(load_file(file))


def _start(model: torch.nn.Module, steps: int, rng: np.random.Generator) -> Training:
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.02, betas=(0.9, 0.98))
    warm_up = max(WARM_UP, LEAST_WARM_UP_STEPS / steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps, pct_start=warm_up)
    return Training(model, optimiser, schedule, rng)


def _minimise(
    training: Training,
    step: Callable[[], tuple[Tensor, float]],
    figure: str,
    steps: int,
    checkpoint: Path,
    made_by: str,
) -> None:
    done, seconds = _read_checkpoint(training, checkpoint, made_by)
    start, figures = time.monotonic() - seconds, []
    for number in range(done + 1, steps + 1):
        loss, merit = step()
        training.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch does not annotate it
        torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        training.optimiser.step()
        training.schedule.step()
        figures.append(merit)
        if number % LOG_STEPS == 0 or number == steps:
            recent, seconds = np.mean(figures), time.monotonic() - start
            _write_checkpoint(training, checkpoint, {"made by": made_by, "done": number, "seconds": seconds})
            print(f"step {number} of {steps}: loss {loss:.3f}, {figure} {recent:.3f}, {seconds:.0f} s", flush=True)
            figures.clear()


def _read_checkpoint(training: Training, checkpoint: Path, made_by: str) -> tuple[int, float]:
    """Put a training where its checkpoint was written, if there is one; return the steps done and the seconds spent."""
    if not checkpoint.exists():
        return 0, 0.0
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if state["made by"] != made_by:
        return 0, 0.0
    training.model.load_state_dict(state["model"])
    training.optimiser.load_state_dict(state["optimiser"])
    training.schedule.load_state_dict(state["schedule"])
    training.rng.bit_generator.state = state["draws"]
    print(f"going on after step {state['done']}", flush=True)
    return state["done"], state["seconds"]


def _write_checkpoint(training: Training, checkpoint: Path, progress: dict[str, Any]) -> None:
    """Write all that a training needs to go on; the file is there when it is whole."""
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
    """Let glibc keep freed memory: to give it back and have it zeroed anew costs a fifth of a large step."""
    # GLIBC_TUNABLES, which pipelines/cluster.py gives to the processes that it starts, would be too late here.
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(GLIBC_MMAP_MAX, 0)
        libc.mallopt(GLIBC_TRIM_THRESHOLD, 2**31 - 1)


def half_precision(device: str) -> torch.autocast:
    """Return a context that computes in bf16, unless the CPU would have to emulate it, at a tenth of the speed."""
    kind, abilities = device.split(":")[0], torch.cpu.get_capabilities()
    able = kind != "cpu" or any(abilities.get(name) for name in ("amx_bf16", "avx512_bf16"))
    return torch.autocast(kind, torch.bfloat16, enabled=able)


def _save(model: torch.nn.Module, file: Path, made_by: str) -> None:
    """Write the weights in half precision, as safetensors; the file is there when it is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    weights = {name: tensor.detach().half().contiguous().cpu() for name, tensor in model.state_dict().items()}
    save_file(weights, unfinished, {"made by": made_by})
    unfinished.replace(file)


def _maker(file: Path) -> str | None:
    """Return what a weights file says that it was made by, None if there is none."""
    if not file.exists():
        return None
    with safe_open(file, "pt") as weights:
        found: str | None = (weights.metadata() or {}).get("made by")
    return found
