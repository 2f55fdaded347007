"""Eq 7 of the CNS paper: features of both networks follow frozen features of a teacher at the pairs."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.batch import Batch
from trainer.method_settings import LatentSettings
from trainer.networks.bilinear import sample_bilinear
from trainer.networks.model import CloudOutputs, ImageOutputs, SceneNetworks
from trainer.terms.step_values import Losses, LossSum, StepValues
from trainer.terms.teacher_features import features_at_pairs


class LatentTerm(nn.Module):
    """For each teacher, 1 - cos of mapped features of pixels (`image_<teacher>`) and points (`cloud_<teacher>`)."""

    def __init__(self, settings: LatentSettings, networks: SceneNetworks, widths: Mapping[str, int]) -> None:
        """Build the heads; `widths` has the number of channels of each teacher's frozen features."""
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                teacher: LatentHead(
                    networks.image_channels,
                    networks.cloud_channels,
                    widths[teacher],
                    settings.dim,
                    train_teacher=settings.teacher_map == "trained",
                )
                for teacher in settings.teachers
            }
        )

    def forward(self, step: StepValues) -> Losses:
        """Return the losses of each network and teacher."""
        losses = {}
        for teacher, head in self.heads.items():
            assert isinstance(head, LatentHead)
            frozen = head.frozen(step.batch, teacher)
            if step.image:
                losses[f"image_{teacher}"] = latent_loss(head.pixels(step.image, step.batch), frozen)
            if step.cloud:
                losses[f"cloud_{teacher}"] = latent_loss(head.points(step.cloud, step.batch), frozen)
        return losses


class LatentHead(nn.Module):
    """The linear maps of eq 7 for one teacher: theta_f (pixels), phi_f (points), and `teacher` (frozen features)."""

    def __init__(
        self,
        image_width: int | None,
        cloud_width: int | None,
        teacher_width: int,
        latent_dim: int,
        *,
        train_teacher: bool,
    ) -> None:
        """Map features of the given widths to `latent_dim` dimensions, the paper's K_f; None: there is no network."""
        super().__init__()
        self.theta_f = nn.Linear(image_width, latent_dim) if image_width else None
        self.phi_f = nn.Linear(cloud_width, latent_dim) if cloud_width else None
        self.teacher = nn.Linear(teacher_width, latent_dim, bias=False)
        nn.init.orthogonal_(self.teacher.weight)
        self.teacher.requires_grad_(train_teacher)

    def pixels(self, image: ImageOutputs, batch: Batch) -> Tensor:
        """Return the mapped features (N, K) of the pairs' pixels."""
        assert self.theta_f is not None
        height, width = batch.rgb.shape[2], batch.rgb.shape[3]
        position = torch.stack([(batch.pair_row + 0.5) / height, (batch.pair_col + 0.5) / width], dim=1)
        return sample_bilinear(self.theta_f(image.features), batch.pair_image, position)

    def points(self, cloud: CloudOutputs, batch: Batch) -> Tensor:
        """Return the mapped features (N, K) of the pairs' points; in fp32, as the 3D network is."""
        assert self.phi_f is not None
        found = cloud.features
        with torch.autocast(found.features.device.type, enabled=False):
            mapped: Tensor = self.phi_f(found.features)
        return mapped[found.row_of_point[batch.pair_point]]

    def frozen(self, batch: Batch, teacher: str) -> Tensor:
        """Return a teacher's mapped features (N, K) at the pairs."""
        mapped: Tensor = self.teacher(features_at_pairs(batch, teacher))
        return mapped


def latent_loss(features: Tensor, teacher: Tensor) -> LossSum:
    """Return eq 7 for one network: 1 - cos of its features and a teacher's, summed over pairs.

    Args:
        features: (N, K), mapped features of the network at the pairs.
        teacher: (N, K), mapped frozen features at the same pairs; they are normalised here.
    """
    cosine = functional.cosine_similarity(features.float(), functional.normalize(teacher.float(), dim=1), dim=1)
    return LossSum((1 - cosine).sum(), torch.tensor(len(cosine), device=cosine.device))
