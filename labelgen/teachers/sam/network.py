"""Building SAM networks, with weights from a file or from a seed."""

from typing import TYPE_CHECKING

from labelgen.settings import UNTRAINED, SamSettings
from labelgen.teachers.checkpoints import load_into, untrained_seed
from labelgen.teachers.sam.architectures import find_architecture

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


def build_sam(settings: SamSettings) -> "Sam":
    """Build the network that the settings name, and load its weights or draw them from the seed.

    Torch's global random generator is left as it was.

    Raises:
        ConfigError: if there is no such architecture, or the seed is not a whole number.
        WeightsError: if the weights are absent or do not fit the architecture.
    """
    import torch

    architecture = find_architecture(settings.architecture)
    untrained = settings.weights.startswith(UNTRAINED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(untrained_seed(settings.weights) if untrained else 0)
        model = architecture.build()
    if not untrained:
        load_into(model, settings.weights)
    return model
