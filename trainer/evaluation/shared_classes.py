"""The classes that a run and a cache share, by name, on which networks are scored across taxonomies."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_schemas.taxonomy import Taxonomy


@dataclass(frozen=True)
class SharedClasses:
    """S classes in the order of the cache's ids: their `names`, and their ids (S,) i64 in the run and in the cache."""

    names: tuple[str, ...]
    of_run: NDArray[np.int64]
    of_cache: NDArray[np.int64]

    def confusion(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the confusion matrix (S, S+1) of the shared classes, from one (C, C+1) of all the cache's classes.

        Elements whose truth is another class are left out. Labels of other classes, and no label, are in the last
        column: they are wrong.
        """
        rows = counts[self.of_cache]
        kept = rows[:, self.of_cache]
        return np.column_stack([kept, rows.sum(axis=1) - kept.sum(axis=1)])


def shared_classes(run: Taxonomy, cache: Taxonomy, occurring: Collection[int]) -> SharedClasses:
    """Return the classes that have the same name in both taxonomies, and are among the cache's ids in `occurring`."""
    of_cache = [number for number, name in enumerate(cache.names) if name in run.names and number in occurring]
    names = tuple(cache.names[number] for number in of_cache)
    of_run = [run.names.index(name) for name in names]
    return SharedClasses(names, np.array(of_run, np.int64), np.array(of_cache, np.int64))
