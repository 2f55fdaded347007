"""The 3D networks by name."""

from collections.abc import Callable
from functools import partial

from trainer.networks.minkunet import SHAPES, MinkUNet
from trainer.networks.point_cloud import CloudNetwork
from trainer.networks.spvcnn import SPVCNN
from trainer.networks.spvcnn_2dpass import MultiScaleSPVCNN
from trainer.settings import NetworkSettings

INPUTS = {"intensity": 2, "colour": 4}
"""The number of input features of a voxel by `networks.point_features`: their means over its points, and the height."""

BUILDERS: dict[str, Callable[[int], CloudNetwork]] = {
    **{name: partial(MinkUNet, shape) for name, shape in SHAPES.items()},
    "spvcnn": SPVCNN,
    "spvcnn-2dpass": MultiScaleSPVCNN,
}
"""By `networks.cloud`, what builds a network for points with a number of features, with random weights."""


def build_cloud_network(networks: NetworkSettings) -> CloudNetwork:
    """Build the 3D network of the settings with random weights."""
    return BUILDERS[networks.cloud](INPUTS[networks.point_features])
