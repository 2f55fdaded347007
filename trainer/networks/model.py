"""The 2D and the 3D network with their maps to the space of text embeddings: class scores of pixels and points."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.batch import Batch
from trainer.networks.cloud import build_cloud_network
from trainer.networks.image import build_image_network
from trainer.networks.point_cloud import Cloud, PointFeatures, cloud_of
from trainer.settings import NetworkSettings

PREFIX = "networks."
"""What the names of the networks' tensors start with in a checkpoint; those of the heads of terms start otherwise."""


@dataclass(frozen=True)
class ImageOutputs:
    """What the 2D network computes from images: features (B, h, w, F) of cells, and class scores (B, C, H, W) f32."""

    features: Tensor
    scores: Tensor


@dataclass(frozen=True)
class CloudOutputs:
    """What the 3D network computes from clouds.

    Attributes:
        features: those that the class scores are made from.
        scales: of networks that have several, the features of each, the finest first.
        scores: (P, C) f32.
    """

    features: PointFeatures
    scales: tuple[PointFeatures, ...]
    scores: Tensor


class SceneNetworks(nn.Module):
    """A 2D and a 3D network whose class scores are dot products with the cached text embeddings (eq 5).

    Either may be absent (None).
    """

    text: Tensor

    def __init__(self, settings: NetworkSettings, text: Tensor) -> None:
        """Build the networks.

        Args:
            settings: of the networks.
            text: (C, D) f32, the text embedding of each class.

        Raises:
            TrainerError: if the weights of the image network's backbone cannot be read or do not fit.
        """
        super().__init__()
        dim = text.shape[1]
        has_image, has_cloud = settings.image != "none", settings.cloud != "none"
        self.image = build_image_network(settings.image, settings.image_weights) if has_image else None
        self.cloud = build_cloud_network(settings) if has_cloud else None
        self.theta_s = nn.Linear(self.image.channels, dim) if self.image else None
        self.phi_s = nn.Linear(self.cloud.channels[0], dim) if self.cloud else None
        self.register_buffer("text", text)

    @property
    def image_channels(self) -> int | None:
        """The number of channels of the 2D network's features; None: there is no 2D network."""
        return self.image.channels if self.image else None

    @property
    def cloud_channels(self) -> int | None:
        """The number of channels of what class heads take from the 3D network; None: there is no 3D network."""
        return self.cloud.channels[0] if self.cloud else None

    def forward(self, batch: Batch) -> tuple[ImageOutputs | None, CloudOutputs | None]:
        """Return what each network computes from a batch."""
        image = self.apply_to_images(batch.rgb) if self.image else None
        cloud = self.apply_to_clouds(cloud_of(batch)) if self.cloud else None
        return image, cloud

    def apply_to_images(self, rgb: Tensor) -> ImageOutputs:
        """Return what the 2D network computes from images (B, 3, H, W) u8.

        The paper enlarges features, then maps them. Bilinear weights sum to one, so mapping first gives the same scores
        and needs a fraction of the memory.
        """
        assert self.image is not None and self.theta_s is not None
        features = self.image(rgb).permute(0, 2, 3, 1)
        scores = class_scores(features, self.theta_s, self.text).permute(0, 3, 1, 2)
        size = (rgb.shape[2], rgb.shape[3])
        enlarged = functional.interpolate(scores.float(), size=size, mode="bilinear", align_corners=False)
        return ImageOutputs(features, enlarged)

    def apply_to_clouds(self, cloud: Cloud) -> CloudOutputs:
        """Return what the 3D network computes from clouds; always in fp32."""
        assert self.cloud is not None and self.phi_s is not None
        with torch.autocast(cloud.voxels.device.type, enabled=False):
            found = self.cloud(cloud)
            scores = class_scores(found[0].features, self.phi_s, self.text)[found[0].row_of_point]
            return CloudOutputs(found[0], found[1:], scores)

    def map_pixels(self, features: Tensor) -> Tensor:
        """Return features (.., F) of the 2D network, mapped to the space of text embeddings (.., D)."""
        assert self.theta_s is not None
        mapped: Tensor = self.theta_s(features)
        return mapped

    def map_points(self, found: PointFeatures) -> Tensor:
        """Return what class heads take from the 3D network, mapped to the space of text embeddings, by point (P, D)."""
        assert self.phi_s is not None
        with torch.autocast(found.features.device.type, enabled=False):
            mapped: Tensor = self.phi_s(found.features)
        return mapped[found.row_of_point]


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
