"""Reads rows of sealed arrays directly from their files: the values that zarr-python reads, at less cost per call.

A span of rows is one range of the array's file. All bytes are verified as they are read, by the checksum of their
chunk.
"""

import math
import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schemas.array_storage import (
    METADATA,
    Stored,
    checksum_of_parts,
    chunk_file,
    chunk_layout,
    chunk_shapes,
    decode_chunk,
    decode_index,
    index_bytes,
    largest_chunk_bytes,
)
from cache_schemas.documents import ArraySeal, GroupSeal
from cache_schemas.errors import CacheError, DamagedGroupError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import AnyArray, group_spec
from cache_schemas.local_files import read_range
from cache_schemas.location import file_system, is_packed, is_url
from cache_schemas.packed_file import open_packed
from cache_schemas.zarr_documents import LARGEST_DOCUMENT_BYTES, parse_document

Range = tuple[str, int, int | None]
"""A file and the range of its bytes from start to stop; a negative start counts from the end, None is the end."""

PART_BYTES = 2**24
"""So many bytes of an array are in memory at once while its checksum is computed."""

GAP_BYTES = 2**18
"""Bytes of an object between two wanted ranges that cost less than another request would."""


@dataclass(frozen=True)
class ArrayFile:
    """The file of a sealed array, and how its values are stored there: in inner chunks of `rows` rows each."""

    file: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int
    compressed: bool

    @property
    def chunk_count(self) -> int:
        """The number of inner chunks."""
        return -(-self.shape[0] // self.rows)

    @property
    def is_empty(self) -> bool:
        """Whether the array has no values, and therefore no file."""
        return 0 in self.shape


@dataclass(frozen=True)
class StoredArray(ArrayFile):
    """An array's file, and where its inner chunks are: `chunks` (n, 2) are their offsets and sizes in bytes."""

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
        files = {
            path: self._array_file(path, sealed, *self._layout(path, sealed, text))
            for (path, sealed), text in zip(arrays.items(), texts, strict=True)
        }
        return self.open(files)[0]

    def file_by_contract(self, group: GroupPath, name: str, sealed: ArraySeal) -> ArrayFile:
        """Return the file of an array that is stored as the contract says; nothing is read."""
        spec = group_spec(group).arrays[name]
        return self._array_file(
            f"{group}/{name}", sealed, chunk_shapes(spec, sealed.shape)[0][0], compressed=spec.compressed
        )

    def open(
        self, files: Mapping[str, ArrayFile], whole: Collection[str] = ()
    ) -> tuple[dict[str, StoredArray], dict[str, AnyArray]]:
        """Return where the chunks of arrays are, and all values of those arrays that `whole` names.

        Everything is fetched at once.

        Raises:
            DamagedGroupError: if a chunk index, or bytes of values, are damaged.
            StoreError: if they cannot be read.
        """
        ranges: dict[str, Range] = {
            key: (array.file, 0 if key in whole else -index_bytes(array.chunk_count), None)
            for key, array in files.items()
            if not array.is_empty
        }
        fetched = dict(zip(ranges, self._fetch(list(ranges.values())), strict=True))
        stored = {key: self._with_chunks(array, fetched.get(key)) for key, array in files.items()}
        values = {}
        for key in whole:
            span = Span(stored[key], 0, stored[key].shape[0])
            values[key] = self._decode(span, fetched[key], 0) if key in fetched else _empty(span)
        return stored, values

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

    def checksum(self, array: StoredArray) -> str:
        """Return the checksum of all values of an array, as its seal has it; they are read part by part.

        Raises:
            DamagedGroupError, StoreError: as `read` does.
        """
        row_bytes = math.prod(array.shape[1:]) * array.dtype.itemsize
        rows = max(1, PART_BYTES // max(1, row_bytes) // array.rows) * array.rows
        spans = (Span(array, start, min(start + rows, array.shape[0])) for start in range(0, array.shape[0], rows))
        return checksum_of_parts(self.read([span])[0] for span in spans)

    def copy_files(self, copies: Mapping[str, str]) -> None:
        """Copy files of arrays, all at once, each to a path on the local disk.

        Raises:
            StoreError: if one cannot be read, or, caused by an OSError, not be written.
            OSError: if one cannot be written.
            CacheError: if one does not exist, or is not where the directory of a packed cache says.
        """
        try:
            if self._packed:
                for file, copy in copies.items():
                    self._packed.copy(file, copy)
            else:
                self._fs.get(list(copies), list(copies.values()))
        except FileNotFoundError as error:
            raise CacheError(f"{self.url}: lacks a file that it had before ({error}); run `labelgen verify`") from error
        except ValueError as error:
            raise CacheError(f"{self.url}: damaged ({error}); `labelgen verify` lists all damage") from error

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

    def _array_file(self, path: str, sealed: ArraySeal, rows: int, compressed: bool) -> ArrayFile:
        file = self._path(path, chunk_file(len(sealed.shape)))
        return ArrayFile(file, sealed.shape, np.dtype(sealed.dtype), rows, compressed)

    def _with_chunks(self, array: ArrayFile, tail: Stored | None) -> StoredArray:
        """Return an array with its chunks, from bytes of its file that end with the index; None if it has no file."""
        chunk_values = array.rows * math.prod(array.shape[1:]) * array.dtype.itemsize
        largest, chunks = largest_chunk_bytes(chunk_values, array.compressed), np.zeros((0, 2), np.int64)
        try:
            if tail is not None:
                chunks = decode_index(tail[-index_bytes(array.chunk_count) :], array.chunk_count, largest)
        except ValueError as error:
            raise self._damaged(array.file, str(error)) from error
        return StoredArray(array.file, array.shape, array.dtype, array.rows, array.compressed, chunks)

    def _fetch(self, ranges: Sequence[Range]) -> list[Stored]:
        if not ranges:
            return []
        found: Sequence[Stored | Exception]
        if is_url(self.url):
            found = self._fetch_objects(ranges)
        elif self._packed:
            found = self._packed.read_ranges(ranges)
        else:
            found = [_read_local(*wanted) for wanted in ranges]
        for (file, _, _), data in zip(ranges, found, strict=True):
            if isinstance(data, Exception):
                reason = f"{type(data).__name__}: {getattr(data, 'strerror', None) or data}"
                raise self._damaged(file, reason) from data
        return found  # type: ignore[return-value]  # exceptions have been raised

    def _fetch_objects(self, ranges: Sequence[Range]) -> list[Stored | Exception]:
        """Return the bytes of ranges of objects; ranges that lie close together are one request."""
        requests, place = _join_close(ranges)
        answers = self._fs.cat_ranges(*map(list, zip(*requests, strict=True)), on_error="return")
        found: list[Stored | Exception] = []
        for (_, start, stop), number in zip(ranges, place, strict=True):
            answer, first = answers[number], requests[number][1]
            if isinstance(answer, Exception) or stop is None:
                found.append(answer)
            else:
                found.append(answer[start - first : stop - first])
        return found

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


def _join_close(ranges: Sequence[Range]) -> tuple[list[Range], list[int]]:
    """Return the ranges to ask for, and for each of `ranges` the number of the one that holds it.

    Those of one file with at most `GAP_BYTES` between them become one.
    """
    requests: list[Range] = []
    place = [0] * len(ranges)
    for number in sorted(range(len(ranges)), key=lambda number: ranges[number][:2]):
        file, start, stop = ranges[number]
        last = requests[-1] if requests else ("", 0, None)
        if file == last[0] and stop is not None and last[2] is not None and 0 <= start <= last[2] + GAP_BYTES:
            requests[-1] = (file, last[1], max(stop, last[2]))
        else:
            requests.append((file, start, stop))
        place[number] = len(requests) - 1
    return requests, place


def _empty(span: Span) -> AnyArray:
    return np.zeros((span.stop - span.start, *span.array.shape[1:]), span.array.dtype)


def _read_local(path: str, start: int, stop: int | None) -> bytearray | Exception:
    """Return bytes of a file, or the error of one that is absent or no regular file."""
    try:
        return read_range(path, start, stop)
    except (FileNotFoundError, ValueError) as error:
        return error
