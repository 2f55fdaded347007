"""Labels of points, from those of their instances and of their pixels."""

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import IGNORE


def label_points(
    instance: NDArray[np.integer],
    classes: NDArray[np.uint8],
    pixel_label: NDArray[np.uint8],
    is_thing: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Return the label (P,) u8 of each point.

    A point of an instance whose class is a thing has that class. Other points have the label of their pixel. A point
    that no camera sees has the class of its instance, if other points of it are seen.

    Args:
        instance: (P,) the instance of each point, 1..K; 0 for none.
        classes: (K,) classes of instances, 255 for none.
        pixel_label: (P,) labels of the points' pixels, 255 for none.
        is_thing: (C,) whether each class is a thing.
    """
    of_instance = np.concatenate([[IGNORE], classes]).astype(np.uint8)[instance]
    things = np.zeros(256, bool)
    things[: len(is_thing)] = is_thing
    takes_instance = things[of_instance] | ((pixel_label == IGNORE) & (of_instance != IGNORE))
    return np.where(takes_instance, of_instance, pixel_label)
