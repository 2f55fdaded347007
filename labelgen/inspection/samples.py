"""Samples cut out of finished shards, each as if it were alone in its shard."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SHARD_GROUPS, AnyArray
from cache_schemas.store import Cache

Arrays = Mapping[str, AnyArray]
Drawn = TypeVar("Drawn")

_AT_ONCE = 8
"""Samples that are held and drawn side by side."""

_GROUP_OF_AXIS = {"I": "images", "P": "points", "N": "pairs"}
"""Whose `offsets` tell where along an axis a sample begins and ends."""


@dataclass(frozen=True)
class Sample:
    """One sample, `place` samples into its shard: the cameras' names and its own part of the arrays, by group.

    Pairs count its own points and images from 0. `truth` is empty where there is none.
    """

    shard: str
    token: str
    place: int
    cameras: tuple[str, ...]
    groups: Mapping[str, Arrays]

    def __getitem__(self, group: str) -> Arrays:
        return self.groups[group]


def read_samples(cache: Cache, key: str, tokens: Collection[str], wanted: Mapping[str, Sequence[str]]) -> list[Sample]:
    """Return those of the samples `tokens` that a finished shard holds, with the `wanted` arrays of each group.

    No arrays named are all of a group; all `pairs` and `truth` are always read.

    Raises:
        CacheError: if a group is unsealed or damaged.
    """
    record = cache.shard_records([key])[key]
    offsets = {axis: cache.read(GroupPath(key, group), "offsets")["offsets"] for axis, group in _GROUP_OF_AXIS.items()}
    shard = {group: cache.read(GroupPath(key, group), *names) for group, names in {**wanted, "pairs": ()}.items()}
    shard["truth"] = cache.read(truth) if cache.seals([truth := GroupPath(key, "truth")]) else {}
    samples = []
    for place, token in enumerate(record.samples):
        if token in tokens:
            own = {axis: slice(int(ends[place]), int(ends[place + 1])) for axis, ends in offsets.items()}
            groups = {group: _cut(group, arrays, own) for group, arrays in shard.items()}
            samples.append(Sample(key, token, place, record.cameras, groups))
    return samples


def read_shown(cache: Cache, shown: Sequence[tuple[str, str]], wanted: Mapping[str, Sequence[str]]) -> Iterator[Sample]:
    """Yield the samples `shown`, by (shard, sample id), in their order, each shard read once; see `read_samples`."""
    held: dict[tuple[str, str], Sample] = {}
    for key, token in shown:
        if (key, token) not in held:
            for sample in read_samples(cache, key, [own for shard, own in shown if shard == key], wanted):
                held[key, sample.token] = deepcopy(sample)  # which lets go of the rest of the shard
        yield held.pop((key, token))


def draw_shown(
    cache: Cache,
    shown: Sequence[tuple[str, str]],
    wanted: Mapping[str, Sequence[str]],
    draw: Callable[[Sample], Drawn],
) -> Iterator[Drawn]:
    """Yield what `draw`, called from several threads, makes of the samples `shown`, in their order, some at a time."""
    samples = read_shown(cache, shown, wanted)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while some := list(islice(samples, _AT_ONCE)):
            yield from pool.map(draw, some)


def _cut(group: str, arrays: Arrays, own: Mapping[str, slice]) -> dict[str, AnyArray]:
    """Cut a sample's own part out of a shard's arrays, `offsets` left out."""
    part = {name: a[own[SHARD_GROUPS[group].arrays[name].axes[0]]] for name, a in arrays.items() if name != "offsets"}
    if group == "pairs":
        part |= {"point": part["point"] - own["P"].start, "image": part["image"] - own["I"].start}
    return part
