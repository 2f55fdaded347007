"""Rows of sealed arrays, straight from their files: the values that zarr-python reads, without its cost a call.

A sealed array is one Zarr shard, hence one file: inner chunks along the first axis, then an index of their places. A
span of rows is one range of that file. Every byte that is read is checked against the crc32c beside it, or by zstd.
"""

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from cache_schemas.documents import GroupSeal
from cache_schemas.errors import DamagedGroupError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray
from cache_schemas.place import file_system, is_url

CRC_BYTES = 4
Range = tuple[str, int, int | None]


@dataclass(frozen=True)
class StoredArray:
    """A sealed array's file, and its inner chunks of `rows` rows there: `chunks` (n, 2) i64, offset and bytes each."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int
    compressed: bool
    chunks: NDArray[np.int64]


@dataclass(frozen=True)
class Span:
    """The rows `start`:`stop` of a stored array."""

    array: StoredArray
    start: int
    stop: int


class RowReader:
    """Reads rows of the cache at `url`, local or in an object store, many spans a call."""

    def __init__(self, url: str) -> None:
        """Point at the cache; nothing is read yet."""
        self.url = url.rstrip("/")
        self._fs, self._base = file_system(self.url)

    def locate(
        self, wanted: Mapping[GroupPath, GroupSeal], names: Mapping[GroupPath, Sequence[str]]
    ) -> dict[str, StoredArray]:
        """Find the arrays `names` of the groups `wanted`, both by group path; returns them by `<group path>/<name>`.

        Raises:
            DamagedGroupError: if an array's description or chunk index cannot be read.
        """
        paths = [f"{group}/{name}" for group in wanted for name in names[group]]
        seals = {f"{group}/{name}": wanted[group].arrays[name] for group in wanted for name in names[group]}
        documents = self._fetch([(self._path(path, "zarr.json"), 0, None) for path in paths])
        layouts = [_layout(path, document, self.url) for path, document in zip(paths, documents, strict=True)]
        files = [self._path(path, "c", *["0"] * len(seals[path].shape)) for path in paths]
        counts = [-(-seals[path].shape[0] // rows) for path, (rows, _) in zip(paths, layouts, strict=True)]
        tails = {
            path: (file, -(16 * count + CRC_BYTES), None)
            for path, file, count in zip(paths, files, counts, strict=True)
            if 0 not in seals[path].shape
        }
        fetched = dict(zip(tails, self._fetch(list(tails.values())), strict=True))
        return {
            path: StoredArray(
                file,
                seals[path].shape,
                np.dtype(seals[path].dtype),
                rows,
                compressed,
                self._index(path, fetched.get(path), count),
            )
            for path, file, count, (rows, compressed) in zip(paths, files, counts, layouts, strict=True)
        }

    def read(self, spans: Sequence[Span]) -> list[AnyArray]:
        """Return the values of each span, all fetched at once.

        Raises:
            DamagedGroupError: naming the array whose bytes are missing or not those that were written.
        """
        ranges = [_range(span) for span in spans]
        parts = self._fetch([found for found in ranges if found])
        fetched = iter(parts)
        return [
            self._decode(span, next(fetched), found[1]) if found else _empty(span)
            for span, found in zip(spans, ranges, strict=True)
        ]

    def _decode(self, span: Span, data: bytes, origin: int) -> AnyArray:
        array = span.array
        values = np.empty((span.stop - span.start, *array.shape[1:]), array.dtype)
        stored, first = np.frombuffer(data, np.uint8), span.start // array.rows  # slices of bytes would be copies
        chunks = array.chunks[first : -(-span.stop // array.rows)].tolist()
        for number, (offset, size) in enumerate(chunks, start=first):
            try:
                chunk = _decode_chunk(stored[offset - origin : offset - origin + size], array.compressed)
                rows = np.frombuffer(chunk, array.dtype.newbyteorder("<")).reshape(array.rows, *array.shape[1:])
            except (ValueError, RuntimeError) as error:
                raise self._damaged(array.path, str(error)) from error
            base = number * array.rows
            start, stop = max(span.start, base), min(span.stop, base + array.rows)
            values[start - span.start : stop - span.start] = rows[start - base : stop - base]
        return values

    def _index(self, path: str, tail: bytes | None, count: int) -> NDArray[np.int64]:
        if tail is None:
            return np.zeros((0, 2), np.int64)
        if len(tail) != 16 * count + CRC_BYTES or not _crc_fits(np.frombuffer(tail, np.uint8)):
            raise self._damaged(path, "its chunk index is not what was written")
        return np.frombuffer(tail[:-CRC_BYTES], "<u8").reshape(-1, 2).astype(np.int64)

    def _fetch(self, ranges: Sequence[Range]) -> list[bytes]:
        """Return the bytes of each range (path, start, stop); a negative start counts from the end."""
        if not ranges:
            return []
        if is_url(self.url):
            found = self._fs.cat_ranges(*map(list, zip(*ranges, strict=True)), on_error="return")
        else:
            found = [_read_range(*wanted) for wanted in ranges]
        for (path, _, _), data in zip(ranges, found, strict=True):
            if isinstance(data, Exception):
                raise self._damaged(path, f"{type(data).__name__}: {getattr(data, 'strerror', None) or data}")
        return list(found)

    def _path(self, *parts: str) -> str:
        return posixpath.join(self._base, *parts)

    def _damaged(self, path: str, reason: str) -> DamagedGroupError:
        inside = path.removeprefix(self._base).lstrip("/")
        array = inside.removesuffix("/zarr.json").split("/c/0")[0]
        return DamagedGroupError(
            f"{self.url}/{array}: damaged ({reason}); remove the folder {posixpath.dirname(array)} of the cache, then "
            "run the same `labelgen run` again; `labelgen verify` lists all damage"
        )


def _layout(path: str, document: bytes, url: str) -> tuple[int, bool]:
    """Return the rows of an inner chunk, and whether chunks are compressed, from an array's Zarr metadata."""
    try:
        (codec,) = json.loads(document)["codecs"]
        sharding = codec["configuration"]
        inner = [entry["name"] for entry in sharding["codecs"]]
        if sharding["index_location"] != "end" or inner not in (["bytes", "crc32c"], ["bytes", "zstd"]):
            raise ValueError(f"codecs {inner}")
        return int(sharding["chunk_shape"][0]), inner[1] == "zstd"
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedGroupError(
            f"{url}/{path}: not stored as the contract says ({error}); `labelgen verify` lists all such arrays"
        ) from None


