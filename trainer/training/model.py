"""What one training step computes: predictions, targets and losses of a batch, as one module that DDP can wrap."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainer.data.batch import Batch
from trainer.data.class_weights import ClassWeights
from trainer.method_settings import Source
from trainer.networks.model import CloudOutputs, ImageOutputs, SceneNetworks
from trainer.schedule import TargetSources
from trainer.settings import RunSettings
from trainer.targets import Predictions, make_targets
from trainer.terms.registry import build_terms
from trainer.terms.step_values import Losses, LossSum, StepValues


@dataclass(frozen=True)
class ModelOutputs:
    """The losses of a batch, each times the weight of its term, and the classes that the networks predict."""

    losses: Losses
    predictions: Predictions


class TrainingModel(nn.Module):
    """The networks, and the terms of the loss with the heads that they add."""

    def __init__(
        self, settings: RunSettings, text: Tensor, widths: Mapping[str, int], weights: ClassWeights | None = None
    ) -> None:
        """Build everything that a run trains.

        Args:
            settings: of the run.
            text: (C, D) f32, the text embedding of each class.
            widths: by teacher, the number of channels of its frozen features.
            weights: of the classes in cross-entropies; None: all elements count alike.

        Raises:
            TrainerError: if the weights of the image network's backbone cannot be read or do not fit.
        """
        super().__init__()
        self.networks = SceneNetworks(settings.networks, text)
        self.terms = build_terms(settings.terms, self.networks, widths, weights)
        self.average = _moving_average(self.networks, settings.schedule.ema_decay)
        self._refine = settings.schedule.refine
        self._weights = {name: getattr(settings.terms, name).weight for name in self.terms}

    def forward(self, batch: Batch, sources: TargetSources) -> ModelOutputs:
        """Return the losses of a batch whose targets come from `sources`."""
        image, cloud = self.networks(batch)
        predictions = predicted_classes(image, cloud)
        taught = self._predictions_for_targets(batch, sources, predictions)
        targets = make_targets(sources, batch, taught, len(self.networks.text), self._refine)
        step = StepValues(batch, self.networks, image, cloud, targets)
        losses: Losses = {}
        for name, term in self.terms.items():
            weight = self._weights[name]
            losses |= {key: LossSum(weight * loss.total, loss.count) for key, loss in term(step).items()}
        return ModelOutputs(losses, predictions)

    def train(self, mode: bool = True) -> "TrainingModel":
        """Set the mode of all modules but the moving average, which always predicts as in evaluation."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def update_average(self) -> None:
        """Let the moving average follow the networks, after a step."""
        if self.average is not None:
            self.average.update_parameters(self.networks)

    def restart_average(self) -> None:
        """Make the moving average equal to the networks, whose weights were loaded."""
        if self.average is not None:
            self.average.module.load_state_dict(self.networks.state_dict())

    def _predictions_for_targets(self, batch: Batch, sources: TargetSources, own: Predictions) -> Predictions:
        """Return the predictions that become targets: the networks' `own`, or those of the moving average."""
        if self.average is None or not {sources.image, sources.cloud} & {Source.OWN_2D, Source.OWN_3D}:
            return own
        with torch.no_grad():
            return predicted_classes(*self.average(batch))


def _moving_average(networks: SceneNetworks, decay: float) -> AveragedModel | None:
    """Return a copy of the networks that follows them as a mean teacher (Tarvainen and Valpola, 2017); None at 0.

    Its weights and the statistics of its batch norms are w <- decay w + (1 - decay) w of the networks.
    """
    if not decay:
        return None
    average = AveragedModel(networks, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    average.requires_grad_(False)
    average.eval()
    return average


def predicted_classes(image: ImageOutputs | None, cloud: CloudOutputs | None) -> Predictions:
    """Return the class of the highest score of each pixel and point."""
    return Predictions(*(None if outputs is None else _highest(outputs.scores) for outputs in (image, cloud)))


def _highest(scores: Tensor) -> Tensor:
    return scores.detach().argmax(dim=1).to(torch.uint8)
