"""How an array of the contract is stored on disk. No other module knows this.

Each array is a Zarr v3 array with one Zarr shard, which is one file, `c/0/0/...`. The file holds the inner chunks,
which divide the array along its first axis, and then the index: the offset and size of each chunk, 16 bytes a chunk,
and a crc32c of the index. Chunks are compressed with zstd, which has a checksum of its own, or are raw bytes followed
by their crc32c. The last chunk is padded to the size of the others. An empty array has no file.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.group import GroupMetadata
from zarr.storage import MemoryStore

from cache_schemas.durable_store import BytesLike
from cache_schemas.layout import AnyArray, ArraySpec

METADATA = "zarr.json"
"""The file with the metadata of a Zarr group or array."""

INDEX_ENTRY_BYTES, CRC_BYTES = 16, 4

Stored = bytes | bytearray
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_LEAST_BYTES = 13
"""A zstd frame has at least its magic number, its header, the header of one block, and its checksum."""
ZSTD_BYTES_PER_BYTE = 2**15
"""The largest compression factor of zstd: a block holds at most 128 KiB and takes at least 4 bytes."""


def checksum(array: AnyArray) -> str:
    """Return the crc32c of the array's values in C order, little-endian, as eight hex digits."""
    return checksum_of_parts([array])


def checksum_of_parts(parts: Iterable[AnyArray]) -> str:
    """Return the crc32c of an array that is given in parts, along its first axis, as eight hex digits."""
    crc = 0
    for part in parts:
        flat = np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        crc = google_crc32c.extend(crc, flat.tobytes())
    return f"{crc:08x}"


