"""The training loop that both demo teachers share: options, optimiser, schedule, log, weights file."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.demo.teachers.views import Views, draw_views, load_views

LOG_STEPS = 100
PEAK_RATE = 1e-3


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
    args: argparse.Namespace,
    keep: torch.nn.Module | None = None,
) -> None:
    """Minimise the loss that `step` returns with a figure of merit; the rate warms up, then falls along a cosine.

    Takes `steps` steps at full effort. Prints the mean figure and writes the weights, of the part to `keep` or of all,
    every `LOG_STEPS` steps.
    """
    steps = max(1, round(steps * args.effort))
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps, pct_start=0.05)
    start, figures = time.monotonic(), []
    for number in range(1, steps + 1):
        loss, merit = step()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        figures.append(merit)
        if number % LOG_STEPS == 0 or number == steps:
            recent, seconds = np.mean(figures[-LOG_STEPS:]), time.monotonic() - start
            print(f"step {number}: loss {loss:.3f}, {figure} {recent:.3f}, {seconds:.0f} s", flush=True)
            save(keep or model, args.out)


def half_precision(device: str) -> torch.autocast:
    """Return a context that computes in bf16, unless the CPU would have to emulate it, at a tenth of the speed."""
    kind, abilities = device.split(":")[0], torch.cpu.get_capabilities()
    able = kind != "cpu" or any(abilities.get(name) for name in ("amx_bf16", "avx512_bf16"))
    return torch.autocast(kind, torch.bfloat16, enabled=able)


def save(model: torch.nn.Module, file: Path) -> None:
    """Write the weights in half precision, as safetensors."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().half().contiguous().cpu() for name, tensor in model.state_dict().items()}, file)
