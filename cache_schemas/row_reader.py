"""Reads rows of sealed arrays directly from their files: the values that zarr-python reads, at less cost per call.

A span of rows is one range of the array's file. All bytes are verified as they are read, by the checksum of their
chunk.
"""

import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.array_storage import (
    METADATA,
    Stored,
    chunk_file,
    chunk_layout,
    decode_chunk,
    decode_index,
    index_bytes,
    largest_chunk_bytes,
)
from cache_schemas.documents import ArraySeal, GroupSeal
from cache_schemas.errors import CacheError, DamagedGroupError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray
from cache_schemas.local_files import read_range
from cache_schemas.location import file_system, is_packed, is_url
from cache_schemas.packed_file import open_packed
from cache_schemas.zarr_documents import LARGEST_DOCUMENT_BYTES, parse_document

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
        self._packed = open_packed(self._base) if is_packed(self.url) else None

    def locate(
        self, seals: Mapping[GroupPath, GroupSeal], names: Mapping[GroupPath, Sequence[str]]
    ) -> dict[str, StoredArray]:
        """Find the files and chunks of the arrays `names` of groups with these seals, by `<group path>/<array name>`.

        Raises:
            DamagedGroupError: if an array's metadata or chunk index is damaged.
            StoreError: if one cannot be read.
        """
        arrays = {f"{path}/{name}": seals[path].arrays[name] for path in seals for name in names[path]}
        texts = self._fetch([(self._path(path, METADATA), 0, LARGEST_DOCUMENT_BYTES + 1) for path in arrays])
        layouts = [self._layout(path, sealed, text) for (path, sealed), text in zip(arrays.items(), texts, strict=True)]
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
            StoreError: if they cannot be read.
        """
        ranges = [_range(span) for span in spans]
        fetched = iter(self._fetch([part for part in ranges if part]))
        return [
            self._decode(span, next(fetched), part[1]) if part else _empty(span)
            for span, part in zip(spans, ranges, strict=True)
        ]

    def _decode(self, span: Span, data: Stored, origin: int) -> AnyArray:
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

    def _layout(self, path: str, sealed: ArraySeal, text: Stored) -> tuple[int, bool]:
        """Return the rows of a chunk, and whether chunks are compressed."""
        try:
            document = parse_document(f"{self.url}/{path}/{METADATA}", text)
            if isinstance(document, CacheError):
                raise document
            found = (tuple(document["shape"]), document["data_type"])
            layout = chunk_layout(document)
        except (CacheError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedGroupError(
                f"{self.url}/{path}: not stored as the contract says ({error}); `labelgen verify` lists all such arrays"
            ) from error
        if found != (sealed.shape, sealed.dtype):
            name = posixpath.basename(path)
            message = f"{name} is {found[1]} {found[0]}, sealed as {sealed.dtype} {sealed.shape}"
            raise self._damaged(path, message) from ValueError(message)
        return layout

    def _stored_array(
        self, path: str, sealed: ArraySeal, file: str, layout: tuple[int, bool], index: Stored | None, count: int
    ) -> StoredArray:
        (rows, compressed), dtype = layout, np.dtype(sealed.dtype)
        largest = largest_chunk_bytes(rows * math.prod(sealed.shape[1:]) * dtype.itemsize, compressed)
        try:
            chunks = np.zeros((0, 2), np.int64) if index is None else decode_index(index, count, largest)
        except ValueError as error:
            raise self._damaged(path, str(error)) from error
        return StoredArray(file, sealed.shape, dtype, rows, compressed, chunks)

    def _fetch(self, ranges: Sequence[Range]) -> list[Stored]:
        if not ranges:
            return []
        if is_url(self.url):
            found = self._fs.cat_ranges(*map(list, zip(*ranges, strict=True)), on_error="return")
        elif self._packed:
            found = self._packed.read_ranges(ranges)
        else:
            found = [_read_local(*wanted) for wanted in ranges]
        for (file, _, _), data in zip(ranges, found, strict=True):
            if isinstance(data, Exception):
                reason = f"{type(data).__name__}: {getattr(data, 'strerror', None) or data}"
                raise self._damaged(file, reason) from data
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


class StoredRows:
    """The rows of one array of a sealed group, read as `rows[start:stop]`."""

    def __init__(self, reader: RowReader, array: StoredArray) -> None:
        """Read `array` with `reader`."""
        self._reader, self._array = reader, array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array."""
        return self._array.shape

    def __getitem__(self, rows: slice) -> AnyArray:
        start, stop, step = rows.indices(self._array.shape[0])
        assert step == 1, "rows are read in order"
        return self._reader.read([Span(self._array, start, stop)])[0]


def _range(span: Span) -> Range | None:
    """Return the range of the file that holds a span, or None if the span is empty."""
    array = span.array
    if span.stop <= span.start or not len(array.chunks):
        return None
    chunks = array.chunks[span.start // array.rows : -(-span.stop // array.rows)]
    return array.file, int(chunks[:, 0].min()), int(chunks.sum(axis=1).max())


def _empty(span: Span) -> AnyArray:
    return np.zeros((span.stop - span.start, *span.array.shape[1:]), span.array.dtype)


def _read_local(path: str, start: int, stop: int | None) -> bytearray | Exception:
    """Return bytes of a file, or the error of one that is absent or no regular file."""
    try:
        return read_range(path, start, stop)
    except (FileNotFoundError, ValueError) as error:
        return error
