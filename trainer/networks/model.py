"""The 2D and the 3D network with their heads, as one module: a batch in, class scores and mapped features out."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.batch import Batch
from trainer.networks.bilinear import sample_bilinear
from trainer.networks.cloud import build_cloud_network
from trainer.networks.image import build_image_network
from trainer.networks.point_cloud import PointFeatures, cloud_of
from trainer.settings import RunSettings


@dataclass(frozen=True)
class Latents:
    """Features (N, K) at the pairs, mapped to a common space for eq 7: of pixels, of points, and frozen ones."""

    pixels: Tensor
    points: Tensor
    frozen: Tensor


@dataclass(frozen=True)
class Outputs:
    """What the networks compute from a batch.

    Attributes:
        pixel_scores: (B, C, H, W) f32.
        point_scores: (P, C) f32.
        latents: by teacher.
    """

    pixel_scores: Tensor
    point_scores: Tensor
    latents: dict[str, Latents]


class LatentHead(nn.Module):
    """The linear maps of eq 7 for one teacher: theta_f (pixels), phi_f (points), and `teacher` (frozen features)."""

    def __init__(
        self, image_width: int, cloud_width: int, teacher_width: int, latent_dim: int, *, train_teacher: bool
    ) -> None:
        """Map features of the given widths to `latent_dim` dimensions, the paper's K_f."""
        super().__init__()
        self.theta_f = nn.Linear(image_width, latent_dim)
        self.phi_f = nn.Linear(cloud_width, latent_dim)
        self.teacher = nn.Linear(teacher_width, latent_dim, bias=False)
        nn.init.orthogonal_(self.teacher.weight)
        self.teacher.requires_grad_(train_teacher)


class CnsModel(nn.Module):
    """A 2D and a 3D network whose class scores are dot products with the cached text embeddings (eq 5)."""

    text: Tensor

    def __init__(self, settings: RunSettings, text: Tensor, teacher_widths: dict[str, int]) -> None:
        """Build both networks with their heads.

        Args:
            settings: of the run.
            text: (C, D) f32, the text embedding of each class.
            teacher_widths: by teacher, the number of channels of its frozen features.

        Raises:
            TrainerError: if the weights of the image network's backbone cannot be read or do not fit.
        """
        super().__init__()
        networks = settings.networks
        self.image = build_image_network(networks.image, networks.image_weights)
        self.cloud = build_cloud_network(networks)
        self.theta_s = nn.Linear(self.image.channels, text.shape[1])
        self.phi_s = nn.Linear(self.cloud.channels[0], text.shape[1])
        trained = settings.method.teacher_map == "trained"
        self.latent = nn.ModuleDict(
            {
                name: LatentHead(
                    self.image.channels, self.cloud.channels[0], width, networks.latent_dim, train_teacher=trained
                )
                for name, width in teacher_widths.items()
            }
        )
        self.register_buffer("text", text)

    def forward(self, batch: Batch) -> Outputs:
        """Return class scores of all pixels and points, and mapped features at the pairs."""
        pixel_scores, pixel_latents = self._apply_image_network(batch)
        point_scores, point_latents = self._apply_cloud_network(batch)
        latents = {
            name: Latents(pixel_latents[name], point_latents[name], self._frozen_latents(name, head, batch))
            for name, head in self._latent_heads(batch)
        }
        return Outputs(pixel_scores, point_scores, latents)

    def _apply_image_network(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return pixel scores (B, C, H, W), and by teacher mapped features (N, K) of the pairs' pixels."""
        features = self.image(batch.rgb).permute(0, 2, 3, 1)
        height, width = batch.rgb.shape[2], batch.rgb.shape[3]
        position = torch.stack([(batch.pair_row + 0.5) / height, (batch.pair_col + 0.5) / width], dim=1)
        latents = {
            name: sample_bilinear(head.theta_f(features), batch.pair_image, position)
            for name, head in self._latent_heads(batch)
        }
        return self._scores_of_pixels(features, (height, width)), latents

    def _apply_cloud_network(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return point scores (P, C), and by teacher mapped features (N, K) of the pairs' points; always in fp32."""
        with torch.autocast(batch.rgb.device.type, enabled=False):
            found, *_ = self.cloud(cloud_of(batch))
            row_of_pair = found.row_of_point[batch.pair_point]
            latents = {name: head.phi_f(found.features)[row_of_pair] for name, head in self._latent_heads(batch)}
            return self.point_scores(found), latents

    def pixel_scores(self, rgb: Tensor) -> Tensor:
        """Return class scores (B, C, H, W) f32 of images (B, 3, H, W) u8."""
        return self._scores_of_pixels(self.image(rgb).permute(0, 2, 3, 1), (rgb.shape[2], rgb.shape[3]))

    def point_scores(self, found: PointFeatures) -> Tensor:
        """Return class scores (P, C) of points."""
        return class_scores(found.features, self.phi_s, self.text)[found.row_of_point]

    def _frozen_latents(self, name: str, head: LatentHead, batch: Batch) -> Tensor:
        """Return a teacher's mapped features (N, K) at the pairs."""
        features = sample_bilinear(
            batch.features[name], batch.pair_image, batch.pair_position, batch.features_valid[name]
        )
        if name in batch.scales:
            features = features * batch.scales[name][batch.pair_image]
        mapped: Tensor = head.teacher(features)
        return mapped

    def _latent_heads(self, batch: Batch) -> Iterator[tuple[str, LatentHead]]:
        """Yield the heads of the teachers whose features the batch has; one for predictions has none."""
        for name, head in self.latent.items():
            assert isinstance(head, LatentHead)
            if name in batch.features:
                yield name, head

    def _scores_of_pixels(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Return scores (B, C, H, W) f32 at `size` from features (B, h, w, F).

        The paper enlarges features, then maps them. Bilinear weights sum to one, so mapping first gives the same scores
        and needs a fraction of the memory.
        """
        scores = class_scores(features, self.theta_s, self.text).permute(0, 3, 1, 2)
        return functional.interpolate(scores.float(), size=size, mode="bilinear", align_corners=False)


def class_scores(features: Tensor, linear: nn.Linear, text: Tensor) -> Tensor:
    """Return the class scores of eq 5: dot products (.., C) of mapped features with text embeddings.

    The linear map is folded into the embeddings, (W x + b) . t = x . (W^T t) + b . t, so that mapped features (.., D)
    are never computed.

    Args:
        features: (.., F), of voxels or of cells of the image network's grid.
        linear: the map from F to D dimensions, theta_s or phi_s.
        text: (C, D) f32, the text embedding t_l of each class.
    """
    return functional.linear(features, text @ linear.weight, text @ linear.bias)
