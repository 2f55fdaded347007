"""One training step: forward, targets, losses, backward, and the update of the weights."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.data.batch import Batch
from trainer.data.class_weights import ClassWeights
from trainer.losses import LossSum, latent_loss, semantic_loss
from trainer.networks.model import CnsModel, Outputs
from trainer.settings import RunSettings
from trainer.targets import Predictions, draw_sources, pixel_target, point_target
from trainer.training.agreement import count_agreement
from trainer.training.optimiser import learning_rate
from trainer.training.plan import Plan

Losses = dict[str, LossSum]
"""By name: `image` and `cloud` of eq 5 or 6, `image_<teacher>` and `cloud_<teacher>` of eq 7."""


@dataclass(frozen=True)
class StepResult:
    """What a step returns: its losses, agreement counts (3, C) of the networks, and their predictions; detached."""

    losses: Losses
    agreement_counts: Tensor
    predictions: Predictions


class Trainer:
    """Takes the steps of one rank."""

    def __init__(
        self,
        wrapped: nn.Module,
        model: CnsModel,
        optimiser: torch.optim.Optimizer,
        plan: Plan,
        weights: ClassWeights | None = None,
    ) -> None:
        """Train `model`, which is called as `wrapped`: itself, or under DDP."""
        self.model, self.optimiser, self.plan = model, optimiser, plan
        self._wrapped = wrapped.train()
        self._settings: RunSettings = plan.settings
        self._ranks, self._total_steps = plan.ranks, plan.total_steps
        self._classes = len(model.text)
        self._pixel_weights = None if weights is None else weights.pixels.to(plan.ranks.device)
        self._point_weights = None if weights is None else weights.points.to(plan.ranks.device)

    def step(self, number: int, batch: Batch) -> StepResult:
        """Train on the batch of step `number`."""
        device = self._ranks.device
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._settings.optimiser.precision == "bf16"):
            outputs: Outputs = self._wrapped(batch)
        predictions = predicted_classes(outputs)
        losses = self.losses(number, batch, outputs, predictions)
        self._update_weights(number, self._mean_over_ranks(losses))
        detached = {name: LossSum(loss.total.detach(), loss.count) for name, loss in losses.items()}
        return StepResult(detached, count_agreement(batch, predictions, self._classes), predictions)

    def losses(self, number: int, batch: Batch, outputs: Outputs, predictions: Predictions) -> Losses:
        """Return the losses of step `number`."""
        method, classes = self._settings.method, self._classes
        sources = draw_sources(method, self._settings.seed, *self.plan.epoch_and_step(number))
        pixels = pixel_target(sources.image, batch, predictions, classes, method.refine)
        points = point_target(sources.cloud, batch, predictions, classes, method.refine)
        losses = {
            "image": semantic_loss(outputs.pixel_scores, pixels, self._pixel_weights),
            "cloud": semantic_loss(outputs.point_scores, points, self._point_weights),
        }
        for teacher, latents in outputs.latents.items():
            losses[f"image_{teacher}"] = latent_loss(latents.pixels, latents.frozen)
            losses[f"cloud_{teacher}"] = latent_loss(latents.points, latents.frozen)
        return losses

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


def predicted_classes(outputs: Outputs) -> Predictions:
    """Return the class of the highest score of each pixel and point."""
    return Predictions(
        outputs.pixel_scores.detach().argmax(dim=1).to(torch.uint8),
        outputs.point_scores.detach().argmax(dim=1).to(torch.uint8),
    )
