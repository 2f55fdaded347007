"""One training step: forward and losses, backward, and the update of the weights."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.data.batch import Batch
from trainer.schedule import draw_sources
from trainer.settings import RunSettings
from trainer.targets import Predictions
from trainer.terms.step_values import Losses, LossSum
from trainer.training.agreement import count_agreement
from trainer.training.model import ModelOutputs, TrainingModel
from trainer.training.optimiser import learning_rate
from trainer.training.plan import Plan


@dataclass(frozen=True)
class StepResult:
    """What a step returns, detached: its losses, agreement counts (3, C) of the networks, and their predictions.

    Agreement needs two networks; the counts of one are None.
    """

    losses: Losses
    agreement_counts: Tensor | None
    predictions: Predictions


class Trainer:
    """Takes the steps of one rank."""

    def __init__(self, wrapped: nn.Module, model: TrainingModel, optimiser: torch.optim.Optimizer, plan: Plan) -> None:
        """Train `model`, which is called as `wrapped`: itself, or under DDP."""
        self.model, self.optimiser, self.plan = model, optimiser, plan
        self._wrapped = wrapped.train()
        self._settings: RunSettings = plan.settings
        self._ranks, self._total_steps = plan.ranks, plan.total_steps
        self._classes = len(model.networks.text)

    def step(self, number: int, batch: Batch) -> StepResult:
        """Train on the batch of step `number`."""
        device = self._ranks.device
        batch = batch.to(device)
        sources = draw_sources(self._settings.schedule, self._settings.seed, *self.plan.epoch_and_step(number))
        with torch.autocast(device.type, torch.bfloat16, enabled=self._settings.optimiser.precision == "bf16"):
            outputs: ModelOutputs = self._wrapped(batch, sources)
        self._update_weights(number, self._mean_over_ranks(outputs.losses))
        detached = {name: LossSum(loss.total.detach(), loss.count) for name, loss in outputs.losses.items()}
        return StepResult(detached, count_agreement(batch, outputs.predictions, self._classes), outputs.predictions)

    def _mean_over_ranks(self, losses: Losses) -> Tensor:
        """Return the sum of the losses, each divided by its number of elements on all ranks.

        DDP averages gradients over ranks; the factor `world` makes that the gradient of the joint batch.
        """
        counts = self._ranks.sum(torch.stack([loss.count for loss in losses.values()]))
        means = [
            loss.total * self._ranks.world / count.clamp(min=1)
            for loss, count in zip(losses.values(), counts, strict=True)
        ]
        return torch.stack(means).sum()

    def _update_weights(self, number: int, loss: Tensor) -> None:
        settings = self._settings.optimiser
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if settings.max_gradient_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.max_gradient_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(number, self._total_steps, settings)
        self.optimiser.step()
        self.model.update_average()
