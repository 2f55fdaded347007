"""Count the finished shards of a cache one after the other with dask, and sum the counts.

Memory holds a few shards and one small record a sample, whatever the size of the cache.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import reduce

from cache_schemas.errors import CacheError
from cache_schemas.location import StoreError
from cache_schemas.store import Cache
from labelgen.inspection.counting.measures import Measurements, measurements_of
from labelgen.inspection.counting.samples import read_samples
from labelgen.inspection.counting.statistics import COUNTED_ARRAYS, Statistics, count_sample
from labelgen.inspection.report import Scoring

_SUMS_PER_TASK = 8
"""One dask task adds so many partial sums."""

SamplesByShard = Mapping[str, Collection[str]]
"""Ids of the samples to count, by shard key."""


@dataclass(frozen=True)
class CountedSamples:
    """Counts of the samples of some shards.

    `total` is their sum (None if there are none), `shards` and `samples` are the measures of each shard and sample,
    and `damaged` are the error messages of shards that could not be read, by key.
    """

    total: Statistics | None
    shards: tuple[Measurements, ...]
    samples: tuple[Measurements, ...]
    damaged: dict[str, str]


def count_shards(url: str, chosen: SamplesByShard, scoring: Scoring) -> CountedSamples:
    """Count the chosen samples of finished shards. A shard that cannot be read goes to `damaged`.

    `scoring` says what stands for truth, and what counts.

    Raises:
        StoreError: if the store cannot be reached.
    """
    from dask.base import compute
    from dask.delayed import delayed

    parts = [delayed(_count_shard)(url, key, frozenset(samples), scoring) for key, samples in chosen.items()]
    while len(parts) > 1:
        parts = [delayed(_add)(parts[i : i + _SUMS_PER_TASK]) for i in range(0, len(parts), _SUMS_PER_TASK)]
    if not parts:
        return CountedSamples(None, (), (), {})
    # dask has no types here
    counted: CountedSamples = compute(*parts, scheduler="threads")[0]  # type: ignore[no-untyped-call]
    return counted


def _count_shard(url: str, key: str, chosen: frozenset[str], scoring: Scoring) -> CountedSamples:
    cache = Cache(url)
    try:
        read = read_samples(cache, key, chosen, COUNTED_ARRAYS, scoring.source)
        samples = {sample.token: count_sample(sample) for sample in read}
    except StoreError:
        raise
    except (CacheError, ValueError) as error:
        return CountedSamples(None, (), (), {key: str(error)})
    if not samples:
        return CountedSamples(None, (), (), {})
    total = reduce(Statistics.__add__, samples.values())
    by_sample = tuple(measurements_of(key, token, counts, scoring.rule) for token, counts in samples.items())
    return CountedSamples(total, (measurements_of(key, None, total, scoring.rule),), by_sample, {})


def _add(parts: list[CountedSamples]) -> CountedSamples:
    totals = [part.total for part in parts if part.total is not None]
    return replace(
        parts[0],
        total=reduce(Statistics.__add__, totals) if totals else None,
        shards=tuple(shard for part in parts for shard in part.shards),
        samples=tuple(sample for part in parts for sample in part.samples),
        damaged={key: message for part in parts for key, message in part.damaged.items()},
    )
