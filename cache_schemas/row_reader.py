"""Reads rows of sealed arrays directly from their files: the values that zarr-python reads, at less cost per call.

A span of rows is one range of the array's file. All bytes are verified as they are read, by the checksum of their
chunk.
"""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.array_storage import METADATA, chunk_file, chunk_layout, decode_chunk, decode_index, index_bytes
from cache_schemas.documents import ArraySeal, GroupSeal
from cache_schemas.errors import DamagedGroupError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray
from cache_schemas.location import file_system, is_url

Range = tuple[str, int, int | None]
"""A file and the range of its bytes from start to stop; a negative start counts from the end, None is the end."""


@dataclass(frozen=True)
class StoredArray:
    """The file of a sealed array, and where its inner chunks are.

    Each chunk has `rows` rows; `chunks` (n, 2) are their offsets and sizes in bytes.
    """

    file: str
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
    """Reads rows of the cache at `url`, local or in an object store, many spans in one call."""

    def __init__(self, url: str) -> None:
        """Refer to the cache; nothing is read yet."""
        self.url = url.rstrip("/")
        self._fs, self._base = file_system(self.url)

    def locate(
        self, seals: Mapping[GroupPath, GroupSeal], names: Mapping[GroupPath, Sequence[str]]
    ) -> dict[str, StoredArray]:
        """Find the files and chunks of the arrays `names` of groups with these seals, by `<group path>/<array name>`.

        Raises:
            DamagedGroupError: if an array's metadata or chunk index cannot be read.
        """
        arrays = {f"{path}/{name}": seals[path].arrays[name] for path in seals for name in names[path]}
        documents = self._fetch([(self._path(path, METADATA), 0, None) for path in arrays])
        layouts = [self._layout(path, text) for path, text in zip(arrays, documents, strict=True)]
        files = [self._path(path, chunk_file(len(sealed.shape))) for path, sealed in arrays.items()]
        counts = [-(-sealed.shape[0] // rows) for sealed, (rows, _) in zip(arrays.values(), layouts, strict=True)]
        index_ranges: dict[str, Range] = {
            path: (file, -index_bytes(count), None)
            for (path, sealed), file, count in zip(arrays.items(), files, counts, strict=True)
            if 0 not in sealed.shape
        }
        indexes = dict(zip(index_ranges, self._fetch(list(index_ranges.values())), strict=True))
        return {
            path: self._stored_array(path, sealed, file, layout, indexes.get(path), count)
            for (path, sealed), file, layout, count in zip(arrays.items(), files, layouts, counts, strict=True)
        }

    def read(self, spans: Sequence[Span]) -> list[AnyArray]:
        """Return the values of each span; all are fetched at once.

        Raises:
            DamagedGroupError: with the array whose bytes are missing or damaged.
        """
        ranges = [_range(span) for span in spans]
        fetched = iter(self._fetch([part for part in ranges if part]))
        return [
            self._decode(span, next(fetched), part[1]) if part else _empty(span)
            for span, part in zip(spans, ranges, strict=True)
        ]

    def _decode(self, span: Span, data: bytes, origin: int) -> AnyArray:
        """Return the rows of a span from the bytes of its file that begin at offset `origin`."""
        array = span.array
        values = np.empty((span.stop - span.start, *array.shape[1:]), array.dtype)
        stored, first = np.frombuffer(data, np.uint8), span.start // array.rows  # slices of bytes would be copies
        chunks = array.chunks[first : -(-span.stop // array.rows)].tolist()
        shape = (array.rows, *array.shape[1:])
        for number, (offset, size) in enumerate(chunks, start=first):
            try:
                chunk = stored[offset - origin : offset - origin + size]
                rows = decode_chunk(chunk, array.compressed, shape, array.dtype)
            except (ValueError, RuntimeError) as error:
                raise self._damaged(array.file, str(error)) from error
            base = number * array.rows
            start, stop = max(span.start, base), min(span.stop, base + array.rows)
            values[start - span.start : stop - span.start] = rows[start - base : stop - base]
        return values

    def _layout(self, path: str, metadata: bytes) -> tuple[int, bool]:
        try:
            return chunk_layout(metadata)
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedGroupError(
                f"{self.url}/{path}: not stored as the contract says ({error}); `labelgen verify` lists all such arrays"
            ) from None

    def _stored_array(
        self, path: str, sealed: ArraySeal, file: str, layout: tuple[int, bool], index: bytes | None, count: int
    ) -> StoredArray:
        rows, compressed = layout
        try:
            chunks = np.zeros((0, 2), np.int64) if index is None else decode_index(index, count)
        except ValueError as error:
            raise self._damaged(path, str(error)) from None
        return StoredArray(file, sealed.shape, np.dtype(sealed.dtype), rows, compressed, chunks)

    def _fetch(self, ranges: Sequence[Range]) -> list[bytes]:
        if not ranges:
            return []
        if is_url(self.url):
            found = self._fs.cat_ranges(*map(list, zip(*ranges, strict=True)), on_error="return")
        else:
            found = [_read_range(*wanted) for wanted in ranges]
        for (file, _, _), data in zip(ranges, found, strict=True):
            if isinstance(data, Exception):
                raise self._damaged(file, f"{type(data).__name__}: {getattr(data, 'strerror', None) or data}")
        return list(found)

    def _path(self, *parts: str) -> str:
        return posixpath.join(self._base, *parts)

    def _damaged(self, file: str, reason: str) -> DamagedGroupError:
        inside = file.removeprefix(self._base).lstrip("/")
        array = inside.removesuffix(f"/{METADATA}").split("/c/0")[0]
        return DamagedGroupError(
            f"{self.url}/{array}: damaged ({reason}); remove the folder {posixpath.dirname(array)} of the cache, then "
            "rerun the same `labelgen run`; `labelgen verify` lists all damage"
        )


def _range(span: Span) -> Range | None:
    """Return the range of the file that holds a span, or None if the span is empty."""
    array = span.array
    if span.stop <= span.start or not len(array.chunks):
        return None
    chunks = array.chunks[span.start // array.rows : -(-span.stop // array.rows)]
    return array.file, int(chunks[:, 0].min()), int(chunks.sum(axis=1).max())


def _empty(span: Span) -> AnyArray:
    return np.zeros((span.stop - span.start, *span.array.shape[1:]), span.array.dtype)


def _read_range(path: str, start: int, stop: int | None) -> bytes | OSError:
    try:
        with Path(path).open("rb", buffering=0) as file:
            file.seek(start, 0 if start >= 0 else 2)
            return file.read(-1 if stop is None else stop - start)
    except OSError as error:
        return error
