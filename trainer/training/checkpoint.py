"""What a checkpoint holds, and how a run resumes from it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainer.run_folder import RunFolder


@dataclass
class RunState:
    """How far a run has come: the number of finished steps, and the best agreement of the networks so far."""

    steps_done: int = 0
    best_agreement: float = -1.0


def checkpoint(model: nn.Module, optimiser: torch.optim.Optimizer, state: RunState) -> dict[str, Any]:
    """Return everything that a resumed run needs, as tensors and plain values."""
    values = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "step": state.steps_done,
        "best": state.best_agreement,
    }
    return values | ({"cuda_rng": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def resume(folder: RunFolder, model: nn.Module, optimiser: torch.optim.Optimizer) -> RunState:
    """Load the last checkpoint into the model, the optimiser and torch's random number generators.

    Raises:
        RunFolderError: if the checkpoint cannot be read.
    """
    values = folder.load("last")
    model.load_state_dict(values["model"])
    optimiser.load_state_dict(values["optimiser"])
    torch.set_rng_state(values["torch_rng"])
    if torch.cuda.is_available() and "cuda_rng" in values:
        torch.cuda.set_rng_state(values["cuda_rng"])
    return RunState(values["step"], values["best"])