def _range(span: Span) -> Range | None:
    """Return the range of the file that holds a span, or None if there is nothing to read."""
    array = span.array
    if span.stop <= span.start or not len(array.chunks):
        return None
    chunks = array.chunks[span.start // array.rows : -(-span.stop // array.rows)]
    return array.path, int(chunks[:, 0].min()), int(chunks.sum(axis=1).max())


def _empty(span: Span) -> AnyArray:
    return np.zeros((span.stop - span.start, *span.array.shape[1:]), span.array.dtype)


def _read_range(path: str, start: int, stop: int | None) -> bytes | OSError:
    try:
        with Path(path).open("rb", buffering=0) as file:
            file.seek(start, 0 if start >= 0 else 2)
            return file.read(-1 if stop is None else stop - start)
    except OSError as error:
        return error


def _decode_chunk(stored: NDArray[np.uint8], compressed: bool) -> Any:
    if compressed:
        from numcodecs.zstd import decompress

        return decompress(stored)
    if not _crc_fits(stored):
        raise ValueError("its checksum does not fit")
    return stored[:-CRC_BYTES]


def _crc_fits(stored: NDArray[np.uint8]) -> bool:
    if len(stored) <= CRC_BYTES:
        return False
    return bool(google_crc32c.value(stored[:-CRC_BYTES]) == int.from_bytes(stored[-CRC_BYTES:], "little"))
