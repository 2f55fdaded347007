"""Stream a cache's finished shards through dask and sum what their samples count.

Memory holds a few shards and one small row a sample, whatever the cache's size.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.errors import CacheError
from cache_schemas.place import StoreError
from cache_schemas.store import Cache
from labelgen.inspection.measures import Row, row
from labelgen.inspection.statistics import Statistics, count_sample

_AT_ONCE = 8
"""Partial sums that are added in one task."""

Choice = Mapping[str, Collection[str]]
"""Samples to count, by shard."""


@dataclass(frozen=True)
class Survey:
    """What shards count: their sum (None of nothing), a row a shard, a row a sample, and what could not be read."""

    total: Statistics | None
    shards: tuple[Row, ...]
    samples: tuple[Row, ...]
    damaged: dict[str, str]


def survey_shards(url: str, choice: Choice) -> Survey:
    """Count the chosen samples of finished shards; a shard that cannot be read is named in `damaged`."""
    import dask

    parts = [dask.delayed(_survey_shard)(url, key, frozenset(samples)) for key, samples in choice.items()]
    while len(parts) > 1:
        parts = [dask.delayed(_join)(parts[i : i + _AT_ONCE]) for i in range(0, len(parts), _AT_ONCE)]
    survey: Survey = dask.compute(*parts, scheduler="threads")[0] if parts else Survey(None, (), (), {})
    return survey


def _survey_shard(url: str, key: str, chosen: frozenset[str]) -> Survey:
    cache = Cache(url)
    try:
        samples = {
            token: count_sample(**arrays) for token, arrays in read_samples(cache, key).items() if token in chosen
        }
    except StoreError:
        raise
    except (CacheError, ValueError) as error:
        return Survey(None, (), (), {key: str(error)})
    if not samples:
        return Survey(None, (), (), {})
    total = reduce(Statistics.__add__, samples.values())
    return Survey(total, (row(key, None, total),), tuple(row(key, *item) for item in samples.items()), {})


def read_samples(cache: Cache, key: str) -> dict[str, dict[str, Any]]:
    """Return what `count_sample` takes, by sample id, of one finished shard.

    Raises:
        CacheError: if a group is unsealed or damaged.
    """
    shard = f"shards/{key}"
    tokens = cache.shard_records([key])[key].samples
    labels, pairs = cache.read(f"{shard}/labels"), cache.read(f"{shard}/pairs")
    images = cache.read(f"{shard}/images", "offsets")["offsets"]
    points = cache.read(f"{shard}/points", "offsets")["offsets"]
    logits = cache.read(f"{shard}/clip", "logits")["logits"]
    mask_ids = cache.read(f"{shard}/sam", "mask_ids")["mask_ids"]
    truth = cache.read(f"{shard}/truth") if cache.seals([f"{shard}/truth"]) else {}
    found = {}
    for index, token in enumerate(tokens):
        of_images, of_points, of_pairs = (_part(offsets, index) for offsets in (images, points, pairs["offsets"]))
        found[token] = {
            "labels": _cut(labels, of_images, of_points),
            "logits": logits[of_images],
            "mask_ids": mask_ids[of_images],
            "pairs": {
                "point": pairs["point"][of_pairs] - of_points.start,
                "image": pairs["image"][of_pairs] - of_images.start,
                "row": pairs["row"][of_pairs],
                "col": pairs["col"][of_pairs],
            },
            "truth": _cut(truth, of_images, of_points),
        }
    return found


def _part(offsets: NDArray[np.int64], index: int) -> slice:
    return slice(int(offsets[index]), int(offsets[index + 1]))


def _cut(arrays: Mapping[str, NDArray[Any]], images: slice, points: slice) -> dict[str, NDArray[Any]]:
    return {name: values[points if name.startswith("point") else images] for name, values in arrays.items()}


def _join(parts: list[Survey]) -> Survey:
    totals = [part.total for part in parts if part.total is not None]
    return replace(
        parts[0],
        total=reduce(Statistics.__add__, totals) if totals else None,
        shards=tuple(found for part in parts for found in part.shards),
        samples=tuple(found for part in parts for found in part.samples),
        damaged={key: message for part in parts for key, message in part.damaged.items()},
    )
