"""Features of CLIP and SAM as a cache holds them, float16 or int8, back to numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def decode_features(
    stored: NDArray[Any], scale: NDArray[np.float32] | None, *, channel_axis: int
) -> NDArray[np.float32]:
    """Return the features of pictures as float32, in the shape of `stored`.

    Args:
        stored: features with a row for each picture: float16, or int8 to be multiplied by `scale`.
        scale: (I, channels) for int8 features; None for float16 ones.
        channel_axis: which axis of `stored` has the channels: 1 for `clip/features`, 3 for `sam/features`.
    """
    features: NDArray[np.float32] = stored.astype(np.float32)
    if scale is not None:
        features *= np.expand_dims(scale, [axis for axis in range(1, stored.ndim) if axis != channel_axis])
    return features
