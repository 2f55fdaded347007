"""The features of points that the 3D network starts from; which there are depends on the cache and on a setting."""

import numpy as np
from numpy.typing import NDArray

from trainer.data.stream import SampleArrays
from trainer.settings import NetworkSettings

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in the grey value of a colour, after ITU-R BT.601."""


def point_arrays(networks: NetworkSettings) -> tuple[list[str], list[str]]:
    """Return the arrays of points that the 3D network reads: those that must be present, and those that may be."""
    if networks.point_features == "colour":
        return ["points/xyz", "points/colour"], []
    return ["points/xyz"], ["points/intensity", "points/colour"]


def point_features(arrays: SampleArrays, networks: NetworkSettings) -> NDArray[np.float32]:
    """Return the features (P, F) in 0..1 of a sample's points, without their height.

    `colour`: red, green and blue. `intensity`: one feature, the intensity; where the cache has none, the grey value of
    the colour; where it has neither, 0.
    """
    if networks.point_features == "colour":
        return _colours(arrays)
    if "points/intensity" in arrays:
        return arrays["points/intensity"][:, None]
    if "points/colour" in arrays:
        return (_colours(arrays) @ np.array(LUMA, np.float32))[:, None]
    return np.zeros((len(arrays["points/xyz"]), 1), np.float32)


def _colours(arrays: SampleArrays) -> NDArray[np.float32]:
    shares: NDArray[np.float32] = arrays["points/colour"].astype(np.float32)
    return shares / np.float32(255)