def chunk_shapes(spec: ArraySpec, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape of an inner chunk, and the shape of the one Zarr shard that covers the whole array."""
    length, *rest = (max(1, size) for size in shape)
    rows = min(spec.chunk or length, length)
    return (rows, *rest), (-(-length // rows) * rows, *rest)


def chunk_file(axes: int) -> str:
    """Return the path of the file with the values, inside the folder of an array with so many axes."""
    return "/".join(["c", *["0"] * axes])


# Writing


def encode_array(array: AnyArray, spec: ArraySpec) -> dict[str, BytesLike]:
    """Return the content of the files of one array, by their path in its folder.

    Zarr encodes them in memory. Into a cache it would write them one by one, with a look at each and at all above it.
    """
    inner, outer = chunk_shapes(spec, array.shape)
    files: dict[str, Buffer] = {}
    target = zarr.create_array(
        MemoryStore(files),
        shape=array.shape,
        dtype=array.dtype,
        chunks=inner,
        shards=outer,
        compressors=[ZstdCodec(level=1, checksum=True) if spec.compressed else Crc32cCodec()],
        filters=None,
        fill_value=0,
        dimension_names=spec.dimension_names,
        config={"write_empty_chunks": True},
    )
    if array.size:
        target[...] = array
    return {path: content.as_buffer_like() for path, content in files.items()}


def encode_group(attributes: Mapping[str, Any]) -> bytes:
    """Return the content of the `zarr.json` of a Zarr group with these attributes."""
    documents = GroupMetadata(dict(attributes)).to_buffer_dict(default_buffer_prototype())
    return documents[METADATA].to_bytes()


# Checking without reading values


def least_file_bytes(spec: ArraySpec, shape: tuple[int, ...], dtype: str) -> int:
    """Return the size of the smallest file that can hold such an array: exact if raw, a lower bound if compressed."""
    inner, outer = chunk_shapes(spec, shape)
    chunk = math.prod(inner) * np.dtype(dtype).itemsize
    stored = max(ZSTD_LEAST_BYTES, chunk // ZSTD_BYTES_PER_BYTE) if spec.compressed else chunk + CRC_BYTES
    return outer[0] // inner[0] * (stored + INDEX_ENTRY_BYTES) + CRC_BYTES


def metadata_misfits(
    spec: ArraySpec, shape: tuple[int, ...], dtype: str, metadata: Mapping[str, Any], version: int
) -> list[str]:
    """Compare an array's `zarr.json` with what `encode_array` makes; returns a sentence for each difference.

    In a cache of schema version 1, the dimension names may be those of that version, which were not unique.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if it is not the metadata of an array with one Zarr shard.
    """
    inner, outer = chunk_shapes(spec, shape)
    (sharding,) = metadata["codecs"]
    grid, details, keys = metadata["chunk_grid"], sharding["configuration"], metadata["chunk_key_encoding"]
    codecs = ["bytes little", "zstd checksum" if spec.compressed else "crc32c"]
    names, names_before = spec.dimension_names, [str(axis) for axis in spec.axes]
    expected_names = names_before if version == 1 and metadata["dimension_names"] == names_before else names
    found_expected: dict[str, tuple[Any, Any]] = {
        "zarr_format": (metadata["zarr_format"], 3),
        "node_type": (metadata["node_type"], "array"),
        "shape": (metadata["shape"], list(shape)),
        "data_type": (metadata["data_type"], dtype),
        "chunk grid": ((grid["name"], grid["configuration"]["chunk_shape"]), ("regular", list(outer))),
        "chunk keys": ((keys["name"], keys.get("configuration", {}).get("separator", "/")), ("default", "/")),
        "fill_value": (metadata["fill_value"], 0),
        "dimension_names": (metadata["dimension_names"], expected_names),
        "codec": (sharding["name"], "sharding_indexed"),
        "inner chunks": (details["chunk_shape"], list(inner)),
        "inner codecs": ([_codec(codec) for codec in details["codecs"]], codecs),
        "index codecs": ([_codec(codec) for codec in details["index_codecs"]], ["bytes little", "crc32c"]),
        "index_location": (details.get("index_location", "end"), "end"),
    }
    return [
        f"{what} is {found!r:.80}, expected {expected!r:.80}"
        for what, (found, expected) in found_expected.items()
        if found != expected
    ]


def _codec(codec: Mapping[str, Any]) -> str:
    """Return a codec's name, and the setting that a reader needs to decode."""
    settings = codec.get("configuration", {})
    detail = {"bytes": settings.get("endian", "little"), "zstd": "checksum" if settings.get("checksum") else ""}
    return f"{codec['name']} {detail.get(codec['name'], '')}".strip()


# Reading parts of the file


def chunk_layout(document: Mapping[str, Any]) -> tuple[int, bool]:
    """Return the rows of an inner chunk, and whether chunks are compressed, from the metadata of an array.

    Raises:
        ValueError, KeyError, TypeError: if the array is stored in another way than the contract says.
    """
    (codec,) = document["codecs"]
    sharding = codec["configuration"]
    inner = [entry["name"] for entry in sharding["codecs"]]
    if sharding["index_location"] != "end" or inner not in (["bytes", "crc32c"], ["bytes", "zstd"]):
        raise ValueError(f"codecs {inner}")
    rows, length = int(sharding["chunk_shape"][0]), max(1, document["shape"][0])
    if not 1 <= rows <= length:
        raise ValueError(f"inner chunks of {rows} rows in an array of {length}")
    return rows, inner[1] == "zstd"


def largest_chunk_bytes(values: int, compressed: bool) -> int:
    """Return the most bytes that a chunk with so many bytes of values takes in the file.

    A zstd frame of data that cannot be compressed has 3 bytes more for each block of 128 KiB, and at most 22 others.
    """
    return values + 3 * (values // 2**17 + 1) + 22 if compressed else values + CRC_BYTES


def index_bytes(chunks: int) -> int:
    """Return the size of the index of so many chunks, at the end of the file."""
    return INDEX_ENTRY_BYTES * chunks + CRC_BYTES


def decode_index(stored: Stored, chunks: int, largest_chunk: int) -> NDArray[np.int64]:
    """Return the offset and size in bytes of each chunk, (chunks, 2); a chunk has at most `largest_chunk` bytes.

    Raises:
        ValueError: if the checksum does not match, or the chunks take more of the file than they can.
    """
    if len(stored) != index_bytes(chunks) or not _crc_matches(np.frombuffer(stored, np.uint8)):
        raise ValueError("the checksum of its chunk index does not match")
    index = np.frombuffer(stored[:-CRC_BYTES], "<u8").reshape(-1, 2)
    offsets, sizes = index[:, 0], index[:, 1]
    if np.any(sizes > largest_chunk) or np.any(offsets > chunks * largest_chunk):
        raise ValueError("its chunk index leads outside the file")
    return index.astype(np.int64)


def decode_chunk(stored: NDArray[np.uint8], compressed: bool, shape: tuple[int, ...], dtype: np.dtype[Any]) -> AnyArray:
    """Return the values of one stored chunk, as an array that may share memory with `stored`.

    Memory for the declared size is taken, whatever a compressed chunk says of itself.

    Raises:
        ValueError, RuntimeError: if the bytes are not those of such a chunk.
        MemoryError: if there is not enough memory.
    """
    size = math.prod(shape) * dtype.itemsize
    values: NDArray[np.uint8]
    if compressed:
        values = _decompress(stored, size)
    elif _crc_matches(stored):
        values = stored[:-CRC_BYTES]
    else:
        raise ValueError("the checksum of a chunk does not match")
    return np.frombuffer(values, dtype.newbyteorder("<")).reshape(shape)


def _decompress(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return the `size` bytes in a zstd frame; no more than these are ever written."""
    from numcodecs.zstd import decompress

    if (declared := _frame_content_bytes(frame[:18].tobytes())) != size:
        raise ValueError(f"a compressed chunk holds {declared} bytes, its shape needs {size}")
    values = np.empty(size, np.uint8)
    try:
        decompress(frame, values)
    except RuntimeError as error:
        if "memory" in str(error).lower():
            raise MemoryError(str(error)) from None
        raise
    return values


def _frame_content_bytes(header: bytes) -> int | None:
    """Return the size of the content that the header of a zstd frame declares (RFC 8878, 3.1.1.1); None if it does not.

    Raises:
        ValueError: if it is not the header of a zstd frame.
    """
    if len(header) < ZSTD_LEAST_BYTES or header[:4] != ZSTD_MAGIC:
        raise ValueError("a compressed chunk is not a zstd frame")
    descriptor = header[4]
    single_segment = bool(descriptor & 0x20)
    width = (int(single_segment), 2, 4, 8)[descriptor >> 6]
    start = 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3]
    declared = int.from_bytes(header[start : start + width], "little")
    return None if width == 0 else declared + (256 if width == 2 else 0)


def _crc_matches(stored: NDArray[np.uint8]) -> bool:
    if len(stored) <= CRC_BYTES:
        return False
    return bool(google_crc32c.value(stored[:-CRC_BYTES]) == int.from_bytes(stored[-CRC_BYTES:], "little"))
