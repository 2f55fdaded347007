"""OpenScene's distillation (Peng et al., CVPR 2023): the networks' mapped features follow CLIP's features of patches.

The 3D network follows, at each point that a camera sees, the mean of the CLIP features of its views. OpenScene trains
no 2D network. The CNS paper has one in OpenScene's row, and does not say how; here it follows the CLIP features at the
centre of each cell of its grid. The maps that learn are theta_s and phi_s, so that class scores come from them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.networks.model import CloudOutputs, ImageOutputs
from trainer.terms.step_values import Losses, LossSum, StepValues
from trainer.terms.teacher_features import features_at, features_at_pairs, mean_over_views


class DistillationTerm(nn.Module):
    """1 - cos of mapped features and CLIP's, of cells (`image_distillation`) and of points (`cloud_distillation`)."""

    def forward(self, step: StepValues) -> Losses:
        """Return the loss of each network."""
        losses = {}
        if step.image:
            losses["image_distillation"] = _loss_of_cells(step, step.image)
        if step.cloud:
            losses["cloud_distillation"] = _loss_of_points(step, step.cloud)
        return losses


def _loss_of_cells(step: StepValues, image: ImageOutputs) -> LossSum:
    mapped = step.networks.map_pixels(image.features).flatten(0, 2)
    number, position = cell_positions(image.features.shape, step.batch.image_crop)
    return distillation_loss(mapped, features_at(step.batch, "clip", number, position))


def _loss_of_points(step: StepValues, cloud: CloudOutputs) -> LossSum:
    batch = step.batch
    wanted, seen = mean_over_views(features_at_pairs(batch, "clip"), batch.pair_point, len(batch.point_labels))
    return distillation_loss(step.networks.map_points(cloud.features)[seen], wanted[seen])


def distillation_loss(features: Tensor, wanted: Tensor) -> LossSum:
    """Return 1 - cos of features (N, D) and the wanted ones (N, D), summed over elements."""
    cosine = functional.cosine_similarity(features.float(), wanted.float(), dim=1)
    return LossSum((1 - cosine).sum(), torch.tensor(len(cosine), device=cosine.device))


def cell_positions(shape: torch.Size, crop: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image (N,) i64 and the position (N, 2) f32 in it of the centre of each cell of a grid (B, h, w, ..).

    Positions are row and column as shares 0..1 of the original images, from `Batch.image_crop` (B, 4).
    """
    images, rows, columns = shape[:3]
    row = (torch.arange(rows, device=crop.device) + 0.5) / rows
    column = (torch.arange(columns, device=crop.device) + 0.5) / columns
    grid = torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1)
    position = crop[:, None, None, :2] + grid * crop[:, None, None, 2:]
    number = torch.arange(images, device=crop.device)[:, None, None].expand(images, rows, columns)
    return number.flatten(), position.flatten(0, 2)
