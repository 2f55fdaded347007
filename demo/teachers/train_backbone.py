"""Train the demo's image backbone on crops: `python -m demo.teachers.train_backbone --out FILE`.

It replaces pretraining on ImageNet, from which the paper's 2D network starts. The trainer's small network learns to
classify crops from the mean of its features. It is trained without dense labels, and on none of the scenes that are
labelled later.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cache_schemas.taxonomy import load_taxonomy
from demo.teachers.crops import draw_crops, places_by_class
from demo.teachers.loop import half_precision, parse_arguments, train, training_views
from demo.teachers.views import Light
from trainer.networks.image import ImageNetwork, build_image_network

STEPS = 3000
CROPS_A_STEP = 192
LIGHT = Light(contrast=0.5, brightness=40, channels=3)
"""Strong, so that the features are robust to changes of light."""


class Classifier(nn.Module):
    """An image network with class scores (N, C) of whole crops."""

    def __init__(self, network: ImageNetwork, classes: int) -> None:
        """Put a linear layer after the mean of the network's features."""
        super().__init__()
        self.network = network
        self.head = nn.Linear(network.channels, classes)

    def forward(self, crops: Tensor) -> Tensor:
        """Return the scores of crops (N, 3, H, W) u8."""
        scores: Tensor = self.head(self.network(crops).mean(dim=(2, 3)))
        return scores


def main() -> None:
    """Render the training views, train, and write the backbone's weights as safetensors."""
    args = parse_arguments(__doc__)
    views = training_views(args)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    classes = len(load_taxonomy("nuscenes16").classes)
    model = Classifier(build_image_network("small", None), classes).to(args.device).train()
    places = places_by_class(views, classes)

    def step() -> tuple[Tensor, float]:
        crops, labels = draw_crops(views, places, rng, CROPS_A_STEP, LIGHT)
        pictures = torch.from_numpy(crops).to(args.device).permute(0, 3, 1, 2)
        target = torch.from_numpy(labels).to(args.device)
        with half_precision(args.device):
            scores = model(pictures).float()
        accuracy = (scores.argmax(dim=1) == target).float().mean()
        return functional.cross_entropy(scores, target), float(accuracy)

    train(model, step, "accuracy", STEPS, rng, args, keep=model.network.body)


if __name__ == "__main__":
    main()
