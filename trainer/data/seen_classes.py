"""Generalised zero-shot: truth of the seen classes beside pseudo labels of the unseen ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cache_schemas.errors import ConfigError
from cache_schemas.taxonomy import IGNORE, Taxonomy


def seen_class_ids(seen: Sequence[str], taxonomy: Taxonomy) -> list[int]:
    """Return the ids of the seen classes.

    Raises:
        ConfigError: if a name is none of the taxonomy's, or all of its names are seen.
    """
    names = list(taxonomy.names)
    if unknown := [name for name in seen if name not in names]:
        raise ConfigError(f"classes.seen: the cache has no class {unknown[0]!r}; choose from {', '.join(names)}")
    if set(seen) == set(names):
        raise ConfigError(
            "classes.seen: names all classes of the cache, so that none is unseen; leave out at least one"
        )
    return sorted({names.index(name) for name in seen})


def labels_with_truth(
    labels: NDArray[np.uint8], truth: NDArray[np.uint8], hidden: NDArray[np.bool_], seen: Sequence[int]
) -> NDArray[np.uint8]:
    """Return the labels (P,) of points with truth of the classes `seen`, and pseudo labels of the other classes.

    Points of a seen class have their truth, also if they are hidden. The others keep a pseudo label of an unseen class,
    and have none if they are hidden, or if their pseudo label is a seen class, which truth says is wrong.

    Args:
        labels: (P,) pseudo labels, 255: none.
        truth: (P,) class ids, 255: none.
        hidden: (P,) whether no camera sees the point.
        seen: ids of the seen classes.
    """
    is_seen = np.zeros(256, bool)
    is_seen[list(seen)] = True
    pseudo = np.where(is_seen[labels] | hidden, IGNORE, labels)
    return np.where(is_seen[truth], truth, pseudo).astype(np.uint8)
