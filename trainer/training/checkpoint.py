"""What a checkpoint holds, and how a run resumes from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainer.errors import RunFolderError
from trainer.networks.model import PREFIX
from trainer.run_folder import RunFolder, load_checkpoint
from trainer.training.plan import Plan

Checkpoint = dict[str, Any]
"""Tensors and plain values, as `checkpoint` makes them."""


@dataclass
class RunState:
    """How far a run has come: the number of finished steps, and the best agreement of the networks so far."""

    steps_done: int = 0
    best_agreement: float = -1.0


def checkpoint(model: nn.Module, optimiser: torch.optim.Optimizer, state: RunState, plan: Plan) -> Checkpoint:
    """Return everything that a resumed run needs, as tensors and plain values. All ranks must call this together."""
    generators = {"torch": torch.get_rng_state()}
    if plan.ranks.device.type == "cuda":
        generators["cuda"] = torch.cuda.get_rng_state()
    return {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "generators": plan.ranks.gather(generators),
        "step": state.steps_done,
        "joint_batch": plan.joint_batch,
        "best": state.best_agreement,
    }


def restore(values: Checkpoint, model: nn.Module, optimiser: torch.optim.Optimizer, plan: Plan) -> RunState:
    """Load a checkpoint into the model, the optimiser and this rank's random number generators.

    Steps are counted by the run, so they must take the same samples as before: on another number of ranks with as many
    samples on all of them together.

    Raises:
        RunFolderError: if the steps of `plan` take another number of samples, or it ends before the checkpoint.
    """
    _refuse_other_steps(values, plan)
    model.load_state_dict(values["model"])
    optimiser.load_state_dict(values["optimiser"])
    generators, ranks = values["generators"], plan.ranks
    if len(generators) == ranks.world:
        torch.set_rng_state(generators[ranks.rank]["torch"])
        if ranks.device.type == "cuda" and "cuda" in generators[ranks.rank]:
            torch.cuda.set_rng_state(generators[ranks.rank]["cuda"])
    else:  # there is no state for each rank; none may repeat the numbers of the first steps
        torch.manual_seed(
            int(np.random.SeedSequence([plan.settings.seed, values["step"], ranks.rank]).generate_state(1)[0])
        )
    return RunState(values["step"], values["best"])


def start_from(model: nn.Module, path: Path) -> None:
    """Load the weights of a run (its last checkpoint) or of a checkpoint's file into a model of a new run.

    Text embeddings stay the model's own. Heads of terms are loaded where they fit.

    Raises:
        RunFolderError: if there is no such checkpoint, or its networks are others.
    """
    state = RunFolder(path).load("last")["model"] if path.is_dir() else load_checkpoint(path)["model"]
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if name in own and tensor.shape == own[name].shape}
    needed = [name for name in own if name.startswith(PREFIX) and name != f"{PREFIX}text"]
    if missing := [name for name in needed if name not in fitting]:
        raise RunFolderError(
            f"--init {path}: {len(missing)} of {len(needed)} tensors are missing or have another shape, such as "
            f"{missing[0]}; give a run with the same networks"
        )
    fitting.pop(f"{PREFIX}text", None)
    model.load_state_dict(fitting, strict=False)


def _refuse_other_steps(values: Checkpoint, plan: Plan) -> None:
    then, batch, world = values["joint_batch"], plan.settings.stream.batch_samples, plan.ranks.world
    if then != plan.joint_batch:
        ways = [f"on {then // batch} ranks"] if then % batch == 0 else []
        ways += [f"with --set stream.batch_samples={then // world}"] if then % world == 0 else []
        raise RunFolderError(
            f"a step of this run takes {then} samples on all ranks together, but stream.batch_samples = {batch} on "
            f"{world} ranks makes {plan.joint_batch}; resume {' or '.join(ways) or 'on another number of ranks'}"
        )
    if values["step"] > plan.total_steps:
        done = values["step"] // plan.steps_per_epoch
        raise RunFolderError(
            f"the run has finished {done} epochs and optimiser.epochs = {plan.epochs} is less; resume with more"
        )
