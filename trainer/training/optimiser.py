"""The optimiser and the schedule of its learning rate."""

import math

import torch

from trainer.settings import OptimiserSettings


def make_optimiser(model: torch.nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    """Return the optimiser of a model's trainable parameters; its learning rate is set at each step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if settings.kind == "adamw":
        return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def learning_rate(step: int, total_steps: int, settings: OptimiserSettings) -> float:
    """Return the learning rate of a step: a linear warm-up, then a cosine that falls to zero at `total_steps`."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(1, total_steps - settings.warmup_steps)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * share))
