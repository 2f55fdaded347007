"""Samples out of a cache: which there are, in which order an epoch takes them, and their arrays."""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.documents import GroupSeal
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SHARD_GROUPS, AnyArray
from cache_schemas.row_reader import RowReader, Span, StoredArray
from cache_schemas.store import Cache
from trainer.admission import admit
from trainer.errors import UnfitCacheError

OFFSETS = {"I": "images/offsets", "P": "points/offsets", "N": "pairs/offsets"}
"""Where the samples' bounds are, for arrays whose first axis runs over images, points or pairs."""

SampleArrays = dict[str, AnyArray]


@dataclass(frozen=True)
class SampleRef:
    """One sample: its shard, its place there, its token and its scene."""

    shard: str
    place: int
    token: str
    scene: str


class CacheStream:
    """The samples of a cache's sealed shards, read array by array as `<group>/<name>`."""

    def __init__(self, url: str, arrays: Sequence[str], *, optional: Sequence[str] = (), open_shards: int = 16) -> None:
        """Open the cache and check documents and sizes of files in all of it; array values are read later.

        `arrays` must be there in every shard, `optional` ones are read where they are. Chunk places of the last
        `open_shards` shards are remembered.

        Raises:
            CacheError: if there is no cache, or one of another schema version.
            UnfitCacheError: if anything in it is unsealed, stale, or not laid out as it should be, or lacks an array.
        """
        cache, self.manifest = Cache.open(url)
        self.url, self._open_shards = url, open_shards
        self._arrays = sorted({*arrays, *optional, *_offsets([*arrays, *optional])})
        self._records, self._seals = admit(cache, self.manifest, arrays)
        self._reader = RowReader(url)
        self._located: OrderedDict[str, _OpenShard] = OrderedDict()
        self.samples = [
            SampleRef(key, place, token, record.scene)
            for key, record in self._records.items()
            for place, token in enumerate(record.samples)
        ]

    @property
    def content(self) -> dict[str, Any]:
        """Fingerprints of all groups that are read, by path: equal contents give equal training."""
        return {str(path): self._seals[path].fingerprint for path in sorted(self._seals, key=str) if self._wanted(path)}

    def text_embeddings(self) -> NDArray[np.float32]:
        """Return the class embeddings (C, D), of unit norm."""
        return Cache(self.url).read(GroupPath.root("text"), "embeddings")["embeddings"]

    def read(
        self, ref: SampleRef, images: Sequence[int] | None = None, only: Collection[str] | None = None
    ) -> SampleArrays:
        """Return the arrays of a sample, or `only` some; of only the chosen `images` where they run over images.

        Pairs count images and points from the sample's first; pairs of images that are not chosen are left out, and
        the others count the chosen ones in their order.

        Raises:
            DamagedGroupError: naming the shard and array whose bytes are not those that were written.
        """
        shard = self._open(ref.shard)
        bounds = {axis: (int(ends[ref.place]), int(ends[ref.place + 1])) for axis, ends in shard.offsets.items()}
        chosen = range(bounds["I"][1] - bounds["I"][0]) if images is None else images
        spans, names = [], []
        for path in shard.arrays if only is None else only:
            stored, axis = shard.arrays[path], _axis(path)
            start, stop = bounds[axis]
            rows = _runs([start + image for image in chosen]) if axis == "I" else [(start, stop)]
            spans += [Span(stored, *run) for run in rows]
            names += [path] * len(rows)
        values = self._reader.read(spans)
        parts: dict[str, list[AnyArray]] = {}
        for name, value in zip(names, values, strict=True):
            parts.setdefault(name, []).append(value)
        arrays = {name: found[0] if len(found) == 1 else np.concatenate(found) for name, found in parts.items()}
        return _localise_pairs(arrays, bounds, chosen)

    def images(self, ref: SampleRef) -> int:
        """Return how many images a sample has."""
        ends = self._open(ref.shard).offsets["I"]
        return int(ends[ref.place + 1] - ends[ref.place])

    def cloud(self, ref: SampleRef) -> str:
        """Return the data set's own id of a sample's cloud, or nothing if the cache does not tell."""
        clouds = self._records[ref.shard].clouds
        return clouds[ref.place] if clouds else ""

    def width(self, path: str, ref: SampleRef, *, channels_last: bool) -> int:
        """Return the number of channels of a feature array (I, h, w, E), or (I, E, h, w)."""
        return self._open(ref.shard).arrays[path].shape[3 if channels_last else 1]

    def _open(self, key: str) -> "_OpenShard":
        if key in self._located:
            self._located.move_to_end(key)
            return self._located[key]
        present: dict[GroupPath, GroupSeal] = {}
        names: dict[GroupPath, list[str]] = {}
        for group, array in (name.split("/") for name in self._arrays):
            path = GroupPath(key, group)
            seal = self._seals.get(path)
            if seal is not None and array in seal.arrays:
                present[path] = seal
                names.setdefault(path, []).append(array)
        stored = {path.split("/", 2)[2]: array for path, array in self._reader.locate(present, names).items()}
        ends = [name for name in stored if name in OFFSETS.values()]
        values = self._reader.read([Span(stored[name], 0, stored[name].shape[0]) for name in ends])
        read = dict(zip(ends, values, strict=True))
        offsets = {axis: read[name] for axis, name in OFFSETS.items() if name in read}
        self._located[key] = _OpenShard({n: a for n, a in stored.items() if n not in ends}, offsets)
        if len(self._located) > self._open_shards:
            self._located.popitem(last=False)
        return self._located[key]

    def _wanted(self, path: GroupPath) -> bool:
        return any(name.startswith(path.name + "/") for name in self._arrays)


