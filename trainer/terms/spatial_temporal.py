"""CLIP2Scene's spatial-temporal consistency (Chen et al., CVPR 2023): points of a voxel agree, over sweeps.

In a voxel v with a label, whose text embedding is t, mapped features p_i of its points are joined with attention
a_i = softmax_i(p_i . t) to f = sum_i a_i p_i. The loss is the mean of 1 - sigmoid(f . p_i). The label is that of the
voxel's first labelled point. Voxels without a label are left out; CLIP2Scene's code gives them, and the empty places of
voxels with fewer points than the most, a constant.
"""

import torch
from torch import Tensor, nn

from cache_schemas.taxonomy import IGNORE
from trainer.networks.model import SceneNetworks
from trainer.terms.step_values import Losses, LossSum, StepValues

MOST_POINTS = 8
"""Points of a voxel that take part, the first ones; as in CLIP2Scene."""


class SpatialTemporalTerm(nn.Module):
    """The loss of the points in the voxels of the 3D network (`cloud_consistency`)."""

    def __init__(self, networks: SceneNetworks) -> None:
        """Build the head that maps features of points to the space of text embeddings, beside phi_s."""
        super().__init__()
        assert networks.cloud_channels is not None, "settings refuse this term without a 3D network"
        self.head = nn.Linear(networks.cloud_channels, networks.text.shape[1])

    def forward(self, step: StepValues) -> Losses:
        """Return the loss."""
        assert step.cloud is not None
        labels = step.batch.point_labels if step.targets.points is None else step.targets.points
        point, group, label = points_of_labelled_voxels(step.batch.point_voxel, labels)
        found = step.cloud.features
        with torch.autocast(found.features.device.type, enabled=False):
            mapped = self.head(found.features[found.row_of_point[point]])
            return {"cloud_consistency": consistency_loss(mapped, group, step.networks.text[label])}


def points_of_labelled_voxels(voxel: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the points of voxels with a label, at most `MOST_POINTS` of each, the first ones.

    Args:
        voxel: (P,) i64, the voxel of each point.
        labels: (P,) u8, 255: none.

    Returns:
        point: (N,) i64, the points chosen.
        group: (N,) i64, their voxels.
        label: (N,) i64, the label of the first labelled point in the voxel of each.
    """
    voxels = int(voxel.max()) + 1 if len(voxel) else 0
    number = torch.arange(len(voxel), device=voxel.device)
    last = len(voxel)
    first = torch.full((voxels,), last, device=voxel.device).scatter_reduce(
        0, voxel, torch.where(labels == IGNORE, last, number), "amin"
    )
    order = voxel.argsort(stable=True)
    counts = torch.bincount(voxel, minlength=voxels)
    rank = number - (counts.cumsum(0) - counts)[voxel[order]]
    kept = order[(rank < MOST_POINTS) & (first[voxel[order]] < last)]
    group = voxel[kept]
    return kept, group, labels[first[group]].long()


def consistency_loss(mapped: Tensor, group: Tensor, text: Tensor) -> LossSum:
    """Return the sum over points of 1 - sigmoid(f . p_i).

    Args:
        mapped: (N, D) f32, the mapped feature p_i of each point.
        group: (N,) i64, the voxel of each point.
        text: (N, D) f32, the text embedding of the label of its voxel.
    """
    count = torch.tensor(len(mapped), device=mapped.device)
    if not len(mapped):
        return LossSum(mapped.sum(), count)
    groups = int(group.max()) + 1
    score = (mapped * text).sum(dim=1)
    highest = torch.full((groups,), -torch.inf, device=score.device).scatter_reduce(0, group, score.detach(), "amax")
    weight = (score - highest[group]).exp()
    total = torch.zeros(groups, device=score.device).index_add(0, group, weight)
    joined = mapped.new_zeros(groups, mapped.shape[1]).index_add(0, group, (weight / total[group])[:, None] * mapped)
    return LossSum((1 - (joined[group] * mapped).sum(dim=1).sigmoid()).sum(), count)
