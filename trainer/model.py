"""The two networks with their heads, as one module: a batch in, scores and mapped features out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.batch import Batch
from trainer.losses import class_scores, sample
from trainer.networks.at_once import at_once
from trainer.networks.cloud import SHAPES, MinkUNet
from trainer.networks.image import build_image_network
from trainer.settings import RunSettings


@dataclass(frozen=True)
class Outputs:
    """What the networks make of a batch.

    Attributes:
        pixel_scores: (B, C, H, W) f32.
        point_scores: (P, C) f32.
        latents: by teacher, (N, K) of the pairs' pixels, points, and frozen features.
    """

    pixel_scores: Tensor
    point_scores: Tensor
    latents: dict[str, tuple[Tensor, Tensor, Tensor]]


class LatentHead(nn.Module):
    """The linear maps of eq 7 for one teacher: theta_f and phi_f of the networks, and that of the frozen features."""

    def __init__(self, image: int, cloud: int, teacher: int, latent: int, *, train_teacher: bool) -> None:
        """Map features of the given widths to `latent` dimensions."""
        super().__init__()
        self.theta_f = nn.Linear(image, latent)
        self.phi_f = nn.Linear(cloud, latent)
        self.teacher = nn.Linear(teacher, latent, bias=False)
        nn.init.orthogonal_(self.teacher.weight)
        self.teacher.requires_grad_(train_teacher)


class CnsModel(nn.Module):
    """A 2D and a 3D network whose class scores are dot products with the cached text embeddings."""

    def __init__(self, settings: RunSettings, text: Tensor, teacher_widths: dict[str, int]) -> None:
        """Build both networks; `text` (C, D) are the embeddings, `teacher_widths` the widths of frozen features."""
        super().__init__()
        networks = settings.networks
        self.image = build_image_network(networks.image, networks.image_weights)
        self.cloud = MinkUNet(SHAPES[networks.cloud])
        self.theta_s = nn.Linear(self.image.channels, text.shape[1])
        self.phi_s = nn.Linear(self.cloud.channels, text.shape[1])
        self.latent = nn.ModuleDict(
            {
                name: LatentHead(
                    self.image.channels,
                    self.cloud.channels,
                    width,
                    networks.latent_dim,
                    train_teacher=settings.method.teacher_map == "trained",
                )
                for name, width in teacher_widths.items()
            }
        )
        self.register_buffer("text", text)

    def forward(self, batch: Batch) -> Outputs:
        """Return the scores of all pixels and points, and mapped features at the pairs."""
        of_both = at_once(lambda: self._of_pixels(batch), lambda: self._of_points(batch), batch.rgb.device)
        half = len(of_both) // 2
        (pixel_scores, *pixels), (point_scores, *points) = of_both[:half], of_both[half:]
        frozen = [self._frozen(name, batch) for name in self.latent]
        latents = zip(pixels, points, frozen, strict=True)
        return Outputs(pixel_scores, point_scores, dict(zip(self.latent, latents, strict=True)))

    def _of_pixels(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return the scores (B, C, H, W) of pixels, and for each teacher mapped features (N, K) at the pairs."""
        features = self.image(batch.rgb).permute(0, 2, 3, 1)
        height, width = batch.rgb.shape[2:]
        places = torch.stack([(batch.pair_row + 0.5) / height, (batch.pair_col + 0.5) / width], dim=1)
        latents = (sample(head.theta_f(features), batch.pair_image, places) for head in self.latent.values())
        return self.pixel_scores(features, (height, width)), *latents

    def _of_points(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return the scores (P, C) of points, and for each teacher mapped features (N, K) at the pairs; in fp32."""
        with torch.autocast(batch.rgb.device.type, enabled=False):
            voxels = self.cloud(batch.voxel_features, batch.voxels, batch.samples)
            scores = class_scores(voxels, self.phi_s.weight, self.phi_s.bias, self.text)[batch.point_voxel]
            of_pairs = batch.point_voxel[batch.pair_point]
            return scores, *(head.phi_f(voxels)[of_pairs] for head in self.latent.values())

    def _frozen(self, name: str, batch: Batch) -> Tensor:
        """Return a teacher's mapped features (N, K) at the pairs."""
        features = sample(batch.features[name], batch.pair_image, batch.pair_place)
        if name in batch.scales:
            features = features * batch.scales[name][batch.pair_image]
        mapped: Tensor = self.latent[name].teacher(features)
        return mapped

    def pixel_scores(self, features: Tensor, size: tuple[int, ...]) -> Tensor:
        """Return scores (B, C, H, W) of features (B, h, w, F).

        Features are to be brought to H x W and then mapped; bilinear weights sum to one, so that mapping first gives
        the same, at a fraction of the memory.
        """
        scores = class_scores(features, self.theta_s.weight, self.theta_s.bias, self.text).permute(0, 3, 1, 2)
        return functional.interpolate(scores.float(), size=tuple(size), mode="bilinear", align_corners=False)
