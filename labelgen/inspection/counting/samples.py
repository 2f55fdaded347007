"""Read single samples out of finished shards, each as if it were alone in its shard."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

from cache_schemas.documents import Picture
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SHARD_GROUPS, SOURCE_PREFIX, AnyArray
from cache_schemas.store import Cache

Arrays = Mapping[str, AnyArray]
ArraysByGroup = Mapping[str, Sequence[str]]
"""Names of arrays to read, by group; no names stand for all arrays of the group."""

Result = TypeVar("Result")

_SAMPLES_IN_MEMORY = 8
"""So many samples are held in memory, and processed in parallel."""

_GROUP_WITH_OFFSETS = {"I": "images", "P": "points", "N": "pairs", "Q": "sweeps", "K": "instances"}
"""The group whose `offsets` say where along an axis a sample begins and ends."""


class SampleId(NamedTuple):
    """The key of a shard, and the id of a sample in it."""

    shard: str
    token: str


@dataclass(frozen=True)
class Sample:
    """The arrays of one sample by group; `index` is its position in the shard, `pictures` has a name an image.

    Pairs count the sample's own points and images from 0. `truth` is empty where the dataset has none, and groups and
    arrays of points are absent where the cache has no points. `dataset` is empty in caches of schema version 1.
    """

    shard: str
    token: str
    index: int
    pictures: tuple[str, ...]
    groups: Mapping[str, Arrays]
    dataset: str = ""

    @property
    def has_points(self) -> bool:
        """Whether the sample has points: its own group of labels says so."""
        return "pairs" in self.groups

    def __getitem__(self, group: str) -> Arrays:
        return self.groups[group]


def read_samples(
    cache: Cache, key: str, tokens: Collection[str], wanted: ArraysByGroup, source: str | None = None
) -> list[Sample]:
    """Return those of the samples `tokens` that a finished shard holds, with the `wanted` arrays.

    The groups `pairs`, if there are points, and `truth` are always read; the labels of an imported `source` take the
    place of `truth`.

    Raises:
        CacheError: if a group is unsealed or damaged.
    """
    record = cache.shard_records([key])[key]
    sealed = cache.shard_seals(key)
    present = {group: names for group, names in {**wanted, "pairs": ()}.items() if _may_be_read(group, sealed)}
    offsets = {
        axis: cache.read(GroupPath(key, group), "offsets")["offsets"]
        for axis, group in _GROUP_WITH_OFFSETS.items()
        if axis in {"I", *_first_axes((*present, "truth"))} and _may_be_read(group, sealed)
    }
    arrays: dict[str, Arrays] = {group: cache.read(GroupPath(key, group), *names) for group, names in present.items()}
    truth = GroupPath(key, "truth" if source is None else SOURCE_PREFIX + source)
    arrays["truth"] = cache.read(truth) if cache.seals([truth]) else {}
    samples = []
    for index, token in enumerate(record.samples):
        if token in tokens:
            ranges = {axis: slice(int(ends[index]), int(ends[index + 1])) for axis, ends in offsets.items()}
            ranges["S"] = slice(index, index + 1)
            groups = {group: _cut_out(group, arrays[group], ranges) for group in arrays}
            names = picture_names(record.pictures_at(ranges["I"].start, ranges["I"].stop))
            samples.append(Sample(key, token, index, names, groups, record.dataset))
    return samples


def picture_names(pictures: Sequence[Picture]) -> tuple[str, ...]:
    """Return a name for each picture of a sample: that of its camera, with its file where a camera took several."""
    counts = Counter(picture.camera for picture in pictures)
    names = []
    for number, picture in enumerate(pictures):
        own = PurePosixPath(picture.file).name if picture.file else str(number)
        names.append(picture.camera if counts[picture.camera] == 1 else f"{picture.camera} {own}")
    return tuple(names)


def iterate_samples(
    cache: Cache, ids: Sequence[SampleId], wanted: ArraysByGroup, source: str | None = None
) -> Iterator[Sample]:
    """Yield samples in the order of `ids`; each shard is read once, see `read_samples`."""
    waiting: dict[SampleId, Sample] = {}
    for own_id in ids:
        if own_id not in waiting:
            tokens = [token for shard, token in ids if shard == own_id.shard]
            for sample in read_samples(cache, own_id.shard, tokens, wanted, source):
                # The copy frees the memory of the rest of the shard.
                waiting[SampleId(own_id.shard, sample.token)] = deepcopy(sample)
        yield waiting.pop(own_id)


def map_samples(
    cache: Cache,
    ids: Sequence[SampleId],
    wanted: ArraysByGroup,
    function: Callable[[Sample], Result],
    source: str | None = None,
) -> Iterator[Result]:
    """Yield `function(sample)` in the order of `ids`; the function runs in several threads."""
    samples = iterate_samples(cache, ids, wanted, source)
    with ThreadPoolExecutor(_SAMPLES_IN_MEMORY) as pool:
        while batch := list(islice(samples, _SAMPLES_IN_MEMORY)):
            yield from pool.map(function, batch)


def _may_be_read(group: str, sealed: Collection[str]) -> bool:
    """Tell whether to read a group: optional ones, and those of points without points, may be absent."""
    spec = SHARD_GROUPS[group]
    return group in sealed or (not spec.optional and (not spec.of_points or "points" in sealed))


def _first_axis(group: str, array: str) -> str:
    return str(SHARD_GROUPS[group].arrays[array].axes[0])


def _first_axes(groups: Iterable[str]) -> set[str]:
    return {_first_axis(group, array) for group in groups for array in SHARD_GROUPS[group].arrays}


def _cut_out(group: str, arrays: Arrays, ranges: Mapping[str, slice]) -> dict[str, AnyArray]:
    """Return a sample's own part of a shard's arrays, without `offsets`; `ranges` are its slices by axis."""
    part = {name: array[ranges[_first_axis(group, name)]] for name, array in arrays.items() if name != "offsets"}
    if group == "pairs":
        part |= {"point": part["point"] - ranges["P"].start, "image": part["image"] - ranges["I"].start}
    return part
