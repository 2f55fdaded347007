"""Clouds that sweeps join: more points in the same places, without labels."""

import numpy as np

from cache_schemas.taxonomy import IGNORE
from trainer.data.stream import SampleArrays


def join_sweeps(arrays: SampleArrays, count: int, labels: str, rng: np.random.Generator) -> SampleArrays:
    """Return the arrays of a sample whose points are followed by those of `count` sweeps, drawn at random.

    All sweeps are taken if there are fewer. Points of sweeps have no label: 255 in the array called `labels`. Where
    they have no intensity or colour, these are 0. Pairs stay those of the cloud's own points, which come first.
    """
    lags = arrays["sweeps/lag"]
    known = np.unique(lags)
    drawn = rng.choice(known, min(count, len(known)), replace=False) if len(known) else known
    chosen = np.isin(lags, drawn)
    points = int(chosen.sum())
    joined = dict(arrays)
    for name in ("xyz", "intensity", "colour"):
        if (own := arrays.get(f"points/{name}")) is not None:
            found = arrays.get(f"sweeps/{name}")
            added = np.zeros((points, *own.shape[1:]), own.dtype) if found is None else found[chosen]
            joined[f"points/{name}"] = np.concatenate([own, added])
    joined[labels] = np.concatenate([arrays[labels], np.full(points, IGNORE, np.uint8)])
    return joined
