"""Reads the samples of a cache: which there are, and their arrays."""

import hashlib
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray, group_spec
from cache_schemas.row_reader import ArrayFile, RowReader, Span, StoredArray
from cache_schemas.store import Cache
from trainer.data.admission import admit
from trainer.data.local_copy import LocalCopy
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
        only_their_groups: bool = False,
        local_copy: Path | None = None,
    ) -> None:
        """Open the cache and check its documents and file sizes; values of arrays are read later.

        `arrays` must be present in every shard; `optional` ones are read where they are present. The chunk indices of a
        shard are read when its first sample is, and kept: about 1 kB a sample. With `only_their_groups`, the cache may
        lack all other groups. With a folder `local_copy`, arrays are copied there when the first sample of their shard
        is read, and read from there.

        Raises:
            CacheError: if there is no cache at `url`, or it has another schema version.
            UnfitCacheError: if a group is unsealed, stale or not laid out as documented, or an array is missing.
            TrainerError: if `local_copy` is not private, or cannot be written.
        """
        cache, self.manifest = Cache.open(url)
        self.url = url
        self._arrays = sorted({*arrays, *optional, *_offsets([*arrays, *optional])})
        self._records, self._seals = admit(cache, self.manifest, arrays, only_their_groups=only_their_groups)
        self._reader = RowReader(url)
        self._copy = LocalCopy(local_copy, self._reader, self._seals) if local_copy else None
        self._opened: dict[str, _OpenShard] = {}
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
        return self.read_together([(ref, images)], only)[0]

    def read_together(
        self, wanted: Sequence[tuple[SampleRef, Sequence[int] | None]], only: Collection[str] | None = None
    ) -> list[SampleArrays]:
        """Return what `read` returns for each of these samples and images; all their bytes are fetched in one call.

        From an object store, samples that are read together wait for its latency once, not once for each.

        Raises:
            DamagedGroupError, UnfitCacheError: as `read` does.
        """
        if self._copy:  # what is copied has the content with which the stream started
            return self._read(wanted, only)
        keys, now = {ref.shard for ref, _ in wanted}, time.monotonic()
        due = {key for key in keys if now - self._confirmed_s.get(key, -CONFIRM_SECONDS) >= CONFIRM_SECONDS}
        if not due:
            return self._read(wanted, only)
        with ThreadPoolExecutor(1) as pool:  # no further wait for the store's latency
            confirmed = pool.submit(self._refuse_changed, due)
            samples = self._read(wanted, only)
            confirmed.result()
        return samples

    def _read(
        self, wanted: Sequence[tuple[SampleRef, Sequence[int] | None]], only: Collection[str] | None
    ) -> list[SampleArrays]:
        shards = self._open([ref.shard for ref, _ in wanted])
        spans: list[Span] = []
        places: list[tuple[int, str]] = []
        selected: list[tuple[dict[str, tuple[int, int]], Sequence[int]]] = []
        for number, (ref, images) in enumerate(wanted):
            shard = shards[ref.shard]
            bounds = shard.bounds(ref.index)
            chosen = range(shard.image_count(ref.index)) if images is None else images
            selected.append((bounds, chosen))
            for path in shard.arrays if only is None else only:
                axis = _first_axis(path)
                start, stop = bounds[axis]
                runs = _consecutive_runs([start + image for image in chosen]) if axis == "I" else [(start, stop)]
                spans += [Span(shard.arrays[path], *run) for run in runs]
                places += [(number, path)] * len(runs)
        parts: list[dict[str, list[AnyArray]]] = [{} for _ in wanted]
        with self._telling_changes(shards):
            found_spans = (self._copy or self._reader).read(spans)
        for (number, path), values in zip(places, found_spans, strict=True):
            parts[number].setdefault(path, []).append(values)
        return [
            _localise_pairs({name: _join_runs(runs) for name, runs in found.items()}, bounds, chosen)
            for found, (bounds, chosen) in zip(parts, selected, strict=True)
        ]

    def has(self, ref: SampleRef, path: str) -> bool:
        """Return whether the shard of a sample has an array, `<group>/<name>`."""
        group, name = path.split("/")
        seal = self._seals.get(GroupPath(ref.shard, group))
        return seal is not None and name in seal.arrays

    def image_count(self, ref: SampleRef) -> int:
        """Return the number of images of a sample; 0 if the stream reads no array of images."""
        return self.image_counts([ref])[0]

    def image_counts(self, refs: Sequence[SampleRef]) -> list[int]:
        """Return the number of images of each sample; shards that are not open yet are opened together."""
        shards = self._open([ref.shard for ref in refs])
        return [shards[ref.shard].image_count(ref.index) for ref in refs]

    def split_of(self, ref: SampleRef) -> str:
        """Return the split of a sample."""
        return self.manifest.split_of(self._records[ref.shard])

    def cloud_name(self, ref: SampleRef) -> str:
        """Return the data set's own id of a sample's cloud, or "" if the cache does not have it."""
        clouds = self._records[ref.shard].clouds
        return clouds[ref.index] if clouds else ""

    def feature_width(self, path: str, ref: SampleRef, *, channels_last: bool) -> int:
        """Return the number of channels E of a feature array (I, h, w, E), or (I, E, h, w)."""
        return self._open([ref.shard])[ref.shard].arrays[path].shape[3 if channels_last else 1]

    def _open(self, keys: Sequence[str]) -> dict[str, "_OpenShard"]:
        """Return these shards, by key; the files of those that are not open yet are read together."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._opened]
        if missing:
            with self._telling_changes(missing):
                self._opened |= self._read_indices(missing)
        return {key: self._opened[key] for key in keys}

    def _read_indices(self, keys: Sequence[str]) -> dict[str, "_OpenShard"]:
        files: dict[str, ArrayFile] = {}
        for key in keys:
            for group, name in (array.split("/") for array in self._arrays):
                path = GroupPath(key, group)
                seal = self._seals.get(path)
                if seal is not None and name in seal.arrays:
                    files[f"{key}/{group}/{name}"] = self._reader.file_by_contract(path, name, seal.arrays[name])
        ends = [place for key in keys for name in OFFSETS.values() if (place := f"{key}/{name}") in files]
        stored, offsets = (self._copy or self._reader).open(files, ends)
        opened = {key: _OpenShard({}, {}) for key in keys}
        axes = {name: axis for axis, name in OFFSETS.items()}
        for place, array in stored.items():
            key, name = place.split("/", 1)
            if place in offsets:
                opened[key].offsets[axes[name]] = offsets[place]
            else:
                opened[key].arrays[name] = array
        return opened

    @contextmanager
    def _telling_changes(self, keys: Collection[str]) -> Iterator[None]:
        """Raise the error of a shard that was made again, where this is why it cannot be read."""
        try:
            yield
        except CacheError:
            self._refuse_changed(keys)
            raise

    def _refuse_changed(self, keys: Collection[str]) -> None:
        """Check that groups of shards are those with which the stream started.

        A group that is made again loses its seal before its files change.

        Raises:
            UnfitCacheError: if one was made again, or removed.
        """
        groups = sorted({name.split("/")[0] for name in self._arrays})
        paths = [GroupPath(key, group) for key in keys for group in groups]
        pinned = {path: self._seals[path] for path in paths if path in self._seals}
        found = Cache(self.url).seals(pinned)
        for path, seal in pinned.items():
            if found.get(path) != seal:
                raise UnfitCacheError(
                    f"{self.url}/{path}: made again or removed since the run started, so old and new data would mix; "
                    "wait until `labelgen run` has finished, then start a new run with --out another folder"
                )
        self._confirmed_s |= dict.fromkeys(keys, time.monotonic())

    def _is_read(self, path: GroupPath) -> bool:
        return any(name.startswith(path.name + "/") for name in self._arrays)


@dataclass(frozen=True)
class _OpenShard:
    arrays: dict[str, StoredArray]
    offsets: dict[str, AnyArray]

    def bounds(self, index: int) -> dict[str, tuple[int, int]]:
        """Return the rows (start, stop) of a sample, by first axis."""
        return {axis: (int(ends[index]), int(ends[index + 1])) for axis, ends in self.offsets.items()}

    def image_count(self, index: int) -> int:
        start, stop = self.bounds(index).get("I", (0, 0))
        return stop - start


def _join_runs(runs: list[AnyArray]) -> AnyArray:
    return runs[0] if len(runs) == 1 else np.concatenate(runs)


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
