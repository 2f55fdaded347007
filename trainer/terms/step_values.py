"""What the terms of the loss are computed from at a step, and what they return."""

from dataclasses import dataclass

from torch import Tensor

from trainer.data.batch import Batch
from trainer.networks.model import CloudOutputs, ImageOutputs, SceneNetworks
from trainer.targets import Targets


@dataclass(frozen=True)
class LossSum:
    """A loss summed over elements, and the number of elements (or the sum of their weights); scalars.

    Ranks divide the sum by the number on all ranks.
    """

    total: Tensor
    count: Tensor


Losses = dict[str, LossSum]
"""Losses by name: `image` and `cloud`, with the name of the term or teacher behind an underscore if there are more."""


@dataclass(frozen=True)
class StepValues:
    """A batch, the networks, what each made of it (None: it is absent), and what they shall learn from."""

    batch: Batch
    networks: SceneNetworks
    image: ImageOutputs | None
    cloud: CloudOutputs | None
    targets: Targets
