"""Stream a cache's finished shards through dask and sum what their samples count.

Memory holds a few shards and one small row a sample, whatever the cache's size.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import reduce

from cache_schemas.errors import CacheError
from cache_schemas.location import StoreError
from cache_schemas.store import Cache
from labelgen.inspection.measures import Row, row
from labelgen.inspection.samples import read_samples
from labelgen.inspection.statistics import COUNTED, Statistics, count_sample

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
        samples = {sample.token: count_sample(sample) for sample in read_samples(cache, key, chosen, COUNTED)}
    except StoreError:
        raise
    except (CacheError, ValueError) as error:
        return Survey(None, (), (), {key: str(error)})
    if not samples:
        return Survey(None, (), (), {})
    total = reduce(Statistics.__add__, samples.values())
    return Survey(total, (row(key, None, total),), tuple(row(key, *item) for item in samples.items()), {})


def _join(parts: list[Survey]) -> Survey:
    totals = [part.total for part in parts if part.total is not None]
    return replace(
        parts[0],
        total=reduce(Statistics.__add__, totals) if totals else None,
        shards=tuple(found for part in parts for found in part.shards),
        samples=tuple(found for part in parts for found in part.samples),
        damaged={key: message for part in parts for key, message in part.damaged.items()},
    )
