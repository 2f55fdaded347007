"""Reads the samples of a cache: which there are, and their arrays."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache_schemas.documents import GroupSeal
from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray, group_spec
from cache_schemas.row_reader import RowReader, Span, StoredArray
from cache_schemas.store import Cache
from trainer.data.admission import admit
from trainer.errors import UnfitCacheError

OFFSETS = {"I": "images/offsets", "P": "points/offsets", "N": "pairs/offsets", "Q": "sweeps/offsets"}
"""By first axis of an array (of images, points, pairs, points of sweeps): the array with each sample's first row."""

CONFIRM_SECONDS = 5.0
"""After this time, a shard that is still open is compared with its seals again."""

SampleArrays = dict[str, AnyArray]
"""Arrays of one sample, by `<group>/<name>`."""


@dataclass(frozen=True)
class SampleRef:
    """A sample of a cache: its shard's key, its index in that shard, its token and its scene."""

    shard: str
    index: int
    token: str
    scene: str


class CacheStream:
    """The samples of a cache, read array by array as `<group>/<name>`."""

    def __init__(
        self,
        url: str,
        arrays: Sequence[str],
        *,
        optional: Sequence[str] = (),
        open_shards: int = 16,
        only_their_groups: bool = False,
    ) -> None:
        """Open the cache and check its documents and file sizes; values of arrays are read later.

        `arrays` must be present in every shard; `optional` ones are read where they are present. The chunk indices of
        the last `open_shards` shards are kept in memory. With `only_their_groups`, the cache may lack all other groups.

        Raises:
            CacheError: if there is no cache at `url`, or it has another schema version.
            UnfitCacheError: if a group is unsealed, stale or not laid out as documented, or an array is missing.
        """
        cache, self.manifest = Cache.open(url)
        self.url, self._open_shards = url, open_shards
        self._arrays = sorted({*arrays, *optional, *_offsets([*arrays, *optional])})
        self._records, self._seals = admit(cache, self.manifest, arrays, only_their_groups=only_their_groups)
        self._reader = RowReader(url)
        self._opened: OrderedDict[str, _OpenShard] = OrderedDict()
        self._confirmed_s: dict[str, float] = {}
        self.samples = [
            SampleRef(key, index, token, record.scene)
            for key, record in self._records.items()
            for index, token in enumerate(record.samples)
        ]

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprints of all groups that are read, by path; equal fingerprints give equal training."""
        read = sorted(filter(self._is_read, self._seals), key=str)
        return {str(path): self._seals[path].fingerprint for path in read}

    def scene_contents(self) -> dict[str, tuple[str, ...]]:
        """Return digests of the pictures and of the clouds of each scene, by its name.

        A copy of a cache has the same ones. Labels do not matter.
        """
        found: dict[str, dict[str, list[str]]] = {}
        for key, record in sorted(self._records.items()):
            arrays = found.setdefault(record.scene, {})
            for group, name in (("images", "rgb"), ("points", "xyz")):
                seal = self._seals.get(GroupPath(key, group))
                if seal is not None and name in seal.arrays and 0 not in seal.arrays[name].shape:
                    arrays.setdefault(name, []).append(seal.arrays[name].crc32c)
        return {
            scene: tuple(
                f"{name}:{hashlib.sha256(' '.join(sums).encode()).hexdigest()[:16]}" for name, sums in arrays.items()
            )
            for scene, arrays in found.items()
        }

    def text_embeddings(self) -> NDArray[np.float32]:
        """Return the text embedding of each class (C, D), of unit norm.

        Raises:
            DamagedGroupError: if its bytes are not those that were written.
        """
        return Cache(self.url).read(GroupPath.root("text"), "embeddings")["embeddings"]

    def read(
        self, ref: SampleRef, images: Sequence[int] | None = None, only: Collection[str] | None = None
    ) -> SampleArrays:
        """Return the arrays of a sample, or `only` some of them.

        Of arrays with a row for each image, only the rows of the chosen `images` are read (all, if None). Indices of
        pairs are relative to the sample's points and to the chosen images; pairs with other images are left out, and
        so are hidden pairs if `pairs/visible` is read.

        Raises:
            DamagedGroupError: if bytes are not those that were written; it names the shard and the array.
            UnfitCacheError: if a group was made again since the stream was opened.
        """
        try:
            arrays = self._read(ref, images, only)
        except CacheError:
            self._refuse_changed(ref.shard)
            raise
        if time.monotonic() - self._confirmed_s[ref.shard] > CONFIRM_SECONDS:
            self._refuse_changed(ref.shard)
        return arrays

    def _read(self, ref: SampleRef, images: Sequence[int] | None, only: Collection[str] | None) -> SampleArrays:
        shard = self._open(ref.shard)
        bounds = {axis: (int(ends[ref.index]), int(ends[ref.index + 1])) for axis, ends in shard.offsets.items()}
        chosen = range(self.image_count(ref)) if images is None else images
        spans, names = [], []
        for path in shard.arrays if only is None else only:
            axis = _first_axis(path)
            start, stop = bounds[axis]
            runs = _consecutive_runs([start + image for image in chosen]) if axis == "I" else [(start, stop)]
            spans += [Span(shard.arrays[path], *run) for run in runs]
            names += [path] * len(runs)
        parts: dict[str, list[AnyArray]] = {}
        for name, values in zip(names, self._reader.read(spans), strict=True):
            parts.setdefault(name, []).append(values)
        arrays = {name: found[0] if len(found) == 1 else np.concatenate(found) for name, found in parts.items()}
        return _localise_pairs(arrays, bounds, chosen)

    def has(self, ref: SampleRef, path: str) -> bool:
        """Return whether the shard of a sample has an array, `<group>/<name>`."""
        group, name = path.split("/")
        seal = self._seals.get(GroupPath(ref.shard, group))
        return seal is not None and name in seal.arrays

    def image_count(self, ref: SampleRef) -> int:
        """Return the number of images of a sample; 0 if the stream reads no array of images."""
        ends = self._open(ref.shard).offsets.get("I", [0] * (ref.index + 2))
        return int(ends[ref.index + 1] - ends[ref.index])

    def split_of(self, ref: SampleRef) -> str:
        """Return the split of a sample."""
        return self.manifest.split_of(self._records[ref.shard])

    def cloud_name(self, ref: SampleRef) -> str:
        """Return the data set's own id of a sample's cloud, or "" if the cache does not have it."""
        clouds = self._records[ref.shard].clouds
        return clouds[ref.index] if clouds else ""

    def feature_width(self, path: str, ref: SampleRef, *, channels_last: bool) -> int:
        """Return the number of channels E of a feature array (I, h, w, E), or (I, E, h, w)."""
        return self._open(ref.shard).arrays[path].shape[3 if channels_last else 1]

    def _open(self, key: str) -> "_OpenShard":
        if key in self._opened:
            self._opened.move_to_end(key)
            return self._opened[key]
        present: dict[GroupPath, GroupSeal] = {}
        names: dict[GroupPath, list[str]] = {}
        for group, array in (name.split("/") for name in self._arrays):
            path = GroupPath(key, group)
            seal = self._seals.get(path)
            if seal is not None and array in seal.arrays:
                present[path] = seal
                names.setdefault(path, []).append(array)
        stored = {path.split("/", 2)[2]: array for path, array in self._reader.locate(present, names).items()}
        offset_names = [name for name in stored if name in OFFSETS.values()]
        values = self._reader.read([Span(stored[name], 0, stored[name].shape[0]) for name in offset_names])
        read = dict(zip(offset_names, values, strict=True))
        offsets = {axis: read[name] for axis, name in OFFSETS.items() if name in read}
        self._refuse_changed(key)
        self._opened[key] = _OpenShard({n: a for n, a in stored.items() if n not in read}, offsets)
        if len(self._opened) > self._open_shards:
            self._opened.popitem(last=False)
        return self._opened[key]

    def _refuse_changed(self, key: str) -> None:
        """Check that a shard's groups are those with which the stream started, so that what was just read is, too.

        A group that is made again loses its seal before its files change.

        Raises:
            UnfitCacheError: if one was made again, or removed.
        """
        pinned = {path: seal for path, seal in self._seals.items() if path.shard == key and self._is_read(path)}
        found = Cache(self.url).seals(pinned)
        for path, seal in pinned.items():
            if found.get(path) != seal:
                raise UnfitCacheError(
                    f"{self.url}/{path}: made again or removed since the run started, so old and new data would mix; "
                    "wait until `labelgen run` has finished, then start a new run with --out another folder"
                )
        self._confirmed_s[key] = time.monotonic()

    def _is_read(self, path: GroupPath) -> bool:
        return any(name.startswith(path.name + "/") for name in self._arrays)


@dataclass(frozen=True)
class _OpenShard:
    arrays: dict[str, StoredArray]
    offsets: dict[str, AnyArray]


def _offsets(arrays: Sequence[str]) -> Iterator[str]:
    for name in arrays:
        axis = _first_axis(name)
        yield OFFSETS[axis]
        if axis == "N":  # indices of pairs count the images and points of their shard
            yield OFFSETS["I"]
            yield OFFSETS["P"]


def _first_axis(path: str) -> str:
    group, name = path.split("/")
    return str(group_spec(GroupPath("any", group)).arrays[name].axes[0])


def _consecutive_runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Return runs of consecutive rows as (start, stop)."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and runs[-1][1] == row:
            runs[-1] = (runs[-1][0], row + 1)
        else:
            runs.append((row, row + 1))
    return runs


def _localise_pairs(arrays: SampleArrays, bounds: dict[str, tuple[int, int]], chosen: Sequence[int]) -> SampleArrays:
    """Make indices of pairs relative to the sample's points and the chosen images; drop other and hidden pairs."""
    if "pairs/image" not in arrays:
        return arrays
    position = np.full(bounds["I"][1] - bounds["I"][0], -1, np.int64)
    position[list(chosen)] = np.arange(len(chosen))
    image = position[arrays["pairs/image"].astype(np.int64) - bounds["I"][0]]
    kept = image >= 0
    if "pairs/visible" in arrays:
        kept &= arrays.pop("pairs/visible") > 0
    local = {"pairs/image": image[kept], "pairs/point": arrays["pairs/point"][kept].astype(np.int64) - bounds["P"][0]}
    local |= {name: arrays[name][kept].astype(np.int64) for name in ("pairs/row", "pairs/col")}
    return arrays | local
