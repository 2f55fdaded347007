"""Affinity3D's transfer of knowledge: class scores of points at each scale of the 3D network follow the 2D network's.

At each scale, a linear map of its own takes the features of voxels to the space of text embeddings; class scores are
dot products with these (eq 5), in 3D as in 2D. The loss of a pair of a visible point and its pixel is
KL(softmax 2D || softmax 3D), and no gradient reaches the 2D network.

The paper states four scales, KL, text embeddings as weights of both heads, visible points only, and that the image
branch is dropped at test time. Inferred: the direction of KL, that the 2D scores are not trained by it, and that a
pixel's distribution is that of the 2D class head, the same for all scales: our 2D networks have one grid of features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.networks.model import SceneNetworks, class_scores
from trainer.terms.step_values import Losses, LossSum, StepValues


class MultiscaleKlTerm(nn.Module):
    """The KL of the pairs (`cloud_kl`), averaged over the scales of the 3D network.

    A 3D network without scales has one: what its class head takes.
    """

    def __init__(self, networks: SceneNetworks) -> None:
        """Build a head for each scale."""
        super().__init__()
        assert networks.cloud is not None, "settings refuse this term without a 3D network"
        channels = networks.cloud.channels
        dim = networks.text.shape[1]
        self.heads = nn.ModuleList(nn.Linear(width, dim) for width in channels[1:] or channels)

    def forward(self, step: StepValues) -> Losses:
        """Return the loss of the 3D network."""
        batch, image, cloud = step.batch, step.image, step.cloud
        assert image is not None and cloud is not None, "settings refuse this term without both networks"
        wanted = image.scores.detach()[batch.pair_image, :, batch.pair_row, batch.pair_col]
        totals = []
        for head, found in zip(self.heads, cloud.scales or (cloud.features,), strict=True):
            assert isinstance(head, nn.Linear)
            with torch.autocast(wanted.device.type, enabled=False):  # in fp32, as the 3D network is
                scores = class_scores(found.features, head, step.networks.text)
            totals.append(kl_of_scores(wanted, scores[found.row_of_point[batch.pair_point]]))
        return {"cloud_kl": LossSum(torch.stack(totals).mean(), torch.tensor(len(wanted), device=wanted.device))}


def kl_of_scores(wanted: Tensor, found: Tensor) -> Tensor:
    """Return KL(softmax(wanted) || softmax(found)) of class scores (N, C), summed over elements; a scalar."""
    return functional.kl_div(
        functional.log_softmax(found.float(), dim=1),
        functional.log_softmax(wanted.float(), dim=1),
        reduction="sum",
        log_target=True,
    )