@dataclass(frozen=True)
class _OpenShard:
    arrays: dict[str, StoredArray]
    offsets: dict[str, AnyArray]


def epoch_order(samples: Sequence[SampleRef], seed: int, epoch: int, window: int) -> list[int]:
    """Return the order in which an epoch takes samples, as places in `samples`.

    Shards come in random order, the samples of every `window` successive ones shuffled together.
    """
    rng = np.random.default_rng([seed, epoch])
    by_shard: dict[str, list[int]] = {}
    for number, ref in enumerate(samples):
        by_shard.setdefault(ref.shard, []).append(number)
    shards = list(by_shard)
    shuffled = [shards[i] for i in rng.permutation(len(shards))]
    order: list[int] = []
    for start in range(0, len(shuffled), window):
        near = [number for shard in shuffled[start : start + window] for number in by_shard[shard]]
        order += [near[i] for i in rng.permutation(len(near))]
    return order


@dataclass(frozen=True)
class Step:
    """What one rank takes at one step: the samples' places in the stream's list."""

    epoch: int
    number: int
    samples: tuple[int, ...]


def steps_of_epoch(order: Sequence[int], epoch: int, samples: int, rank: int = 0, world: int = 1) -> list[Step]:
    """Cut an epoch's order into steps of `samples` on each of `world` ranks; returns those of `rank`.

    Every sample is taken once by one rank, and all ranks take equally many steps: where the number does not come out
    even, some steps take one sample more.

    Raises:
        UnfitCacheError: if there are fewer samples than ranks.
    """
    if len(order) < world:
        raise UnfitCacheError(f"{len(order)} samples are too few for {world} ranks; start at most {len(order)}")
    count = max(1, len(order) // (samples * world))
    joint = np.array_split(np.asarray(order), count)
    return [
        Step(epoch, number, tuple(int(i) for i in np.array_split(part, world)[rank]))
        for number, part in enumerate(joint)
    ]


def split_scenes(samples: Sequence[SampleRef], hold_out: int) -> tuple[list[SampleRef], list[SampleRef]]:
    """Return the samples to train on, and those of every `hold_out`-th scene in name order (0: none).

    Raises:
        UnfitCacheError: if nothing would be left to train on, or nothing held out.
    """
    scenes = sorted({ref.scene for ref in samples})
    held_out = set(scenes[hold_out - 1 :: hold_out]) if hold_out else set()
    if hold_out and not 0 < len(held_out) < len(scenes):
        raise UnfitCacheError(
            f"stream.hold_out = {hold_out} leaves {len(held_out)} of {len(scenes)} scenes for evaluation; "
            "choose a number from 2 to the number of scenes, or 0"
        )
    return [r for r in samples if r.scene not in held_out], [r for r in samples if r.scene in held_out]


def _offsets(arrays: Sequence[str]) -> Iterator[str]:
    for name in arrays:
        yield OFFSETS[_axis(name)]
    yield OFFSETS["I"]


def _axis(path: str) -> str:
    group, name = path.split("/")
    return str(SHARD_GROUPS[group].arrays[name].axes[0])


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Return successive rows as (start, stop) runs."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and runs[-1][1] == row:
            runs[-1] = (runs[-1][0], row + 1)
        else:
            runs.append((row, row + 1))
    return runs


def _localise_pairs(arrays: SampleArrays, bounds: dict[str, tuple[int, int]], chosen: Sequence[int]) -> SampleArrays:
    if "pairs/image" not in arrays:
        return arrays
    place = np.full(bounds["I"][1] - bounds["I"][0], -1, np.int64)
    place[list(chosen)] = np.arange(len(chosen))
    image = place[arrays["pairs/image"].astype(np.int64) - bounds["I"][0]]
    kept = image >= 0
    local = {"pairs/image": image[kept], "pairs/point": arrays["pairs/point"][kept].astype(np.int64) - bounds["P"][0]}
    local |= {name: arrays[name][kept].astype(np.int64) for name in ("pairs/row", "pairs/col")}
    return arrays | local
